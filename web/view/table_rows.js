// Columns, order and selection of the rows of the table.
import { formatText } from "./describe.js";
import { formatValue } from "./numbers.js";

/** @typedef {import("./state.js").ViewState} ViewState */

/**
 * A column: `key` gives what rows are sorted by, `text` what is shown. Texts of `long` columns are
 * sentences, which wrap in print.
 * @typedef {{
 *   id: string, label: string, numeric: boolean, long: boolean, width: number, help: string,
 *   key: (layer: number) => string | number | null,
 *   text: (layer: number) => string,
 * }} Column
 */

/** @typedef {{ column: string, descending: boolean }} Order */

const CHARACTER = 6.4;
const LONG = ["reason", "remarks"];

/**
 * @param {ViewState} state
 * @returns {Column[]}
 */
export function tableColumns(state) {
  const layers = state.layers;
  if (!layers) return [];
  /**
   * @param {string} id
   * @param {string} label
   * @param {(layer: number) => string} text
   * @param {((layer: number) => string | number | null)} [key]
   * @returns {Column}
   */
  const words = (id, label, text, key = text) => ({ id, label, numeric: false, long: LONG.includes(id), help: "", width: 0, key, text });
  const columns = [words("name", "layer", (i) => layers.names[i])];
  if (!state.onlyLinears) columns.push(words("kind", "kind", layers.kind));
  columns.push(words("shape", "shape", layers.shape, (i) => layers.size(i)));
  if (layers.hasFormats) columns.push(words("format", "format", (i) => formatText(state, i)));
  for (const { id, label, unit, scale, help } of state.measures) {
    if (scale === "category") continue;
    columns.push({
      id,
      label,
      help,
      numeric: true,
      long: false,
      width: 0,
      key: (i) => layers.value(id, i),
      text: (i) => formatValue(layers.value(id, i), unit),
    });
  }
  const columnsOfView = state.view.layers;
  if (columnsOfView?.reason?.of.some(Boolean)) columns.push(words("reason", "reason", layers.reason));
  if (columnsOfView?.remarks?.of.some(Boolean)) columns.push(words("remarks", "remarks", layers.remarks));
  for (const column of columns) column.width = columnWidth(column, layers.count);
  return columns;
}

/**
 * Wide enough for the longest text.
 * @param {Column} column
 * @param {number} count
 */
function columnWidth(column, count) {
  let longest = column.label.length + 2;
  for (let i = 0; i < count; i += 1) longest = Math.max(longest, column.text(i).length);
  return Math.ceil(longest * CHARACTER) + 16;
}

/**
 * Sort layers by a column; unknown values come last either way. Equal layers keep their order.
 * @param {number[]} layers
 * @param {Column} column
 * @param {boolean} descending
 */
export function sortLayers(layers, column, descending) {
  const keys = new Map(layers.map((layer) => [layer, column.key(layer)]));
  const sign = descending ? -1 : 1;
  const collator = new Intl.Collator("en", { numeric: true });
  return [...layers].sort((a, b) => {
    const [x, y] = [keys.get(a) ?? null, keys.get(b) ?? null];
    if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
    const order = typeof x === "number" && typeof y === "number" ? x - y : collator.compare(String(x), String(y));
    return sign * order || a - b;
  });
}

/**
 * The layers with the highest values.
 * @param {number[]} layers
 * @param {(layer: number) => number | null} value
 * @param {number} [count]
 */
export function worstLayers(layers, value, count = 20) {
  const known = layers.filter((layer) => value(layer) !== null);
  return known.sort((a, b) => (value(b) ?? 0) - (value(a) ?? 0) || a - b).slice(0, count);
}
