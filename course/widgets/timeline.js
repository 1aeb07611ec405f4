// Moves through recorded exits; everything it needs is in `run`, so it works without a kernel.

const FIRST_SHOWN = 16; // exits side by side before anyone zooms

function duration(seconds) {
  const [unit, size] = [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]].find(([, size]) => seconds >= size) ?? ["ns", 1e-9];
  return `${Number((seconds / size).toPrecision(3))} ${unit}`;
}

const length = (events) => events.reduce((sum, [, start, end]) => sum + end - start, 0);

// Every event with its exit's number (0: after the last one) and its two places: in time, and with equal room.
function placed(run) {
  const all = [];
  const add = (events, number, from, room) =>
    events.forEach(([lane, start, end, label], i) =>
      all.push({ lane, label, number, time: [start, end], room: [from + (i * room) / events.length, from + ((i + 1) * room) / events.length] }),
    );
  run.exits.forEach((exit, i) => {
    add(exit.guest, i + 1, i, 0.5);
    add(exit.outside, i + 1, i + 0.5, 0.5);
  });
  add(run.last, 0, run.exits.length, 0.5);
  return all;
}

function sentence(run, position, lanes) {
  if (!run.exits.length) return "No exits were recorded.";
  const exit = run.exits[position - 1];
  const what = exit.outside[0][4] ? ` (${exit.outside[0][4]})` : "";
  const times = run.timed ? ` The ${lanes[0]} ran ${duration(length(exit.guest))}, then waited ${duration(length(exit.outside))}.` : "";
  return `Exit ${position} of ${run.exits.length}: ${exit.reason}${what}.${times}`;
}

function exitTable(run, position) {
  const exit = run.exits[position - 1];
  const made = table(exit ? `Exit ${position}: ${exit.reason}` : "Exit", ["lane", "what", ...(run.timed ? ["for"] : [])]);
  const body = element("tbody");
  for (const [lane, start, end, label, detail] of exit ? [...exit.guest, ...exit.outside] : []) {
    const row = element("tr");
    row.append(element("th", { scope: "row" }, run.lanes[lane]));
    row.append(element("td", {}, [label, detail].filter(Boolean).join(": ")));
    if (run.timed) row.append(element("td", {}, duration(end - start)));
    body.append(row);
  }
  made.append(body);
  return made;
}

function histogramTable(run, position) {
  const made = table("By reason", ["reason", "exits", "share"]);
  const body = element("tbody");
  const most = Math.max(1, ...run.histogram.map(([, count]) => count));
  for (const [reason, count] of run.histogram) {
    const now = run.exits[position - 1]?.reason === reason;
    const row = element("tr", now ? { "aria-current": "true" } : {});
    row.append(element("th", { scope: "row" }, (now ? "▶ " : "") + reason), element("td", {}, String(count)));
    const share = element("td", { class: "share", "aria-label": `${((100 * count) / run.exits.length).toFixed(1)} percent` });
    share.append(element("i", { style: `width: ${(100 * count) / most}%` }));
    row.append(share);
    body.append(row);
  }
  made.append(body);
  return made;
}

// What part of the axis is to be seen: [from, to] around the selected exit.
function windowOf(events, position, scale, zoom) {
  const ends = events.map((event) => event[scale]).flat();
  if (!ends.length) return [0, 1];
  const first = ends.reduce((a, b) => Math.min(a, b)), last = ends.reduce((a, b) => Math.max(a, b));
  const here = events.filter((event) => event.number === position).map((event) => event[scale]).flat();
  const width = (last - first || 1) / zoom;
  const middle = here.length ? (Math.min(...here) + Math.max(...here)) / 2 : first;
  const from = Math.max(first, Math.min(middle - width / 2, last - width));
  return [from, from + width];
}

function render({ model, el }) {
  el.classList.add("course-view", "course-timeline");
  let run, events, scale, zoom;
  const frame = element("div", { role: "group", tabindex: "0" });
  const heading = element("strong");
  const slider = element("input", { type: "range", min: "1", "aria-label": "Exit" });
  const live = element("p", { role: "status", "aria-live": "polite" });
  const chart = element("div", { class: "lanes", role: "img" });
  const panes = element("div", { class: "panes" });

  const here = () => model.get("position");
  const go = (position) => {
    model.set("position", Math.max(Math.min(1, run.exits.length), Math.min(position, run.exits.length)));
    model.save_changes();
  };
  const enlarge = (factor) => {
    zoom = Math.max(1, Math.min(zoom * factor, 4096));
    draw();
  };
  const turn = () => {
    if (run.timed) scale = scale === "time" ? "room" : "time";
    draw();
  };
  const actions = {
    first: () => go(1), back: () => go(here() - 1), next: () => go(here() + 1), last: () => go(run.exits.length),
    closer: () => enlarge(2), wider: () => enlarge(1 / 2), turn,
  };
  const bar = toolbar("Exits", [
    ["|◀ first", "To the first exit", actions.first],
    ["◀ back", "One exit back", actions.back],
    ["next ▶", "One exit on", actions.next],
    ["last ▶|", "To the last exit", actions.last],
    ["+ closer", "Zoom in", actions.closer],
    ["− wider", "Zoom out", actions.wider],
    ["to scale", "Show times to scale", actions.turn],
  ]);
  const scaled = bar.lastChild;
  slider.addEventListener("input", () => go(Number(slider.value)));
  bar.append(slider);
  onKeys(frame, {
    ArrowRight: actions.next, n: actions.next, ArrowLeft: actions.back, p: actions.back, Home: actions.first,
    End: actions.last, "+": actions.closer, "=": actions.closer, "-": actions.wider, t: actions.turn,
  });

  const draw = () => {
    const position = here();
    slider.value = String(position);
    slider.setAttribute("aria-valuetext", `exit ${position} of ${run.exits.length}`);
    scaled.setAttribute("aria-pressed", String(scale === "time"));
    live.textContent = sentence(run, position, run.lanes);
    const [from, to] = windowOf(events, position, scale, zoom);
    chart.replaceChildren();
    chart.classList.toggle("even", scale === "room"); // then each box has as much free room on its right
    run.lanes.forEach((name, lane) => {
      const row = element("div", { class: "lane" });
      for (const event of events) {
        const [start, end] = event[scale];
        if (event.lane !== lane || end < from || start > to) continue;
        const selected = event.number === position && position > 0;
        const left = (100 * (start - from)) / (to - from), width = (100 * (end - start)) / (to - from);
        const box = element("div", { class: selected ? "event selected" : "event", style: `left: ${left}%; width: ${width}%`, title: event.label });
        // A label begins where its box is to be seen, and is not written where two letters would not fit.
        if (width > 1.5) box.append(element("span", left < 0 ? { style: `left: ${(-100 * left) / width}%` } : {}, (selected && lane ? "▶ " : "") + event.label));
        if (event.number) box.addEventListener("click", () => go(event.number));
        row.append(box);
      }
      chart.append(element("div", { class: "name" }, name), row);
    });
    const axis = element("div", { class: "axis" });
    const ends = scale === "time" ? [from, to].map(duration) : [`exit ${Math.floor(from) + 1}`, `exit ${Math.max(1, Math.ceil(to))}`];
    axis.append(...ends.map((end) => element("span", {}, end)));
    chart.append(axis);
    chart.setAttribute("aria-label", `Lanes ${run.lanes.join(", ")}, from ${ends[0]} to ${ends[1]}`);
    replacePanes(panes, [pane("The selected exit", exitTable(run, position)), pane("Exits by reason", histogramTable(run, position))]);
  };

  const load = () => {
    run = model.get("run");
    events = placed(run);
    scale = "room";
    zoom = Math.max(1, run.exits.length / FIRST_SHOWN);
    frame.setAttribute("aria-label", `Timeline: ${run.title}`);
    heading.textContent = run.title + (run.left_out ? ` (${run.left_out} later exits were not kept)` : "");
    slider.max = String(Math.max(1, run.exits.length));
    scaled.hidden = !run.timed;
    draw();
  };

  frame.append(heading, bar, live, chart, panes);
  el.append(frame);
  model.on("change:run", load);
  model.on("change:position", draw);
  load();
  return () => {
    model.off("change:run", load);
    model.off("change:position", draw);
  };
}

export default { render };
