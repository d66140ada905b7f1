// Clicks on the layer map become rule lines of a widget, and a dragged budget becomes its value.

import { mergeRules } from "../view/rules.js";
import { widgetOf } from "./graph.js";
import { setWidget } from "./remedies.js";
import { undoable } from "./undo.js";

/** @typedef {import("./types.js").GraphNode} GraphNode */
/** @typedef {import("../view/types.js").Budget} Budget */

/** The widget inside the DynamicCombo `budget` that holds the value of each kind. */
const BUDGET_WIDGETS = { size: "gigabytes", bits: "bits", error: "percent" };

/**
 * Put rule lines in front of those in the rule widget; one undo takes them back.
 * @param {any} app
 * @param {GraphNode} node
 * @param {string} widget its name
 * @param {string[]} lines
 */
export function addRuleLines(app, node, widget, lines) {
  const text = String(widgetOf(node, widget)?.value ?? "");
  undoable(app, () => setWidget(node, widget, mergeRules(text, lines)));
}

/**
 * Call back whenever the text of a widget changes, by typing or by a program.
 * @param {GraphNode} node
 * @param {string} name
 * @param {() => void} changed
 */
export function onWidgetChange(node, name, changed) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  const callback = widget.callback;
  widget.callback = function (...args) {
    callback?.apply(this, args);
    changed();
  };
}

/**
 * The choice of a DynamicCombo that has a given input.
 * @param {GraphNode} node
 * @param {string} combo
 * @param {string} input
 */
function choiceWith(node, combo, input) {
  const type = /** @type {any} */ (node.constructor);
  const definition = type?.nodeData?.input ?? {};
  const spec = definition.required?.[combo] ?? definition.optional?.[combo];
  const options = spec?.[1]?.options ?? [];
  return options.find(
    (/** @type {any} */ option) =>
      option.inputs?.required?.[input] ?? option.inputs?.optional?.[input],
  )?.key;
}

/**
 * Set the budget of Auto Mix: its kind, then the value that this kind has.
 * @param {any} app
 * @param {GraphNode} node
 * @param {Budget} budget a size in GB, bits per weight, or an error in percent
 */
export function setBudget(app, node, { kind, value }) {
  const input = BUDGET_WIDGETS[kind];
  const choice = choiceWith(node, "budget", input);
  if (choice === undefined) return;
  undoable(app, () => {
    if (widgetOf(node, "budget")?.value !== choice) setWidget(node, "budget", choice);
    setWidget(node, `budget.${input}`, value);
    // ComfyUI rounds to the digits that it shows, which may be out of reach.
    const widget = widgetOf(node, `budget.${input}`);
    if (widget) widget.value = value;
  });
}
