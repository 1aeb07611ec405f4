// Servers, guests and tasks of a cluster. Everything shown comes from the model; every button is a message to it.

const VIEWS = [["summary", "Status"], ["hardware", "Hardware"], ["snapshots", "Snapshots"], ["console", "Console"]];
const SIGNS = { datacenter: "▣", node: "▤", qemu: "▷", lxc: "▢", storage: "▥" };
const KINDS = { datacenter: "datacenter", node: "node", qemu: "virtual machine", lxc: "container", storage: "storage" };

function rowsTable(caption, rows) {
  const made = table(caption, ["what", "value"]);
  const body = element("tbody");
  for (const [name, value] of rows) {
    const row = element("tr");
    row.append(element("th", { scope: "row" }, name), element("td", {}, value));
    body.append(row);
  }
  if (!rows.length) body.append(emptyRow("nothing to show", 2));
  made.append(body);
  return made;
}

function emptyRow(text, columns) {
  const row = element("tr");
  row.append(element("td", { colspan: String(columns) }, text));
  return row;
}

function tool(text, attributes, action) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

// A labelled field of a form; options make it a list to choose from.
function field(label, name, options, value = "") {
  const made = element("label", {}, label);
  const input = element(options ? "select" : "input", { name });
  for (const option of options ?? []) input.append(element("option", { value: option }, option || "none"));
  input.value = options && !options.includes(value) ? options[0] ?? "" : value;
  made.append(input);
  return made;
}

function check(label, name, checked) {
  const made = element("label", { class: "row" });
  const input = element("input", { type: "checkbox", name });
  input.checked = checked;
  made.append(input, document.createTextNode(label));
  return made;
}

function render({ model, el }) {
  el.classList.add("course-view", "course-datacenter");
  const ask = (what, more = {}) => model.send({ do: what, ...more });
  let view = "summary", form = "";
  const frame = element("div", { role: "group", "aria-label": "Datacenter" });
  const live = element("p", { role: "status", "aria-live": "polite" });
  const servers = element("ul", { role: "tree", "aria-label": "Servers" });
  const title = element("h4");
  const actions = element("div", { role: "toolbar", "aria-label": "Actions" });
  const slot = element("div");
  const views = element("div", { role: "toolbar", "aria-label": "What is shown" });
  const shown = pane("What is known of it");
  const line = element("form", { "aria-label": "Type into the console" });
  const screen = element("pre", { tabindex: "0", role: "log", "aria-label": "Console" });
  const tasks = element("div", { class: "pane tasks", tabindex: "0", role: "group", "aria-label": "Tasks" });
  const log = element("pre", { tabindex: "0", role: "log", "aria-label": "Task log", hidden: "" });

  // Put new children in the place of the old; the button or line that had the focus keeps it.
  const renew = (parent, fresh) => {
    const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    parent.replaceChildren(...fresh);
    if (key) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  };

  // ─── the server tree: one stop of Tab, arrows within ─────────────────────
  const select = (id) => {
    form = "";
    model.set("selected", id);
    model.save_changes();
    ask("select", { id });
  };
  const drawTree = () => {
    const selected = model.get("selected");
    const items = model.get("tree").map((entry) => {
      const current = entry.id === selected;
      const item = element(
        "li",
        { role: "treeitem", "aria-level": String(entry.level), "aria-selected": String(current), "data-key": entry.id,
          tabindex: current ? "0" : "-1", "aria-label": `${KINDS[entry.kind]} ${entry.name}, ${entry.status}` },
        `${current ? "▶ " : ""}${SIGNS[entry.kind]} ${entry.name}${entry.status ? `: ${entry.status}` : ""}`,
      );
      item.addEventListener("click", () => select(entry.id));
      return item;
    });
    if (items.length && !items.some((item) => item.tabIndex === 0)) items[0].tabIndex = 0;
    renew(servers, items);
  };
  const step = (to) => () => {
    const items = [...servers.children];
    const at = Math.max(0, items.indexOf(document.activeElement));
    const next = items[Math.max(0, Math.min(items.length - 1, to(at, items.length)))];
    next?.focus();
    if (next) select(next.dataset.key);
  };
  onKeys(servers, {
    ArrowDown: step((at) => at + 1), ArrowUp: step((at) => at - 1), Home: step(() => 0), End: step((_, n) => n - 1),
  });

  // ─── buttons and their forms ─────────────────────────────────────────────
  const submit = (what, fields, button) => {
    const made = element("form", { "aria-label": button });
    made.append(...fields, element("button", { type: "submit" }, button), tool("Cancel", {}, () => open("")));
    made.addEventListener("submit", (event) => {
      event.preventDefault();
      const values = Object.fromEntries(new FormData(made).entries());
      open("");
      ask(what, values);
    });
    return made;
  };
  const here = () => model.get("tree").find((entry) => entry.id === model.get("selected"));
  const forms = {
    create: () => {
      const { nodes = [], isos = [], vmid = "" } = model.get("choices");
      const disk = field("Disk (storage:GiB)", "disk");
      return submit("create", [
        field("VM ID", "vmid", null, vmid), field("Name", "name"), field("Node", "node", nodes, here()?.node),
        field("Memory (MiB)", "memory", null, "64"), field("CD image", "iso", ["", ...isos]), disk,
      ], "Create VM now");
    },
    migrate: () => {
      const nodes = (model.get("choices").nodes ?? []).filter((node) => node !== here()?.node);
      return submit("migrate", [field("To node", "target", nodes)], "Migrate now");
    },
    snapshot: () => submit("snapshot", [field("Name", "name", null, "before"), check("with RAM", "ram", true)], "Take snapshot now"),
  };
  const drawForm = () => {
    const made = form ? [forms[form]()] : [];
    slot.replaceChildren(...made);
    made[0]?.querySelector("input, select")?.focus();
  };
  const open = (name) => {
    const before = form;
    form = name;
    drawForm();
    if (!name) actions.querySelector(`[data-key="${before}"]`)?.focus();
  };
  const press = (what) => {
    if (what in forms) {
      open(what);
      if (what !== "snapshot") ask("choices");
    } else {
      ask(what);
      if (what === "console") show("console");
    }
  };

  // ─── what is known of the selected line ──────────────────────────────────
  const show = (name) => {
    view = name;
    drawDetail();
  };
  const snapshotTable = (snapshots) => {
    const made = table("Snapshots", ["name", "time", "RAM", "what to do"]);
    const body = element("tbody");
    for (const { name, time, ram, description } of snapshots) {
      const row = element("tr");
      row.append(element("th", { scope: "row", title: description }, name), element("td", {}, time), element("td", {}, ram ? "with RAM" : "disk only"));
      const cell = element("td");
      cell.append(
        tool("Roll back", { "data-key": `rollback ${name}`, "aria-label": `Roll back to ${name}` }, () => ask("rollback", { name })),
        tool("Delete", { "data-key": `delete ${name}`, "aria-label": `Delete snapshot ${name}` }, () => ask("delsnapshot", { name })),
      );
      row.append(cell);
      body.append(row);
    }
    if (!snapshots.length) body.append(emptyRow("there are none", 4));
    made.append(body);
    return made;
  };
  let drawn = "";
  const drawDetail = () => {
    const detail = model.get("detail");
    title.textContent = detail.title ?? "";
    const state = JSON.stringify([detail.buttons, view]);
    if (state !== drawn) {
      drawn = state;
      renew(actions, (detail.buttons ?? []).map(([what, label, can]) =>
        tool(label, { "data-key": what, ...(can ? {} : { disabled: "" }) }, () => press(what))));
      renew(views, VIEWS.map(([name, label]) =>
        tool(label, { "data-key": name, "aria-pressed": String(view === name) }, () => show(name))));
    }
    if (view === "console") {
      drawConsole();
      if (screen.parentElement !== shown) shown.replaceChildren(screen, line);
    } else if (view === "snapshots") renew(shown, [snapshotTable(detail.snapshots ?? [])]);
    else renew(shown, [rowsTable(view === "summary" ? "Status" : "Hardware", detail[view] ?? [])]);
  };
  const drawConsole = () => {
    const { text, open: isOpen, title: name } = model.get("console");
    const atEnd = screen.scrollTop + screen.clientHeight >= screen.scrollHeight - 4;
    const words = name ? (text || "(nothing written yet)") + (isOpen ? "" : "\n(the line was hung up)") : "Not open: press Console.";
    if (screen.textContent !== words) screen.textContent = words;
    if (atEnd) screen.scrollTop = screen.scrollHeight;
    line.hidden = !isOpen;
  };
  line.append(field("Type a line", "text"), element("button", { type: "submit" }, "Send"));
  line.addEventListener("submit", (event) => {
    event.preventDefault();
    ask("type", { text: new FormData(line).get("text") });
    line.reset();
  });

  // ─── tasks ───────────────────────────────────────────────────────────────
  const drawTasks = () => {
    const made = table("Tasks, newest first", ["start", "node", "task", "user", "status", "log"]);
    const body = element("tbody");
    for (const { upid, node, what, user, start, status } of model.get("tasks")) {
      const row = element("tr");
      row.append(...[start, node, what, user, status].map((text) => element("td", {}, text)));
      const cell = element("td");
      cell.append(tool("Log", { "data-key": upid, "aria-label": `Log of ${what} at ${start}` }, () => ask("watch", { upid })));
      row.append(cell);
      body.append(row);
    }
    if (!body.children.length) body.append(emptyRow("there were none", 6));
    made.append(body);
    renew(tasks, [made]);
  };
  const drawLog = () => {
    const { title: name, lines, status, upid } = model.get("log");
    log.hidden = !upid;
    if (!upid) return;
    log.textContent = `${name}: ${status}\n${lines.join("\n")}`;
    log.scrollTop = log.scrollHeight;
  };
  const say = () => (live.textContent = model.get("said") || "Choose a server or a guest; the buttons say what can be done.");
  const offer = () => form && form !== "snapshot" && drawForm();

  const right = element("div");
  right.append(title, actions, slot, views, shown);
  const floor = element("div", { class: "floor" });
  floor.append(servers, right);
  frame.append(live, floor, tasks, log);
  el.append(frame);
  const drawings = {
    "change:tree": drawTree, "change:selected": drawTree, "change:detail": drawDetail, "change:tasks": drawTasks,
    "change:log": drawLog, "change:console": () => view === "console" && drawConsole(), "change:said": say, "change:choices": offer,
  };
  for (const [name, draw] of Object.entries(drawings)) model.on(name, draw);
  drawTree();
  drawDetail();
  drawTasks();
  drawLog();
  say();
  return () => Object.entries(drawings).forEach(([name, draw]) => model.off(name, draw));
}

export default { render };
