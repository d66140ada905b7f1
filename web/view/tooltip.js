// What a layer is, beside the pointer.
import { formatText, layerNumbers } from "./describe.js";
import { el } from "./dom.js";

/** @typedef {import("./state.js").ViewState} ViewState */

export class Tooltip {
  /** @param {HTMLElement} frame the element that the tooltip stays within */
  constructor(frame) {
    this.frame = frame;
    this.element = el("div", { class: "nv-tooltip", attributes: { hidden: true, "aria-hidden": "true" } });
    frame.append(this.element);
  }

  /**
   * Show nodes beside a point of the frame.
   * @param {{ x: number, y: number }} point
   * @param {Node[]} content
   */
  show(point, content) {
    const { element, frame } = this;
    element.replaceChildren(...content);
    element.hidden = false;
    const [width, height] = [element.offsetWidth, element.offsetHeight];
    const right = point.x + 14 + width <= frame.clientWidth - 4;
    const x = right ? point.x + 14 : Math.max(4, point.x - 14 - width);
    const below = point.y + 14 + height <= frame.clientHeight - 4;
    const y = below ? point.y + 14 : Math.max(4, point.y - 10 - height);
    element.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  }

  hide() {
    this.element.hidden = true;
  }
}

/**
 * The content for a layer: name, shape and format, reason, numbers.
 * @param {ViewState} state
 * @param {number} layer
 * @returns {Node[]}
 */
export function layerTooltip(state, layer) {
  const layers = state.layers;
  if (!layers) return [];
  const format = formatText(state, layer);
  const kind = layers.isLinear(layer) ? "" : ` · ${layers.kind(layer)}`;
  /** @type {Node[]} */
  const nodes = [
    el("div", { class: "nv-tip-name", text: layers.names[layer] }),
    el("div", { class: "nv-tip-line", text: `${layers.shape(layer)}${kind}${format ? ` · ${format}` : ""}` }),
  ];
  const reason = layers.reason(layer);
  if (reason) nodes.push(el("div", { class: "nv-tip-reason", text: reason }));
  const numbers = layerNumbers(state, layer);
  if (numbers.length > 0) {
    const list = el("dl", { class: "nv-tip-numbers" });
    for (const { id, label, value } of numbers) {
      const own = id === state.measure ? "nv-own" : "";
      list.append(el("dt", { text: label, class: own }), el("dd", { text: value, class: own }));
    }
    nodes.push(list);
  }
  return nodes;
}
