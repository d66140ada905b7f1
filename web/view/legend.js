// What the colours mean: below the map, and drawn below its picture.
import { el } from "./dom.js";
import { INVALID } from "./edits.js";
import { counted } from "./numbers.js";
import { sequentialColour } from "./palette.js";

/** @typedef {import("./state.js").ViewState} ViewState */
/** @typedef {import("./theme.js").Theme} Theme */

/** @param {ViewState} state */
export function unknownCount(state) {
  const { layers, currentMeasure: measure, colours } = state;
  if (!layers || !measure) return 0;
  return state.shown.filter((layer) =>
    measure.scale === "category"
      ? !colours.has(state.formatOf(layer)) && state.formatOf(layer) !== INVALID
      : layers.value(measure.id, layer) === null,
  ).length;
}

/**
 * The formats that shown layers have, with how many, the most frequent first.
 * @param {ViewState} state
 */
export function formatCounts(state) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const layer of state.shown) {
    const format = state.formatOf(layer);
    counts.set(format, (counts.get(format) ?? 0) + 1);
  }
  const { colours } = state;
  return [...counts]
    .filter(([format]) => colours.has(format))
    .sort((a, b) => b[1] - a[1])
    .map(([format, count]) => ({ format, count, colour: colours.get(format) }));
}

/**
 * The legend as elements. Pressing a format selects its layers where layers can be edited.
 * @param {ViewState} state
 * @returns {HTMLElement}
 */
export function legend(state) {
  const { currentMeasure: measure, scale } = state;
  const element = el("div", { class: "nv-legend" });
  if (!measure) return element;
  if (measure.scale === "category") {
    for (const { format, count, colour } of formatCounts(state)) {
      element.append(formatKey(state, format, count, colour));
    }
  } else if (scale) {
    element.append(scaleBar(state, scale));
  }
  const unknown = unknownCount(state);
  if (unknown > 0) {
    element.append(
      el("span", { class: "nv-key" }, el("span", { class: "nv-swatch nv-hatched" }), el("span", { text: `not known (${unknown})` })),
    );
  }
  if (measure.scale !== "category") return element;
  const invalid = [...state.pending.values()].filter((format) => format === INVALID).length;
  const edited = state.pending.size - invalid;
  if (invalid > 0) {
    element.append(
      el("span", { class: "nv-key" }, el("span", { class: "nv-swatch nv-hatched nv-invalid", text: "!" }), el("span", { text: `no such format (${invalid})` })),
    );
  }
  if (edited > 0) {
    element.append(
      el("span", { class: "nv-key" }, el("span", { class: "nv-swatch nv-edited" }), el("span", { text: `edited, after the next run (${edited})` })),
    );
  }
  return element;
}

/**
 * @param {ViewState} state
 * @param {string} format
 * @param {number} count
 * @param {import("./palette.js").FormatColour | undefined} colour
 */
function formatKey(state, format, count, colour) {
  const swatch = el("span", { class: "nv-swatch", text: colour?.letter ?? "" });
  swatch.style.background = colour?.colour ?? "";
  swatch.style.color = colour?.ink ?? "";
  const label = el("span", {}, el("span", { text: format }), el("span", { class: "nv-muted", text: ` ${count}` }));
  if (!state.canEdit) return el("span", { class: "nv-key" }, swatch, label);
  return el(
    "button",
    {
      class: "nv-key",
      attributes: { type: "button", title: `Select the ${counted(count, "layer")} in ${format}` },
      on: { click: () => state.select(state.shown.filter((layer) => state.formatOf(layer) === format)) },
    },
    swatch,
    label,
  );
}

/**
 * @param {ViewState} state
 * @param {import("./scales.js").NumberScale} scale
 */
function scaleBar(state, scale) {
  const bar = el("div", { class: "nv-scale" });
  const colours = Array.from({ length: 17 }, (_, i) => sequentialColour(i / 16, state.dark));
  const ramp = el("div", { class: "nv-ramp" });
  ramp.style.background = `linear-gradient(to right, ${colours.join(", ")})`;
  const ticks = el("div", { class: "nv-ticks" });
  for (const tick of scale.ticks) {
    const mark = el("span", { text: tick.label });
    mark.style.left = `${tick.share * 100}%`;
    mark.dataset.end = tick.share === 0 ? "low" : tick.share === 1 ? "high" : "";
    ticks.append(mark);
  }
  bar.append(ramp, ticks);
  const measure = state.currentMeasure;
  const kind = scale.kind === "log" ? "logarithmic" : "linear";
  return el("div", { class: "nv-scale-box" }, bar, el("span", { class: "nv-muted", text: `${measure?.label ?? ""}, ${kind}` }));
}

/**
 * Draw the legend into a picture; returns its height in pixels.
 * @param {CanvasRenderingContext2D} context
 * @param {ViewState} state
 * @param {Theme} theme
 * @param {{ x: number, y: number, width: number }} place
 */
export function paintLegend(context, state, theme, place) {
  context.font = `11px ${theme.font}`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  const { scale, currentMeasure: measure } = state;
  if (measure?.scale === "category") return paintKeys(context, state, theme, place);
  if (!scale) return 0;
  const width = Math.min(320, place.width - 40);
  for (let i = 0; i < width; i += 1) {
    context.fillStyle = sequentialColour(i / (width - 1), theme.dark);
    context.fillRect(place.x + i, place.y, 1.5, 10);
  }
  context.fillStyle = theme.muted;
  for (const tick of scale.ticks) {
    context.textAlign = tick.share === 0 ? "left" : tick.share === 1 ? "right" : "center";
    context.fillText(tick.label, place.x + tick.share * width, place.y + 20);
  }
  context.textAlign = "left";
  const unknown = unknownCount(state);
  if (unknown > 0) context.fillText(`hatched: not known (${unknown})`, place.x + width + 16, place.y + 5);
  return 30;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {ViewState} state
 * @param {Theme} theme
 * @param {{ x: number, y: number, width: number }} place
 */
function paintKeys(context, state, theme, place) {
  let { x, y } = place;
  for (const { format, count, colour } of formatCounts(state)) {
    const label = `${format} (${count})`;
    context.font = `11px ${theme.font}`;
    const width = 20 + context.measureText(label).width + 18;
    if (x > place.x && x + width > place.x + place.width) {
      x = place.x;
      y += 18;
    }
    context.fillStyle = colour?.colour ?? theme.line;
    context.fillRect(x, y, 14, 14);
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, 13, 13);
    context.fillStyle = colour?.ink ?? theme.text;
    context.textAlign = "center";
    context.fillText(colour?.letter ?? "", x + 7, y + 7.5);
    context.textAlign = "left";
    context.fillStyle = theme.text;
    context.fillText(label, x + 20, y + 7.5);
    x += width;
  }
  return y - place.y + 22;
}
