// The panel with everything that is known of one layer.
import { amaxChart } from "./charts.js";
import { formatText, layerNumbers } from "./describe.js";
import { button, el } from "./dom.js";
import { formatPercent } from "./numbers.js";
import { KNOWN_FORMATS } from "./palette.js";
import { readTheme } from "./theme.js";

/** @typedef {import("./state.js").ViewState} ViewState */

const CHART_HEIGHT = 150;
const ERROR_LABELS = { latent: "latent shift", w4a4: "W4A4", w4a16: "W4A16", weight: "weight" };

export class DetailPanel {
  /**
   * @param {ViewState} state
   * @param {HTMLElement} root
   */
  constructor(state, root) {
    this.state = state;
    this.root = root;
    /** @type {{ destroy: () => void } | null} */
    this.chart = null;
    this.parts = el("div");
    this.element = el("aside", {
      class: "nv-detail",
      attributes: { hidden: true, "aria-label": "Details of the layer", tabindex: "-1" },
      on: {
        keydown: (event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          state.openDetail(-1);
        },
      },
    });
  }

  refresh() {
    const { state, element } = this;
    this.chart?.destroy();
    this.chart = null;
    const { layers, detail: layer } = state;
    element.hidden = !layers || layer < 0;
    element.replaceChildren();
    if (!layers || layer < 0) return;
    const close = button("×", () => state.openDetail(-1), { class: "nv-close", title: "Close (Escape)" });
    close.setAttribute("aria-label", "Close the details");
    this.parts = el("div", { class: "nv-detail-parts" }, this.facts(layer));
    element.append(el("header", {}, el("h3", { text: layers.names[layer] }), close), this.parts);
    this.addTexts([["Reason", layers.reason(layer)], ["Remarks", layers.remarks(layer)]]);
    this.addErrors(layer);
    this.addCurve(layer);
    element.scrollTop = 0;
  }

  /** @param {number} layer */
  facts(layer) {
    const { state } = this;
    const layers = state.layers;
    const list = el("dl", { class: "nv-facts" });
    /** @type {[string, string][]} */
    const facts = [
      ["format", formatText(state, layer)],
      ["shape", layers?.shape(layer) ?? ""],
      ["kind", layers?.kind(layer) ?? ""],
      ["block", (layers?.block[layer] ?? -1) >= 0 ? `${layers?.block[layer]} of ${layers?.containers[layers.container[layer]]?.name}` : "outside of blocks"],
      ...layerNumbers(state, layer).map(({ label, value }) => /** @type {[string, string]} */ ([label, value])),
    ];
    for (const [label, value] of facts) {
      if (value) list.append(el("dt", { text: label }), el("dd", { text: value }));
    }
    return list;
  }

  /** @param {[string, string][]} texts headings and texts */
  addTexts(texts) {
    const known = texts.filter(([, text]) => text);
    if (known.length === 0) return;
    const nodes = known.flatMap(([heading, text]) => [el("h4", { text: heading }), el("p", { text })]);
    this.parts.append(el("div", {}, ...nodes));
  }

  /** @param {number} layer */
  addErrors(layer) {
    const measured = errorRows(this.state.view.errors ?? {}, layer);
    if (measured.rows.length === 0) return;
    const most = Math.max(...measured.rows.flatMap((row) => row.values.map((value) => value ?? 0)), 1e-12);
    const table = el("table", { class: "nv-errors" });
    const isFormat = measured.rows.every(({ format }) => KNOWN_FORMATS.includes(format));
    const what = isFormat ? "format" : "rounding";
    const head = el("tr", {}, el("th", { text: what }), ...measured.kinds.map((kind) => el("th", { text: ERROR_LABELS[kind] })));
    table.append(el("thead", {}, head));
    const body = el("tbody");
    const own = this.state.layers?.format(layer);
    for (const { format, values } of measured.rows) {
      const cells = values.map((value) => {
        const cell = el("td", { text: value === null ? "–" : formatPercent(value) });
        if (value !== null) {
          const share = Math.max(2, (100 * value) / most);
          cell.style.backgroundSize = `${share}% 3px`;
        } else cell.className = "nv-none";
        return cell;
      });
      body.append(el("tr", { class: format === own ? "nv-own" : "" }, el("th", { text: format }), ...cells));
    }
    table.append(body);
    this.parts.append(el("div", {}, el("h4", { text: `Error by ${what}` }), table));
  }

  /** @param {number} layer */
  addCurve(layer) {
    const inputs = this.state.view.inputs;
    const curve = inputs?.curves[inputs.of[layer] ?? -1];
    if (!curve || curve.sigma.length === 0) return;
    const host = el("div", { class: "nv-chart" });
    this.parts.append(el("div", {}, el("h4", { text: "Amax of the input over sigma" }), host));
    const width = Math.max(180, host.clientWidth);
    this.chart = amaxChart(host, curve, readTheme(this.root), { width, height: CHART_HEIGHT });
  }

  destroy() {
    this.chart?.destroy();
  }
}

/**
 * The measured errors of a layer, and which kinds there are.
 * @param {{ [format: string]: import("./types.js").FormatErrors }} errors
 * @param {number} layer
 */
export function errorRows(errors, layer) {
  const kinds = /** @type {(keyof typeof ERROR_LABELS)[]} */ (Object.keys(ERROR_LABELS)).filter((kind) =>
    Object.values(errors).some((of) => (of[kind]?.[layer] ?? null) !== null),
  );
  const rows = Object.entries(errors)
    .map(([format, of]) => ({ format, values: kinds.map((kind) => of[kind]?.[layer] ?? null) }))
    .filter(({ values }) => values.some((value) => value !== null));
  return { kinds, rows };
}
