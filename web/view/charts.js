// Charts by uPlot, in the colours of the theme. Pointers are handled here, because ComfyUI scales
// its nodes and uPlot takes distances on the screen for distances in the chart.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { localPoint } from "./dom.js";
import { formatNumber } from "./numbers.js";

/** @typedef {import("./theme.js").Theme} Theme */

/**
 * An axis in the colours of a theme.
 * @param {Theme} theme
 * @param {string} label
 * @param {(value: number) => string} write
 * @param {number} size pixels
 * @returns {uPlot.Axis}
 */
export function axis(theme, label, write, size) {
  return {
    ...(label && { label }),
    labelSize: 16,
    labelGap: 0,
    labelFont: `11px ${theme.font}`,
    font: `10px ${theme.font}`,
    stroke: theme.muted,
    size,
    gap: 3,
    grid: { stroke: theme.line, width: 0.5 },
    ticks: { stroke: theme.line, width: 0.5, size: 4 },
    values: (_, splits) => splits.map((value) => (value === null ? "" : write(value))),
  };
}

/** Options of uPlot's cursor with its own pointer handling off. */
export const OWN_CURSOR = /** @type {uPlot.Cursor} */ ({
  drag: { x: false, y: false, setScale: false },
  bind: {
    mousedown: () => null,
    mouseup: () => null,
    click: () => null,
    dblclick: () => null,
    mousemove: () => null,
    mouseleave: () => null,
    mouseenter: () => null,
  },
});

/**
 * Move the cursor of a chart with the pointer; `show` gets the index of the nearest point or null.
 * @param {uPlot} chart
 * @param {(index: number | null) => void} show
 */
export function followPointer(chart, show) {
  chart.over.addEventListener("pointermove", (event) => {
    const { x, y } = localPoint(chart.over, event);
    chart.setCursor({ left: x, top: y });
    show(chart.posToIdx(x));
  });
  chart.over.addEventListener("pointerleave", () => {
    chart.setCursor({ left: -10, top: -10 });
    show(null);
  });
}

const BRANCHES = /** @type {const} */ (["cond", "uncond", "unknown"]);
const BRANCH_LABELS = { cond: "cond", uncond: "uncond", unknown: "unknown branch" };
const BRANCH_DASHES = { cond: [], uncond: [6, 4], unknown: [2, 3] };

/**
 * Amax over sigma, one line per CFG branch; lines differ in dashes as well.
 * @param {HTMLElement} host
 * @param {import("./types.js").Curve} curve
 * @param {Theme} theme
 * @param {{ width: number, height: number }} size
 * @returns {uPlot}
 */
export function amaxChart(host, curve, theme, size) {
  const branches = BRANCHES.filter((branch) => curve[branch]?.some((value) => value !== null));
  const colours = theme.dark ? ["#6cb6ff", "#ffb454", "#b9c0cc"] : ["#0b62d6", "#b45309", "#5f6673"];
  const few = curve.sigma.length <= 40;
  const data = /** @type {uPlot.AlignedData} */ ([
    curve.sigma,
    ...branches.map((branch) => curve[branch] ?? []),
  ]);
  const options = /** @type {uPlot.Options} */ ({
    width: size.width,
    height: size.height,
    cursor: { ...OWN_CURSOR, y: false },
    scales: { x: { time: false }, y: { range: (_u, low, high) => [Math.min(0, low), (high || 1) * 1.06] } },
    legend: { live: true, markers: { width: 2 } },
    axes: [axis(theme, "sigma", (v) => formatNumber(v, 3), 22), axis(theme, "amax", (v) => formatNumber(v, 3), 44)],
    series: [
      { label: "sigma", value: (_u, v) => (v === null ? "–" : formatNumber(v, 3)) },
      ...branches.map((branch, i) => ({
        label: BRANCH_LABELS[branch],
        stroke: colours[i],
        width: 1.6,
        dash: [...BRANCH_DASHES[branch]],
        spanGaps: true,
        points: { show: few, size: 4 },
        value: (/** @type {uPlot} */ _u, /** @type {number | null} */ v) => (v === null ? "–" : formatNumber(v, 4)),
      })),
    ],
  });
  const chart = new uPlot(options, data, host);
  followPointer(chart, () => {});
  return chart;
}
