// Goes from read to read; what there is to say was written beside the reads, in `run`.

// The address in pieces: which bits the current read uses.
function strip(run, position) {
  const made = element("div", { class: "strip", role: "group", "aria-label": "The address, in bits" });
  const last = run.sentences.length - 1;
  run.strip.forEach((piece) => {
    const now = piece.step === position || (piece.step === -1 && position === last);
    const part = element("div", { class: "part", ...(now ? { "aria-current": "step" } : {}) });
    part.append(element("span", {}, `${now ? "▶ " : ""}bits ${piece.bits}`), element("b", {}, piece.value), element("span", {}, piece.for));
    made.append(part);
  });
  return made;
}

function reads(run, position, go) {
  const made = table(run.caption, ["", ...run.heads]);
  const body = element("tbody");
  for (const line of run.rows) {
    const here = line.step > 0 ? line.step === position : line.cells.some((cell) => cell.step === position && position > 0);
    const done = line.step > 0 ? line.step < position : line.cells.every((cell) => cell.step < position) && position > 0;
    const row = element("tr", line.step && here ? { "aria-current": "step" } : {});
    row.append(element("td", {}, here ? "▶" : done ? "✓" : ""));
    line.cells.forEach((cell, i) => {
      const now = cell.step > 0 && cell.step === position;
      const box = element(i ? "td" : "th", { ...(i ? {} : { scope: "row" }), ...(now ? { "aria-current": "step" } : {}) }, (now ? "▶ " : "") + cell.text);
      if (cell.step || line.step) box.addEventListener("click", () => go(cell.step || line.step));
      row.append(box);
    });
    body.append(row);
  }
  made.append(body);
  return made;
}

function render({ model, el }) {
  el.classList.add("course-view", "course-pagewalk");
  const run = model.get("run");
  const last = run.sentences.length - 1;
  const frame = element("div", { role: "group", tabindex: "0", "aria-label": `Page walk: ${run.title}` });
  const slider = element("input", { type: "range", min: "0", max: String(last), "aria-label": "Read" });
  const live = element("p", { role: "status", "aria-live": "polite" });
  const panes = element("div");

  const here = () => model.get("position");
  const go = (position) => {
    model.set("position", Math.max(0, Math.min(position, last)));
    model.save_changes();
  };
  const start = () => go(0), back = () => go(here() - 1), next = () => go(here() + 1), end = () => go(last);
  const bar = toolbar("Reads", [
    ["|◀ start", "To the start", start],
    ["◀ back", "One read back", back],
    ["next ▶", "One read on", next],
    ["end ▶|", "To the outcome", end],
  ]);
  slider.addEventListener("input", () => go(Number(slider.value)));
  bar.append(slider);
  onKeys(frame, { ArrowRight: next, n: next, ArrowLeft: back, p: back, Home: start, End: end });

  const draw = () => {
    const position = here();
    slider.value = String(position);
    slider.setAttribute("aria-valuetext", position === last ? "the outcome" : `read ${position} of ${last - 1}`);
    live.textContent = run.sentences[position];
    live.className = position === last ? "outcome" : "";
    const shown = pane("Reads", reads(run, position, go));
    replacePanes(panes, run.strip.length ? [strip(run, position), shown] : [shown]);
  };

  frame.append(element("strong", {}, run.title), bar, live, panes);
  el.append(frame);
  model.on("change:position", draw);
  draw();
  return () => model.off("change:position", draw);
}

export default { render };
