// The widget of formats to choose from: a switch for each. Its value is their names, separated by
// commas.

import { addStyles } from "./styles.js";

/** @typedef {import("./types.js").GraphNode} GraphNode */

const HEIGHT = 138;

let made = 0; // widgets so far

/**
 * The names in a value; saved workflows may have a list.
 * @param {unknown} value
 * @returns {string[]}
 */
export function namesIn(value) {
  const names = Array.isArray(value) ? value.map(String) : String(value ?? "").split(",");
  return names.map((name) => name.trim()).filter(Boolean);
}

/**
 * The value with one format switched, in the order of all formats.
 * @param {string[]} all
 * @param {string} value
 * @param {string} name
 */
export function switched(all, value, name) {
  const chosen = new Set(namesIn(value));
  if (!chosen.delete(name)) chosen.add(name);
  const known = all.filter((each) => chosen.has(each));
  return [...known, ...[...chosen].filter((each) => !all.includes(each))].join(", ");
}

/**
 * Add the widget to a node.
 * @param {GraphNode} node
 * @param {string} name of the input
 * @param {[string, { default?: string, formats?: { [name: string]: string } }]} spec of the input
 * @param {(change: () => void) => void} undoable makes a change that one undo takes back
 */
export function formatChoice(node, name, [, options], undoable) {
  const notes = options.formats ?? {};
  const all = Object.keys(notes);
  let value = options.default ?? "";
  addStyles();
  const box = document.createElement("div");
  box.className = "nvfp4-node-formats";
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", name);
  const label = document.createElement("span");
  label.className = "nvfp4-node-formats-label";
  label.textContent = name;
  box.append(label);

  /** @type {Map<string, HTMLButtonElement>} */
  const buttons = new Map();
  const show = () => {
    const chosen = new Set(namesIn(value));
    for (const [format, button] of buttons) {
      button.setAttribute("aria-pressed", String(chosen.has(format)));
    }
  };
  for (const format of all) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format;
    button.title = notes[format];
    button.addEventListener("pointerdown", (event) => event.stopPropagation());
    button.addEventListener("click", () => {
      undoable(() => {
        widget.value = switched(all, value, format);
        widget.callback?.(widget.value);
      });
    });
    buttons.set(format, button);
    box.append(button);
  }
  // A type of its own: Vue nodes would keep the element of the node that undo replaces.
  const widget = node.addDOMWidget(name, `NVFP4_FORMATS_${(made += 1)}`, box, {
    getMinHeight: () => HEIGHT,
    getMaxHeight: () => HEIGHT,
    getValue: () => value,
    setValue: (/** @type {unknown} */ given) => {
      value = namesIn(given).join(", ");
      show();
    },
  });
  show();
  return { widget };
}
