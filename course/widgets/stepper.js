// Moves through a recorded run; everything it needs is in `run`, so it works without a kernel.

// Registers and memory after `position` steps: replay from the start.
function momentOf(run, position) {
  const registers = { ...run.start };
  const memory = run.memory.map((region) => ({
    ...region,
    bytes: region.bytes.match(/../g) ?? [],
    written: new Set(),
  }));
  let changed = new Set();
  run.steps.slice(0, position).forEach((step) => {
    Object.assign(registers, step.changes);
    changed = new Set(Object.keys(step.changes));
    memory.forEach((region) => region.written.clear());
    for (const [address, hex] of step.writes) {
      (hex.match(/../g) ?? []).forEach((byte, i) => {
        for (const region of memory) {
          const at = address + i - region.base;
          if (at >= 0 && at < region.bytes.length) {
            region.bytes[at] = byte;
            region.written.add(at);
          }
        }
      });
    }
  });
  return { registers, memory, changed };
}

function listing(run, position, go) {
  const made = table("Instructions, in the order in which they ran", ["", "address", "bytes", "instruction"]);
  const body = element("tbody");
  run.steps.forEach((step, at) => {
    const now = at === position;
    const row = element("tr", now ? { "aria-current": "step" } : {});
    row.append(element("td", {}, now ? "▶" : at < position ? "✓" : ""));
    row.append(element("td", {}, "0x" + step.address.toString(16)));
    row.append(element("td", {}, step.code));
    row.append(element("td", {}, step.text));
    row.addEventListener("click", () => go(at));
    body.append(row);
  });
  made.append(body);
  return made;
}

function registerTable(run, moment) {
  const made = table("Registers", ["name", "value", "for"]);
  const body = element("tbody");
  run.registers.forEach((name) => {
    const changed = moment.changed.has(name);
    const row = element("tr", changed ? { class: "changed" } : {});
    row.append(element("th", { scope: "row" }, name));
    row.append(element("td", {}, moment.registers[name].padStart(run.digits, "0") + (changed ? " ← changed" : "")));
    row.append(element("td", {}, run.roles[name] ?? ""));
    body.append(row);
  });
  made.append(body);
  return made;
}

function memoryTable(region) {
  const made = table(`Memory: ${region.name}`, ["address", "bytes"]);
  const body = element("tbody");
  for (let at = 0; at < region.bytes.length; at += 8) {
    const row = element("tr");
    row.append(element("th", { scope: "row" }, "0x" + (region.base + at).toString(16)));
    const cell = element("td");
    region.bytes.slice(at, at + 8).forEach((byte, i) => {
      const written = region.written.has(at + i);
      cell.append(written ? element("mark", {}, byte) : document.createTextNode(byte), " ");
    });
    row.append(cell);
    body.append(row);
  }
  made.append(body);
  return made;
}

function sentence(run, position) {
  const total = run.steps.length;
  if (position === 0) return `Before the first of ${total} steps.`;
  const step = run.steps[position - 1];
  const what = [
    ...Object.entries(step.changes).map(([name, value]) => `${name} became 0x${value}`),
    ...step.writes.map(([address, hex]) => `memory 0x${address.toString(16)} became ${hex.match(/../g).join(" ")}`),
  ];
  const end = position === total ? ` The end: ${run.end}.` : "";
  return `Step ${position} of ${total}, ${step.text}: ${what.join(", ") || "nothing changed"}.${end}`;
}

function render({ model, el }) {
  el.classList.add("course-view", "course-stepper");
  const run = model.get("run");
  const total = run.steps.length;
  const frame = element("div", { role: "group", tabindex: "0", "aria-label": `Stepper: ${run.title}` });
  const slider = element("input", { type: "range", min: "0", max: String(total), "aria-label": "Step" });
  const live = element("p", { role: "status", "aria-live": "polite" });
  const panes = element("div", { class: "panes" });

  const go = (position) => {
    model.set("position", Math.max(0, Math.min(position, total)));
    model.save_changes();
  };
  const here = () => model.get("position");
  const start = () => go(0), back = () => go(here() - 1), next = () => go(here() + 1), end = () => go(total);
  const bar = toolbar("Steps", [
    ["|◀ start", "To the start", start],
    ["◀ back", "One step back", back],
    ["next ▶", "One step on", next],
    ["end ▶|", "To the end", end],
  ]);
  slider.addEventListener("input", () => go(Number(slider.value)));
  bar.append(slider);
  onKeys(frame, { ArrowRight: next, n: next, ArrowLeft: back, p: back, Home: start, End: end });

  const draw = () => {
    const position = here();
    const moment = momentOf(run, position);
    slider.value = String(position);
    slider.setAttribute("aria-valuetext", `step ${position} of ${total}`);
    live.textContent = sentence(run, position);
    const code = pane("Instructions", listing(run, position, go));
    code.classList.add("listing");
    replacePanes(panes, [
      code,
      pane("Registers", registerTable(run, moment)),
      pane("Memory", ...moment.memory.map(memoryTable)),
    ]);
    const current = code.querySelector('[aria-current="step"]');
    if (current) code.scrollTop = Math.max(0, current.offsetTop - code.clientHeight / 2);
  };

  frame.append(element("strong", {}, run.title), bar, live, panes);
  el.append(frame);
  model.on("change:position", draw);
  draw();
  return () => model.off("change:position", draw);
}

export default { render };
