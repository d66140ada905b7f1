// The frontier of size and error: dragging along it, or typing, sets the budget.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { budgetOf, BUDGET_KINDS, pointWithin } from "./budget.js";
import { axis, OWN_CURSOR } from "./charts.js";
import { el, localPoint, menu } from "./dom.js";
import { formatBytes, formatNumber, formatPercent, trimZeros } from "./numbers.js";
import { sampledMixes } from "./sampled.js";
import { logTicks } from "./scales.js";
import { safeText } from "./safe_text.js";
import { readTheme } from "./theme.js";

/** @typedef {import("./types.js").Frontier} FrontierData */
/** @typedef {import("./types.js").FrontierPoint} FrontierPoint */
/** @typedef {import("./types.js").Budget} Budget */
/** @typedef {import("./state.js").ViewState} ViewState */

const HEIGHT = 240;
const KEY_PAUSE_MS = 600;

export class FrontierChart {
  /**
   * @param {ViewState} state
   * @param {FrontierData} data
   * @param {HTMLElement} root
   * @param {import("./tooltip.js").Tooltip} tooltip
   */
  constructor(state, data, root, tooltip) {
    this.state = state;
    this.data = data;
    this.points = [...data.points].sort((a, b) => a.bytes - b.bytes);
    this.root = root;
    this.tooltip = tooltip;
    this.dragging = false;
    this.timer = 0;
    const kind = BUDGET_KINDS.find(({ value }) => value === data.budget.kind)?.value ?? "size";
    /** @type {Budget["kind"]} */
    this.kind = kind;
    this.chosen = pointWithin(this.points, { kind: "size", value: budgetOf(data.mix, "size") });
    this.host = el("div", {
      class: "nv-chart nv-frontier",
      attributes: this.canChoose ? {
        tabindex: "0",
        role: "slider",
        "aria-label": "Budget along the frontier",
        "aria-valuemin": 0,
        "aria-valuemax": this.points.length - 1,
      } : { role: "img", "aria-label": `Frontier of size and ${data.label}` },
      on: { keydown: (event) => this.key(event) },
    });
    this.field = el("input", {
      class: "nv-input nv-budget",
      attributes: { type: "number", min: 0, step: "any", "aria-label": "Budget" },
      on: { change: () => this.type() },
    });
    const kinds = menu("Kind of budget", [...BUDGET_KINDS], this.kind, (value) => {
      this.kind = /** @type {Budget["kind"]} */ (value);
      this.field.value = String(budgetOf(this.current, this.kind));
    });
    this.readout = el("span", { class: "nv-muted" });
    const bar = el("div", { class: "nv-toolbar" });
    if (this.canChoose) bar.append(el("span", { text: "Budget" }), this.field, kinds);
    bar.append(this.readout);
    const help = this.canChoose ? "Drag along the curve, or type a budget; the next run mixes for it." : "";
    // Upright and above the chart: labels of this length do not fit along the axis.
    const caption = el("div", { class: "nv-muted nv-help", text: `${data.label}, over the size` });
    this.element = el(
      "div",
      { class: "nv-frontier-box" },
      bar,
      caption,
      this.host,
      help ? el("p", { class: "nv-muted nv-help", text: help }) : null,
      sampledMixes(data),
    );
    /** @type {uPlot | null} */
    this.chart = null;
    this.field.value = String(budgetOf(data.mix, this.kind));
    this.show();
  }

  get canChoose() {
    return Boolean(this.state.options.onBudget);
  }

  get current() {
    return this.points[this.chosen] ?? this.data.mix;
  }

  /** @param {number} width */
  resize(width) {
    if (width <= 0 || this.points.length === 0) return;
    if (this.chart) this.chart.setSize({ width, height: HEIGHT });
    else this.build(width);
  }

  /** Build again, after another theme. */
  refresh() {
    const width = this.chart?.width ?? 0;
    this.chart?.destroy();
    this.chart = null;
    this.resize(width);
  }

  /** @param {number} width */
  build(width) {
    const theme = readTheme(this.root);
    const errors = this.points.map((point) => point.error);
    const positive = errors.filter((error) => error > 0);
    const log = positive.length === errors.length && Math.max(...errors) / Math.min(...errors) > 30;
    const options = /** @type {uPlot.Options} */ ({
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { ...OWN_CURSOR, y: false },
      padding: [14, 14, 0, 0],
      scales: {
        x: { time: false, range: () => this.range("bytes") },
        y: log ? { distr: 3 } : { range: () => this.range("error") },
      },
      axes: [
        axis(theme, "size", (v) => trimZeros(formatBytes(v)), 22),
        {
          ...axis(theme, "", (v) => trimZeros(formatPercent(v)), 44),
          ...(log && {
            splits: (_chart, _axis, low, high) => logTicks(low, high),
            filter: (_chart, splits) => splits,
          }),
        },
      ],
      series: [
        {},
        { stroke: theme.accent, width: 1.8, points: { show: true, size: 4, fill: theme.background } },
      ],
      hooks: { draw: [(chart) => this.drawMarks(chart, theme)] },
    });
    const data = /** @type {uPlot.AlignedData} */ ([this.points.map((point) => point.bytes), errors]);
    this.chart = new uPlot(options, data, this.host);
    this.listen(this.chart.over);
  }

  /**
   * The range of an axis: all points and marks, with some room.
   * @param {"bytes" | "error"} key
   * @returns {[number, number]}
   */
  range(key) {
    const { mix, preset } = this.data;
    const values = [...this.points, mix, ...(preset ? [preset] : [])].map((point) => point[key]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    return [Math.max(0, low - room), high + room];
  }

  /**
   * @param {uPlot} chart
   * @param {import("./theme.js").Theme} theme
   */
  drawMarks(chart, theme) {
    const { mix, preset } = this.data;
    const ratio = uPlot.pxRatio;
    const context = chart.ctx;
    context.save();
    context.font = `600 ${11 * ratio}px ${theme.font}`;
    context.textBaseline = "middle";
    /**
     * @param {FrontierPoint} point
     * @param {string} label
     * @param {"dot" | "square" | "ring"} shape
     * @param {string} colour
     * @param {number} below pixels from the mark to its label
     * @param {boolean} [leftwards] whether the label lies left of the mark
     */
    const mark = (point, label, shape, colour, below, leftwards = false) => {
      const x = chart.valToPos(point.bytes, "x", true);
      const y = chart.valToPos(point.error, "y", true);
      const size = 5 * ratio;
      context.beginPath();
      if (shape === "square") context.rect(x - size, y - size, 2 * size, 2 * size);
      else context.arc(x, y, shape === "ring" ? size * 1.7 : size * 1.1, 0, 7);
      context.lineWidth = 2 * ratio;
      context.strokeStyle = shape === "ring" ? colour : theme.background;
      context.fillStyle = colour;
      if (shape !== "ring") context.fill();
      context.stroke();
      if (!label) return;
      const { left, width } = chart.bbox;
      const room = context.measureText(label).width + 12 * ratio;
      const before = leftwards ? x - room > left : x + room > left + width;
      context.textAlign = before ? "right" : "left";
      context.fillStyle = theme.text;
      context.fillText(label, x + (before ? -10 : 10) * ratio, y + below * ratio);
    };
    const above = preset ? preset.error < mix.error : true;
    if (preset) mark(preset, safeText(preset.name), "square", theme.muted, above ? 12 : -10);
    mark(mix, "this mix", "dot", theme.dark ? "#ffb454" : "#c2410c", above ? -10 : 12, !above); // beside the curve
    if (this.canChoose) mark(this.current, "", "ring", theme.text, 0);
    context.restore();
  }

  /** @param {HTMLElement} over */
  listen(over) {
    over.style.touchAction = "none";
    over.style.cursor = this.canChoose ? "ew-resize" : "default";
    over.addEventListener("pointerdown", (event) => {
      if (!this.canChoose || event.button !== 0) return;
      event.stopPropagation();
      this.dragging = true;
      over.setPointerCapture(event.pointerId);
      this.host.focus({ preventScroll: true });
      this.follow(event, over);
    });
    over.addEventListener("pointermove", (event) => this.follow(event, over));
    over.addEventListener("pointerup", (event) => {
      if (!this.dragging) return;
      event.stopPropagation();
      this.dragging = false;
      this.send();
    });
    over.addEventListener("pointercancel", () => (this.dragging = false));
    over.addEventListener("pointerleave", () => {
      this.tooltip.hide();
      this.chart?.setCursor({ left: -10, top: -10 });
    });
  }

  /**
   * @param {PointerEvent} event
   * @param {HTMLElement} over
   */
  follow(event, over) {
    if (!this.chart) return;
    const { x } = localPoint(over, event);
    const at = this.chart.posToIdx(x);
    const point = this.points[at];
    const left = this.chart.valToPos(point.bytes, "x");
    this.chart.setCursor({ left, top: this.chart.valToPos(point.error, "y") });
    this.tooltip.show(localPoint(this.tooltip.frame, event), this.describe(point));
    if (this.dragging) this.choose(at);
  }

  /**
   * @param {FrontierPoint} point
   * @returns {Node[]}
   */
  describe(point) {
    const counts = Object.entries(point.counts ?? {}).sort((a, b) => b[1] - a[1]);
    const list = el("dl", { class: "nv-tip-numbers" });
    list.append(el("dt", { text: "bits per weight" }), el("dd", { text: formatNumber(point.bits, 3) }));
    list.append(el("dt", { text: this.data.label }), el("dd", { text: formatPercent(point.error) }));
    for (const [format, count] of counts) {
      list.append(el("dt", { text: format }), el("dd", { text: String(count) }));
    }
    return [el("div", { class: "nv-tip-name", text: formatBytes(point.bytes) }), list];
  }

  /** @param {number} at index of a point */
  choose(at) {
    this.chosen = Math.max(0, Math.min(this.points.length - 1, at));
    this.field.value = String(budgetOf(this.current, this.kind));
    this.show();
    this.chart?.redraw(false);
  }

  show() {
    const { bytes, bits, error } = this.current;
    const text = `${formatBytes(bytes)} · ${formatNumber(bits, 3)} bits · ${formatPercent(error)}`;
    this.readout.textContent = text;
    if (this.canChoose) {
      this.host.setAttribute("aria-valuenow", String(this.chosen));
      this.host.setAttribute("aria-valuetext", text);
    }
  }

  type() {
    const value = Number(this.field.value);
    if (!(value > 0) || !Number.isFinite(value)) return;
    this.chosen = pointWithin(this.points, { kind: this.kind, value });
    this.show();
    this.chart?.redraw(false);
    this.state.options.onBudget?.({ kind: this.kind, value });
  }

  send() {
    clearTimeout(this.timer);
    this.state.options.onBudget?.({ kind: this.kind, value: budgetOf(this.current, this.kind) });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.canChoose) return;
    /** @type {{ [key: string]: number }} */
    const targets = {
      ArrowLeft: this.chosen - 1,
      ArrowDown: this.chosen - 1,
      ArrowRight: this.chosen + 1,
      ArrowUp: this.chosen + 1,
      Home: 0,
      End: this.points.length - 1,
    };
    if (!(event.key in targets)) return;
    this.choose(targets[event.key]);
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.send(), KEY_PAUSE_MS);
    event.preventDefault();
    event.stopPropagation();
  }

  destroy() {
    clearTimeout(this.timer);
    this.chart?.destroy();
  }
}
