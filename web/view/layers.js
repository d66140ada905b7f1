// The layers of a view, with their columns decoded.

/** @typedef {import("./types.js").LayerView} LayerView */
/** @typedef {import("./types.js").Coded} Coded */

/** @param {Coded | undefined} column */
const reader = (column) => {
  /** @param {number} layer */
  const read = (layer) => (column ? (column.of[column.at[layer]] ?? "") : "");
  return read;
};

/** Read access to the columns of a view; a layer is known by its index. */
export class Layers {
  /** @param {LayerView} view with `layers` */
  constructor(view) {
    const columns = view.layers;
    if (!columns) throw new Error("the view has no layers");
    this.names = columns.name;
    this.count = columns.name.length;
    this.container = columns.container;
    this.block = columns.block;
    this.containers = view.containers;
    this.values = columns.values;
    this.row = reader(columns.row);
    this.kind = reader(columns.kind);
    this.shape = reader(columns.shape);
    this.format = reader(columns.format);
    this.reason = reader(columns.reason);
    this.remarks = reader(columns.remarks);
    this.hasFormats = Boolean(columns.format);
  }

  /** @param {number} layer */
  isLinear(layer) {
    return this.kind(layer) === "linear";
  }

  /**
   * Number of weights, from the shape.
   * @param {number} layer
   */
  size(layer) {
    return this.shape(layer)
      .split(/[x×]/)
      .reduce((product, part) => product * (Number(part) || 0), 1);
  }

  /**
   * A measured number, or null.
   * @param {string} measure
   * @param {number} layer
   */
  value(measure, layer) {
    return this.values[measure]?.[layer] ?? null;
  }

  /** @param {boolean} onlyLinears */
  shown(onlyLinears) {
    const all = Array.from({ length: this.count }, (_, layer) => layer);
    const linears = onlyLinears ? all.filter((layer) => this.isLinear(layer)) : all;
    return linears.length > 0 ? linears : all;
  }
}
