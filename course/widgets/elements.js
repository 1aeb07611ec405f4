// What all views are made of: elements, tables, a toolbar, and keys that do what the buttons do.

function element(tag, attributes = {}, text = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function table(caption, heads) {
  const made = element("table");
  made.append(element("caption", {}, caption));
  const row = element("tr");
  heads.forEach((head) => row.append(head ? element("th", { scope: "col" }, head) : element("td")));
  const top = element("thead");
  top.append(row);
  made.append(top);
  return made;
}

// A part of the view that scrolls by itself, so it can be reached by Tab.
function pane(label, ...children) {
  const made = element("div", { class: "pane", tabindex: "0", role: "group", "aria-label": label });
  made.append(...children);
  return made;
}

function toolbar(label, buttons) {
  const made = element("div", { role: "toolbar", "aria-label": label });
  buttons.forEach(([text, name, action]) => {
    const button = element("button", { type: "button", "aria-label": name }, text);
    button.addEventListener("click", action);
    made.append(button);
  });
  return made;
}

// `keys`: name of the key -> what it does. A slider has arrow keys of its own; shortcuts with modifiers belong to the
// browser; keys that mean something here must not reach the notebook.
function onKeys(frame, keys) {
  frame.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.target.type === "range" || event.ctrlKey || event.metaKey || event.altKey) return;
    keys[event.key]();
    event.preventDefault();
    event.stopPropagation();
  });
}

// Put new panes in the place of the old ones; where one has scrolled and what has the focus stays.
function replacePanes(panes, fresh) {
  const kept = [...panes.children].map((old) => old.scrollTop);
  const focused = [...panes.children].indexOf(document.activeElement);
  panes.replaceChildren(...fresh);
  kept.forEach((top, i) => fresh[i] && (fresh[i].scrollTop = top));
  if (focused >= 0) fresh[focused]?.focus({ preventScroll: true });
}
