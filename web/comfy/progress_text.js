// The line of progress that ComfyUI shows in a running node. ComfyUI leaves it there at the end.

/** @typedef {import("./types.js").GraphNode} GraphNode */

const WIDGET = "$$node-text-preview";

/**
 * Remove the line from a node that has ended: its report says what came out.
 * @param {GraphNode} node
 */
export function removeProgressText(node) {
  const widget = node.widgets?.find((each) => each.name === WIDGET);
  if (widget) node.removeWidget?.(widget);
}
