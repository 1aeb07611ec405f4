// Moves through a recorded run; everything it needs is in `run`, so it works without a kernel.

// Changes worth a word: the program counter's is when it does not go to the next instruction.
function told(run, step) {
  const next = (step.address + step.code.split(" ").length).toString(16);
  return Object.entries(step.changes).filter(([name, value]) => name !== run.counter || value !== next);
}

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
    changed = new Set(told(run, step).map(([name]) => name));
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
    row.append(element("td", {}, (now ? "▶" : at < position && !step.note ? "✓" : "") + (step.note ? "✗" : "")));
    row.append(element("td", {}, "0x" + step.address.toString(16)));
    row.append(element("td", {}, step.code));
    row.append(element("td", {}, step.text + (step.note ? ` — ${step.note.length > 30 ? "goes wrong" : step.note}` : "")));
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
    ...told(run, step).map(([name, value]) => `${name} became 0x${value}`),
    ...step.writes.map(([address, hex]) => `memory 0x${address.toString(16)} became ${hex.match(/../g).join(" ")}`),
  ];
  const end = position === total ? ` The end: ${run.end}.` : "";
  const note = step.note ? ` ✗ ${step.note[0].toUpperCase()}${step.note.slice(1)}.` : "";
  return `Step ${position} of ${total}, ${step.text}: ${what.join(", ") || "nothing changed"}.${note}${end}`;
}

// What a judge said about the run: a sentence, and where the first difference is.
function verdict(run) {
  const made = element("div", { class: "verdict" });
  made.append(element("p", {}, (run.difference ? "✗ " : "✓ ") + run.verdict));
  if (!run.difference) return made;
  const shown = table(`After step ${run.difference.step}`, ["what", "yours", run.judge]);
  const body = element("tbody");
  for (const [name, own, other] of run.difference.rows.slice(0, 8)) {
    const row = element("tr");
    row.append(element("th", { scope: "row" }, name), element("td", {}, own), element("td", {}, other));
    body.append(row);
  }
  shown.append(body);
  made.append(shown);
  return made;
}

// Scroll a pane, and nothing else, until a row of it can be seen.
function reveal(scrolled, row) {
  if (!row || (row.offsetTop >= scrolled.scrollTop && row.offsetTop + row.offsetHeight <= scrolled.scrollTop + scrolled.clientHeight)) return;
  scrolled.scrollTop = Math.max(0, row.offsetTop - scrolled.clientHeight / 2);
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
  const keys = { ArrowRight: next, n: next, ArrowLeft: back, p: back, Home: start, End: end };
  if (run.difference) {
    keys.d = () => go(run.difference.step);
    const button = element("button", { type: "button" }, "first difference");
    button.addEventListener("click", keys.d);
    bar.append(button);
  }
  bar.append(slider);
  onKeys(frame, keys);

  const draw = () => {
    const position = here();
    const moment = momentOf(run, position);
    slider.value = String(position);
    slider.setAttribute("aria-valuetext", `step ${position} of ${total}`);
    live.textContent = sentence(run, position);
    const code = pane("Instructions", listing(run, position, go));
    const registers = pane("Registers", registerTable(run, moment));
    const memory = pane("Memory", ...moment.memory.map(memoryTable));
    code.classList.add("listing");
    registers.classList.add("registers");
    memory.classList.add("memory");
    replacePanes(panes, moment.memory.length ? [code, registers, memory] : [code, registers]);
    const current = code.querySelector('[aria-current="step"]');
    if (current) code.scrollTop = Math.max(0, current.offsetTop - code.clientHeight / 2);
    reveal(registers, registers.querySelector("tr.changed"));
  };

  frame.append(element("strong", {}, run.title), bar, live, ...(run.verdict ? [verdict(run)] : []), panes);
  el.append(frame);
  model.on("change:position", draw);
  draw();
  return () => model.off("change:position", draw);
}

export default { render };
