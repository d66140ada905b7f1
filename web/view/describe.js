// What is known of one layer, in words.
import { INVALID, UNDECIDED } from "./edits.js";
import { formatValue } from "./numbers.js";

/** @typedef {import("./state.js").ViewState} ViewState */

/**
 * The format of a layer with its pending edit: `nvfp4 → bf16 (after the next run)`.
 * @param {ViewState} state
 * @param {number} layer
 */
export function formatText(state, layer) {
  const shown = state.layers?.format(layer) ?? "";
  const edited = state.pending.get(layer);
  if (edited === undefined) return shown;
  if (edited === INVALID) return `${shown} → no such format (the next run fails)`;
  return `${shown} → ${edited === UNDECIDED ? "as the recipe decides" : edited} (next run)`;
}

/**
 * The known numbers of a layer, with their labels.
 * @param {ViewState} state
 * @param {number} layer
 * @returns {{ id: string, label: string, value: string }[]}
 */
export function layerNumbers(state, layer) {
  return state.view.measures
    .filter((measure) => measure.scale !== "category" && measure.id in (state.layers?.values ?? {}))
    .map(({ id, label, unit }) => {
      const value = state.layers?.value(id, layer) ?? null;
      return { id, label, value: value === null ? "" : formatValue(value, unit) };
    })
    .filter(({ value }) => value !== "");
}

/**
 * A sentence for screen readers.
 * @param {ViewState} state
 * @param {number} layer
 */
export function spokenLayer(state, layer) {
  const { layers, currentMeasure: measure } = state;
  if (!layers || layer < 0) return "";
  const parts = [layers.names[layer], layers.shape(layer)];
  const format = formatText(state, layer);
  if (format) parts.push(format);
  if (measure && measure.scale !== "category") {
    const value = layers.value(measure.id, layer);
    parts.push(`${measure.label}: ${value === null ? "not known" : formatValue(value, measure.unit)}`);
  }
  if (state.selection.has(layer)) parts.push("selected");
  return parts.join(", ");
}
