// Buttons that solve a problem: they set a widget of the node or of a node upstream.

import { nodeOfExecution, widgetOf } from "./graph.js";
import { upstream } from "./staleness.js";
import { undoable } from "./undo.js";

/** @typedef {import("./types.js").Remedy} Remedy */
/** @typedef {import("./types.js").GraphNode} GraphNode */

/**
 * Set a widget as a user would.
 * @param {GraphNode} node
 * @param {string} name
 * @param {any} value
 */
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget) return false;
  widget.value = value;
  widget.callback?.(value);
  node.setDirtyCanvas(true, true);
  return true;
}

/**
 * The node that a remedy changes: the one with the problem or the nearest upstream of the class.
 * @param {any} app
 * @param {string} executionId of the node with the problem
 * @param {Remedy} remedy
 */
async function nodeToChange(app, executionId, remedy) {
  const own = nodeOfExecution(app.rootGraph, executionId);
  if (!remedy.node || own?.comfyClass === remedy.node) return own;
  const { output } = await app.graphToPrompt();
  const found = upstream(output, executionId).find((id) => output[id].class_type === remedy.node);
  return found === undefined ? null : nodeOfExecution(app.rootGraph, found);
}

/**
 * Apply a remedy; undo takes it back.
 * @param {any} app
 * @param {string} executionId of the node with the problem
 * @param {Remedy} remedy
 * @returns {Promise<string>} what was done
 */
export async function applyRemedy(app, executionId, remedy) {
  const node = await nodeToChange(app, executionId, remedy);
  let changed = false;
  if (node) undoable(app, () => (changed = setWidget(node, remedy.widget, remedy.value)));
  if (!node || !changed) {
    return `The node to change was not found. Set ${remedy.widget} to “${remedy.value}” yourself.`;
  }
  const where = node === nodeOfExecution(app.rootGraph, executionId) ? "" : ` in ${node.title}`;
  return `Changed: ${remedy.widget}${where} is now “${remedy.value}”. Queue again.`;
}
