// Formats that the rule widget gives layers and the shown view does not contain yet.
import { Layers } from "./layers.js";
import { formatsByRules } from "./rules.js";

/** @typedef {import("./types.js").LayerView} LayerView */
/** @typedef {import("./rule_lines.js").PlacedLayer} PlacedLayer */

/** The format of a layer whose rule was removed: the next run decides. */
export const UNDECIDED = "?";

/** The format of a layer whose rule names a format that there is not: the next run fails. */
export const INVALID = "!";

/**
 * The layers as rules see them.
 * @param {Layers} layers
 * @returns {PlacedLayer[]}
 */
export function placedLayers(layers) {
  return layers.names.map((name, i) => {
    const list = layers.containers[layers.container[i]];
    return {
      name,
      linear: layers.isLinear(i),
      block: list ? layers.block[i] : -1,
      count: list?.count ?? 0,
      list: list?.name ?? "",
      row: layers.row(i),
    };
  });
}

/**
 * Stored bytes of a layer in a format; null if the format cannot store it or it is unknown.
 * @param {LayerView} view
 * @param {number} layer
 * @param {string} format
 */
export function storedBytes(view, layer, format) {
  const edit = view.edit;
  const key = edit?.keys[edit.size_of[layer]];
  return key === undefined ? null : (edit?.sizes[key]?.[format] ?? null);
}

/**
 * Whether a format can store a layer. Where no sizes are known, it is taken to.
 * @param {LayerView} view
 * @param {number} layer
 * @param {string} format
 */
export function canStore(view, layer, format) {
  const edit = view.edit;
  const sizes = edit?.sizes[edit.keys[edit.size_of[layer]] ?? ""];
  return !sizes || format in sizes || format === "keep";
}

/**
 * The new format of each layer that the rules change, by layer.
 * @param {LayerView} view with `edit` and layers that have formats
 * @param {Layers} layers
 * @param {PlacedLayer[]} placed
 * @param {string} text of the rule widget
 * @returns {Map<number, string>}
 */
export function pendingEdits(view, layers, placed, text) {
  /** @type {Map<number, string>} */
  const pending = new Map();
  if (!view.edit || !layers.hasFormats) return pending;
  const { rules, unquantized } = view.edit;
  if (text === rules) return pending;
  const now = formatsByRules(text, placed, unquantized);
  const then = rules === undefined ? null : formatsByRules(rules, placed, unquantized);
  now.forEach((format, i) => {
    if (then && then[i] === format) return;
    if (!format) {
      if (then?.[i]) pending.set(i, UNDECIDED);
      return;
    }
    const known = view.edit?.formats.includes(format);
    const stored = !known ? INVALID : canStore(view, i, format) ? format : "keep";
    if (stored !== layers.format(i)) pending.set(i, stored);
  });
  return pending;
}

/**
 * Size of all layers, and bits per weight of the Linear layers by the nominal bits of the formats
 * and by the stored bytes, after and before the edits. Layers of unknown size count nothing.
 * @param {LayerView} view
 * @param {Layers} layers
 * @param {Map<number, string>} pending
 */
export function totalsAfter(view, layers, pending) {
  const total = { bytes: 0, bytesBefore: 0, bits: 0, bitsBefore: 0, stored: 0, storedBefore: 0 };
  let weights = 0;
  const bitsOf = view.edit?.bits ?? {};
  for (let i = 0; i < layers.count; i += 1) {
    const before = layers.format(i);
    const edited = pending.get(i);
    const after = edited === undefined || edited === UNDECIDED || edited === INVALID ? before : edited;
    const known = storedBytes(view, i, before) ?? layers.value("bytes", i) ?? 0;
    const next = after === before ? known : (storedBytes(view, i, after) ?? known);
    total.bytesBefore += known;
    total.bytes += next;
    if (!layers.isLinear(i) || !(before in bitsOf)) continue;
    total.storedBefore += 8 * known;
    total.stored += 8 * next;
    const size = layers.size(i);
    weights += size;
    total.bitsBefore += size * bitsOf[before];
    total.bits += size * (bitsOf[after] ?? bitsOf[before]);
  }
  if (weights > 0) {
    total.bits /= weights;
    total.bitsBefore /= weights;
    total.stored /= weights;
    total.storedBefore /= weights;
  }
  return total;
}
