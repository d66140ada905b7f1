// The tab of the map: what to colour by, the map, its legend, and the bar for edits.
import { EditBar } from "./edit_bar.js";
import { checkbox, el, menu } from "./dom.js";
import { legend } from "./legend.js";
import { LayerMap } from "./map.js";

/** @typedef {import("./state.js").ViewState} ViewState */

export class MapTab {
  /**
   * @param {ViewState} state
   * @param {HTMLElement} root
   * @param {import("./tooltip.js").Tooltip} tooltip
   */
  constructor(state, root, tooltip) {
    this.state = state;
    this.map = new LayerMap(state, root, tooltip);
    this.edits = state.canEdit ? new EditBar(state) : null;
    this.legendBox = el("div");
    this.help = el("span", { class: "nv-muted nv-help" });
    const measures = state.measures.map(({ id, label }) => ({ value: id, label }));
    this.measureMenu = menu("Colour by", measures, state.measure, (id) => state.setMeasure(id));
    this.toolbar = el("div", { class: "nv-toolbar" }, el("span", { class: "nv-muted", text: "Colour by" }), this.measureMenu);
    this.linears = linearSwitch(state);
    if (this.linears) this.toolbar.append(this.linears);
    this.toolbar.append(this.help);
    this.element = el("div", { class: "nv-panel" }, this.toolbar, this.edits?.element, this.map.element, this.legendBox);
    this.drawLegend();
  }

  drawLegend() {
    this.legendBox.replaceChildren(legend(this.state));
    this.help.textContent = this.state.currentMeasure?.help ?? "";
    this.map.describe();
  }

  refresh() {
    this.map.refresh();
    this.measureMenu.value = this.state.measure;
    const box = this.linears?.querySelector("input");
    if (box) box.checked = !this.state.onlyLinears;
    this.drawLegend();
    this.edits?.refresh();
  }
}

/**
 * A switch for layers of other kinds; null if there are none.
 * @param {ViewState} state
 */
export function linearSwitch(state) {
  const layers = state.layers;
  if (!layers) return null;
  const linears = layers.names.filter((_, i) => layers.isLinear(i)).length;
  if (linears === layers.count || linears === 0) return null;
  return checkbox("all layers", !state.onlyLinears, (all) => state.setOnlyLinears(!all), `Show ${layers.count - linears} layers of other kinds too`);
}
