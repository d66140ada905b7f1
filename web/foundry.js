// The pack in ComfyUI's page. The only module with side effects: ComfyUI imports every file below
// `web/` when the page loads.

// @ts-ignore served by ComfyUI
import { api } from "../../scripts/api.js";
// @ts-ignore served by ComfyUI
import { app } from "../../scripts/app.js";

import { formatChoice } from "./comfy/format_choice.js";
import { isOurClass } from "./comfy/graph.js";
import { Shell } from "./comfy/shell.js";
import { undoable } from "./comfy/undo.js";

const shell = new Shell({ app, api });

/**
 * Call a function after the one that a node already has.
 * @param {any} prototype
 * @param {string} name
 * @param {(this: any, ...args: any[]) => void} then
 */
function after(prototype, name, then) {
  const before = prototype[name];
  prototype[name] = function (/** @type {any[]} */ ...args) {
    const result = before?.apply(this, args);
    then.apply(this, args);
    return result;
  };
}

app.registerExtension({
  name: "NVFP4Foundry",
  setup() {
    shell.start();
  },
  /** @param {any} nodeType @param {any} nodeData */
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!isOurClass(nodeData.name)) return;
    after(nodeType.prototype, "onConfigure", function (saved) {
      shell.configured(this, saved);
    });
    after(nodeType.prototype, "onRemoved", function () {
      shell.removed(this);
    });
  },
  getCustomWidgets() {
    const change = (/** @type {() => void} */ how) => undoable(app, how);
    return {
      /** @param {any} node @param {string} name @param {any} spec */
      NVFP4_FORMATS: (node, name, spec) => formatChoice(node, name, spec, change),
    };
  },
  /** @param {any} graph @param {any[]} missing */
  async beforeConfigureGraph(graph, missing) {
    await shell.beforeConfigureGraph(graph, missing);
  },
  afterConfigureGraph() {
    shell.afterConfigureGraph();
  },
  /** @param {{ [locator: string]: any }} outputs */
  onNodeOutputsUpdated(outputs) {
    shell.outputsRestored(outputs);
  },
});
