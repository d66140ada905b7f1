// What the parts of a view share: the data, the choices of the user, the edits that are pending.
import { INVALID, pendingEdits, placedLayers, UNDECIDED } from "./edits.js";
import { Layers } from "./layers.js";
import { formatColours } from "./palette.js";
import { ruleProblems } from "./rule_problems.js";
import { numberScale } from "./scales.js";

/** @typedef {import("./types.js").LayerView} LayerView */
/** @typedef {import("./types.js").ViewOptions} ViewOptions */
/** @typedef {import("./types.js").Measure} Measure */
/** @typedef {"measure" | "shown" | "selection" | "cursor" | "detail" | "edits" | "theme"} Change */

/** Measures of errors, the most telling first: what the worst layers are judged by. */
const ERROR_MEASURES = ["latent", "w4a4", "w4a16", "weight"];

export class ViewState {
  /**
   * @param {LayerView} view
   * @param {ViewOptions} options
   */
  constructor(view, options) {
    this.view = view;
    this.options = options;
    this.layers = view.layers ? new Layers(view) : null;
    this.placed = this.layers ? placedLayers(this.layers) : [];
    this.measures = this.shownMeasures();
    this.measure = this.measures[0]?.id ?? "";
    this.onlyLinears = true;
    /** @type {Set<number>} */
    this.selection = new Set();
    this.cursor = -1;
    this.detail = -1;
    this.dark = true;
    /** @type {Map<number, string>} */
    this.pending = new Map();
    /** @type {string[]} */
    this.problems = [];
    this.colourKey = "";
    this.colourMap = formatColours([]);
    /** @type {Set<(change: Change) => void>} */
    this.listeners = new Set();
    this.refreshEdits();
  }

  /** @param {(change: Change) => void} listener */
  listen(listener) {
    this.listeners.add(listener);
  }

  /** @param {Change} change */
  emit(change) {
    for (const listener of this.listeners) listener(change);
  }

  /** The measures that the view has values for. */
  shownMeasures() {
    const { layers, view } = this;
    if (!layers) return [];
    return view.measures.filter(({ id, scale }) =>
      scale === "category" ? layers.hasFormats : layers.values[id]?.some((value) => value !== null),
    );
  }

  get canEdit() {
    return Boolean(this.view.edit && this.options.onRules && this.layers);
  }

  get shown() {
    return this.layers ? this.layers.shown(this.onlyLinears) : [];
  }

  /** The colours of all formats of the view, pending ones included. */
  get colours() {
    const formats = new Set([...(this.view.layers?.format?.of ?? []), ...this.pending.values()]);
    formats.delete(UNDECIDED);
    formats.delete(INVALID);
    const key = [...formats].join("\n");
    if (key !== this.colourKey) {
      this.colourKey = key;
      this.colourMap = formatColours(formats);
    }
    return this.colourMap;
  }

  /** @returns {Measure | undefined} */
  get currentMeasure() {
    return this.measures.find((measure) => measure.id === this.measure);
  }

  /** The error measure that is shown, else the most telling one of the view, else undefined. */
  get errorMeasure() {
    const current = this.currentMeasure;
    if (current && current.scale !== "category") return current;
    const id = ERROR_MEASURES.find((known) => this.measures.some((m) => m.id === known));
    return this.measures.find((m) => m.id === id) ?? this.measures.find((m) => m.scale !== "category");
  }

  /** The scale of the current measure over the shown layers; null for categories. */
  get scale() {
    const measure = this.currentMeasure;
    const layers = this.layers;
    if (!measure || !layers || measure.scale === "category") return null;
    return numberScale(measure, this.shown.map((layer) => layers.value(measure.id, layer)));
  }

  /**
   * The format of a layer, with its pending edit.
   * @param {number} layer
   */
  formatOf(layer) {
    return this.pending.get(layer) ?? this.layers?.format(layer) ?? "";
  }

  /** Read the rule widget again. */
  refreshEdits() {
    const text = this.options.rules?.();
    if (!this.layers || text === undefined) this.pending = new Map();
    else this.pending = pendingEdits(this.view, this.layers, this.placed, text);
    const { edit } = this.view;
    const changed = edit && text !== undefined && text !== edit.rules;
    this.problems = changed ? ruleProblems(text, this.placed, edit.formats, edit.unquantized) : [];
  }

  /** @param {string} measure */
  setMeasure(measure) {
    this.measure = measure;
    this.emit("measure");
  }

  /** @param {boolean} only */
  setOnlyLinears(only) {
    this.onlyLinears = only;
    this.emit("shown");
  }

  /** @param {Iterable<number>} layers */
  select(layers) {
    this.selection = new Set(layers);
    this.emit("selection");
  }

  /**
   * Take layers into the selection, or out of it if all of them are in.
   * @param {number[]} layers
   */
  toggle(layers) {
    const selection = new Set(this.selection);
    const allIn = layers.every((layer) => selection.has(layer));
    for (const layer of layers) {
      if (allIn) selection.delete(layer);
      else selection.add(layer);
    }
    this.select(selection);
  }

  /** @param {number} layer */
  setCursor(layer) {
    this.cursor = layer;
    this.emit("cursor");
  }

  /** @param {number} layer -1 closes the panel */
  openDetail(layer) {
    this.detail = layer;
    this.emit("detail");
  }
}
