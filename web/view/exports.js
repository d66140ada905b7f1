// Files for download: the table, the data, a picture of the map.
import { toCsv } from "./csv.js";
import { paintLegend } from "./legend.js";
import { layoutMap } from "./map_layout.js";
import { paintMap } from "./map_paint.js";
import { safeText } from "./safe_text.js";
import { PAPER } from "./theme.js";

/** @typedef {import("./state.js").ViewState} ViewState */

const PICTURE_WIDTH = 960;
const MARGIN = 24;
const SCALE = 2;

/**
 * All layers with unrounded numbers, in the order of the model.
 * @param {ViewState} state
 */
export function viewCsv(state) {
  const layers = state.layers;
  if (!layers) return "";
  const measures = state.view.measures.filter(({ id, scale }) => scale !== "category" && layers.values[id]);
  const header = ["layer", "kind", "block", "shape", ...(layers.hasFormats ? ["format"] : []), ...measures.map(({ id }) => id), "reason", "remarks"];
  const rows = layers.names.map((name, i) => [
    safeText(name),
    layers.kind(i),
    layers.block[i] < 0 ? null : layers.block[i],
    layers.shape(i),
    ...(layers.hasFormats ? [layers.format(i)] : []),
    ...measures.map(({ id }) => layers.value(id, i)),
    safeText(layers.reason(i)),
    safeText(layers.remarks(i)),
  ]);
  return toCsv(header, rows);
}

/** @param {ViewState} state */
export const viewJson = (state) => `${JSON.stringify(state.view, null, 1)}\n`;

/**
 * The map with title and legend, on white, at twice the size.
 * @param {ViewState} state
 * @returns {HTMLCanvasElement | null}
 */
export function mapPicture(state) {
  if (!state.layers) return null;
  const layout = layoutMap(state.layers, state.shown, PICTURE_WIDTH);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  if (!context) return null;
  const measure = state.currentMeasure;
  const legendRoom = measure?.scale === "category" ? 60 : 40;
  canvas.width = (layout.width + 2 * MARGIN) * SCALE;
  canvas.height = (layout.height + 2 * MARGIN + 44 + legendRoom) * SCALE;
  context.scale(SCALE, SCALE);
  context.fillStyle = PAPER.background;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = PAPER.text;
  context.font = `600 15px ${PAPER.font}`;
  context.textBaseline = "middle";
  context.fillText(safeText(state.view.title), MARGIN, MARGIN + 6);
  context.font = `12px ${PAPER.font}`;
  context.fillStyle = PAPER.muted;
  context.fillText(safeText(measure?.label ?? ""), MARGIN, MARGIN + 26);
  context.translate(MARGIN, MARGIN + 44);
  paintMap(context, layout, state, PAPER, { marks: false });
  paintLegend(context, state, PAPER, { x: 0, y: layout.height + 10, width: layout.width });
  return canvas;
}

/**
 * Offer a file for download.
 * @param {string} name
 * @param {Blob} blob
 */
export function download(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.style.display = "none";
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * A name for files from an untrusted title.
 * @param {string} name
 */
export function fileStem(name) {
  const stem = name.normalize("NFKC").replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^[._]+|[._]+$/g, "");
  return stem.slice(0, 80) || "nvfp4";
}
