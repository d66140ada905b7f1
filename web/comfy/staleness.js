// Whether a report still belongs to the inputs of its node: hashes of all that a node depends on.

import { nodeOfExecution, widgetOf } from "./graph.js";

/** @typedef {import("./types.js").Prompt} Prompt */
/** @typedef {import("./types.js").ReportRecord} ReportRecord */
/** @typedef {(nodeClass: string, input: string) => boolean} IsSeed */

/**
 * A 53-bit hash of a text (cyrb53).
 * @param {string} text
 */
function hash(text) {
  let high = 0xdeadbeef;
  let low = 0x41c6ce57;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    high = Math.imul(high ^ code, 2654435761);
    low = Math.imul(low ^ code, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return (4294967296 * (2097151 & low) + (high >>> 0)).toString(36);
}

/**
 * A link in an API prompt: [execution id, slot].
 * @param {any} value
 * @param {Prompt} prompt
 */
const isLink = (value, prompt) =>
  Array.isArray(value) && value.length === 2 && typeof value[1] === "number" && value[0] in prompt;

/**
 * A value as the server keeps it: the page wraps lists that are no links.
 * @param {any} value
 */
const plain = (value) => value?.__value__ ?? value;

/**
 * Hash a node, its values and everything upstream. Ids take no part, so that a copied node has
 * the hash of its original.
 * @param {Prompt} prompt
 * @param {string} id execution id of the node
 * @param {IsSeed} leaveOut inputs that do not count
 * @returns {string | null} null if the prompt has no such node
 */
export function hashInputs(prompt, id, leaveOut = () => false) {
  /** @type {Map<string, string>} */
  const known = new Map();
  /** @type {(of: string) => string} */
  const visit = (of) => {
    const found = known.get(of);
    if (found !== undefined) return found;
    known.set(of, "cycle");
    const node = prompt[of];
    const inputs = Object.keys(node.inputs ?? {})
      .sort()
      .filter((name) => !leaveOut(node.class_type, name))
      .map((name) => {
        const value = plain(node.inputs[name]);
        return [name, isLink(value, prompt) ? [visit(String(value[0])), value[1]] : { value }];
      });
    const result = hash(JSON.stringify([node.class_type, inputs]));
    known.set(of, result);
    return result;
  };
  return id in prompt ? visit(id) : null;
}

/**
 * Execution ids of a node and of everything upstream, the nearest first.
 * @param {Prompt} prompt
 * @param {string} id
 */
export function upstream(prompt, id) {
  const found = [String(id)].filter((first) => first in prompt);
  for (const at of found) {
    for (const value of Object.values(prompt[at].inputs ?? {})) {
      if (isLink(value, prompt) && !found.includes(String(value[0]))) found.push(String(value[0]));
    }
  }
  return found;
}

/**
 * Tells which inputs are seeds with a "control after generate" widget, from ComfyUI's node
 * definitions.
 * @returns {IsSeed}
 */
export function seeds() {
  return (nodeClass, input) => {
    const types = /** @type {any} */ (globalThis).LiteGraph?.registered_node_types;
    const definition = types?.[nodeClass]?.nodeData?.input ?? {};
    const spec = definition.required?.[input] ?? definition.optional?.[input];
    return spec?.[1]?.control_after_generate !== undefined
      ? Boolean(spec[1].control_after_generate)
      : spec?.[0] === "INT" && (input === "seed" || input === "noise_seed");
  };
}

/**
 * Whether a seed upstream changes by itself after each run.
 * @param {any} app
 * @param {Prompt} prompt
 * @param {string} id
 * @param {IsSeed} isSeed
 */
function seedsChangeThemselves(app, prompt, id, isSeed) {
  return upstream(prompt, id).some((at) => {
    const { class_type, inputs } = prompt[at];
    return Object.keys(inputs ?? {}).some((name) => {
      if (!isSeed(class_type, name)) return false;
      const linked = widgetOf(nodeOfExecution(app.rootGraph, at), name)?.linkedWidgets ?? [];
      const control = linked.find((widget) => widget.name.includes("control"));
      return control !== undefined && control.value !== "fixed";
    });
  });
}

/**
 * Whether the inputs of a node are not those of its report any more.
 * @param {any} app
 * @param {ReportRecord} record
 * @param {Prompt} prompt the workflow as it would be queued now
 * @param {string} id execution id of the node
 */
export function inputsChanged(app, record, prompt, id) {
  if (record.inputs === null) return false; // unknown
  const now = hashInputs(prompt, id);
  if (now === null || now === record.inputs) return false; // a muted node cannot be compared
  const isSeed = seeds();
  const seedless = hashInputs(prompt, id, isSeed);
  return seedless !== record.seedless || !seedsChangeThemselves(app, prompt, id, isSeed);
}
