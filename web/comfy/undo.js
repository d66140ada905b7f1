// ComfyUI's own undo: changes that one Ctrl+Z takes back, and changes that are no step of it.

import { placeOf } from "./graph.js";

/** @typedef {import("./types.js").GraphNode} GraphNode */

/**
 * The change tracker of the open workflow.
 * @param {any} app
 */
export const trackerOf = (app) => app.extensionManager?.workflow?.activeWorkflow?.changeTracker;

/** @param {any} app */
function capture(app) {
  const tracker = trackerOf(app);
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
}

/**
 * Make a change that one undo takes back.
 * @param {any} app
 * @param {() => void} change
 */
export function undoable(app, change) {
  capture(app);
  change();
  capture(app);
  app.graph?.setDirtyCanvas(true, true);
}

/**
 * A node in the state that the change tracker compares with, or undefined.
 * @param {any} state a serialised workflow
 * @param {GraphNode} node
 */
function savedNode(state, node) {
  const { subgraph, id } = placeOf(node);
  const graph = subgraph
    ? state?.definitions?.subgraphs?.find((/** @type {any} */ s) => s.id === subgraph)
    : state;
  return graph?.nodes?.find((/** @type {any} */ saved) => String(saved.id) === id);
}

/**
 * Let the change tracker take over the size and the report of a node without a step of undo.
 * @param {any} app
 * @param {GraphNode} node
 * @param {string} property
 */
export function acceptQuietly(app, node, property) {
  const tracker = trackerOf(app);
  const saved = savedNode(tracker?.activeState, node);
  if (!saved) return;
  saved.size = [node.size[0], node.size[1]];
  saved.properties = { ...saved.properties };
  if (node.properties[property] === undefined) delete saved.properties[property];
  else saved.properties[property] = JSON.parse(JSON.stringify(node.properties[property]));
  tracker.updateModified?.(); // also keeps the draft that a reloaded page starts from
}
