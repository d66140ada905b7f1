// What is wrong in which node. Kept beside the nodes, which ComfyUI makes anew when a workflow's
// tab is opened again or a change is undone.

/** @typedef {import("./types.js").Problem} Problem */

export class Problems {
  constructor() {
    /** @type {Map<string, Map<string, Problem[]>>} workflow -> execution id -> problems */
    this.of = new Map();
  }

  /**
   * @param {string} workflow id of its root graph
   * @param {string} node execution id
   */
  get(workflow, node) {
    return this.of.get(workflow)?.get(node) ?? [];
  }

  /**
   * All problems of a workflow by execution id.
   * @param {string} workflow
   */
  all(workflow) {
    return [...(this.of.get(workflow) ?? [])];
  }

  /**
   * Add a problem; one that is known stays one, and keeps or gains its remedy.
   * @param {string} workflow
   * @param {string} node
   * @param {Problem} problem
   */
  add(workflow, node, problem) {
    const nodes = this.of.get(workflow) ?? new Map();
    this.of.set(workflow, nodes);
    const known = /** @type {Problem[]} */ (nodes.get(node) ?? []);
    const same = known.find((one) => sameProblem(one.message, problem.message));
    if (!same) nodes.set(node, [...known, problem]);
    else same.remedy ??= problem.remedy;
  }

  /**
   * @param {string} workflow
   * @param {string} node
   */
  clear(workflow, node) {
    return this.of.get(workflow)?.delete(node) ?? false;
  }
}

/**
 * Whether two messages are about the same thing: ComfyUI repeats one with the class of the
 * exception, or with the name of each input, in front.
 * @param {string} a
 * @param {string} b
 */
function sameProblem(a, b) {
  const [one, other] = [a.trim(), b.trim()];
  return one === other || one.endsWith(other) || other.endsWith(one);
}
