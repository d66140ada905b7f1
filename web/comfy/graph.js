// Finding nodes. Events name them by execution id: "7", or "12:3" for node 3 inside subgraph
// node 12. `app.nodeOutputs` names them by locator: "7", or "<subgraph's uuid>:3".

/** @typedef {import("./types.js").Graph} Graph */
/** @typedef {import("./types.js").GraphNode} GraphNode */

const PREFIX = "NVFP4Foundry";

/** The node id of the class of a node of this pack starts with `NVFP4Foundry`.
 * @param {string | null | undefined} nodeClass */
export const isOurClass = (nodeClass) => nodeClass?.startsWith(PREFIX) ?? false;

/** @param {GraphNode | null | undefined} node */
export const isOurs = (node) => isOurClass(node?.comfyClass);

/**
 * @param {Graph} graph
 * @param {string} id
 * @returns {GraphNode | null}
 */
function nodeById(graph, id) {
  return graph.getNodeById(id) ?? graph.getNodeById(Number(id)) ?? null;
}

/**
 * The node with an execution id, or null.
 * @param {Graph} root
 * @param {string | number} executionId
 * @returns {GraphNode | null}
 */
export function nodeOfExecution(root, executionId) {
  const path = String(executionId).split(":");
  let graph = root;
  for (const id of path.slice(0, -1)) {
    graph = nodeById(graph, id)?.subgraph;
    if (!graph) return null;
  }
  return nodeById(graph, path[path.length - 1]);
}

/**
 * The node with a locator id, or null.
 * @param {Graph} root
 * @param {string} locator
 * @returns {GraphNode | null}
 */
export function nodeOfLocator(root, locator) {
  const [id, subgraph] = locator.split(":").reverse();
  const graph = subgraph === undefined ? root : root.subgraphs?.get(subgraph);
  return graph ? nodeById(graph, id) : null;
}

/**
 * Where a node is saved: subgraph and id, "" for the root graph.
 * @param {GraphNode} node
 */
export function placeOf(node) {
  const graph = node.graph;
  const inside = graph && graph.rootGraph && graph !== graph.rootGraph ? graph.id : "";
  return { subgraph: String(inside), id: String(node.id) };
}

/**
 * A key for a node that stays the same while its workflow is open.
 * @param {GraphNode} node
 */
export function keyOf(node) {
  const { subgraph, id } = placeOf(node);
  const root = node.graph?.rootGraph ?? node.graph;
  return `${root?.id}/${subgraph}/${id}`;
}

/**
 * All nodes with their execution ids. A node of a subgraph that is used twice comes twice.
 * @param {Graph} graph
 * @param {string} path execution id of the subgraph node with a colon, "" for the root graph
 * @returns {Generator<[string, GraphNode]>}
 */
export function* executions(graph, path = "") {
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    const id = `${path}${node.id}`;
    yield [id, node];
    if (node.subgraph) yield* executions(node.subgraph, `${id}:`);
  }
}

/**
 * The execution ids of one node.
 * @param {Graph} root
 * @param {GraphNode} node
 */
export function executionIdsOf(root, node) {
  return [...executions(root)].filter(([, found]) => found === node).map(([id]) => id);
}

/**
 * @param {GraphNode | null | undefined} node
 * @param {string} name
 */
export const widgetOf = (node, name) => node?.widgets?.find((widget) => widget.name === name);
