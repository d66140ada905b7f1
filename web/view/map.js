// The map on its canvas: hover, click, drag, keyboard.
import { spokenLayer } from "./describe.js";
import { el, localPoint } from "./dom.js";
import { hitTest, layerBoxes, layersWithin, layoutMap, neighbour } from "./map_layout.js";
import { paintMap } from "./map_paint.js";
import { counted } from "./numbers.js";
import { readTheme } from "./theme.js";
import { layerTooltip } from "./tooltip.js";

/** @typedef {import("./state.js").ViewState} ViewState */
/** @typedef {import("./map_layout.js").Hit} Hit */
/** @typedef {{ x: number, y: number }} Point */

const DRAG_LEAST = 4;
const EDGE = 6; // pixels between a cell and the edge of what is in sight
const ARROWS = /** @type {{ [key: string]: [number, number] }} */ ({
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
});

export class LayerMap {
  /**
   * @param {ViewState} state
   * @param {HTMLElement} root of the view; its styles give the colours
   * @param {import("./tooltip.js").Tooltip} tooltip
   */
  constructor(state, root, tooltip) {
    this.state = state;
    this.root = root;
    this.tooltip = tooltip;
    this.width = 0;
    this.hover = -1;
    this.anchor = -1;
    /** @type {Point | null} */
    this.pressed = null;
    /** @type {{ x: number, y: number, width: number, height: number } | null} */
    this.band = null;
    this.scheduled = false;
    this.theme = readTheme(root);
    this.canvas = el("canvas", {
      class: "nv-canvas",
      attributes: { tabindex: "0", role: "application", "aria-roledescription": "layer map" },
      on: {
        pointerdown: (event) => this.press(event),
        pointermove: (event) => this.move(event),
        pointerup: (event) => this.release(event),
        pointercancel: () => this.cancelDrag(),
        pointerenter: () => this.sharpen(),
        pointerleave: () => this.leave(),
        keydown: (event) => this.key(event),
        focus: () => this.focus(),
        blur: () => this.schedule(),
      },
    });
    this.scroller = el("div", { class: "nv-map-scroll", on: { scroll: () => this.schedule() } }, this.canvas);
    this.live = el("div", { class: "nv-unseen", attributes: { "aria-live": "polite" } });
    this.element = el("div", { class: "nv-map" }, this.scroller, this.live);
    this.layout = state.layers ? layoutMap(state.layers, state.shown, 500) : null;
  }

  /** @param {number} width pixels that the map may fill */
  resize(width) {
    if (!this.state.layers || width <= 0) return;
    this.width = width;
    this.layout = layoutMap(this.state.layers, this.state.shown, width);
    const ratio = this.pixelRatio();
    this.ratio = ratio;
    this.canvas.width = Math.round(this.layout.width * ratio);
    this.canvas.height = Math.round(this.layout.height * ratio);
    this.canvas.style.width = `${this.layout.width}px`;
    this.canvas.style.height = `${this.layout.height}px`;
    this.describe();
    this.paint();
  }

  /** Pixels of the screen per pixel of the layout: ComfyUI may have zoomed in. */
  pixelRatio() {
    const width = this.canvas.offsetWidth;
    const zoom = width > 0 ? this.canvas.getBoundingClientRect().width / width : 1;
    return Math.min(3, Math.max(1, (window.devicePixelRatio || 1) * Math.max(1, zoom)));
  }

  /** Draw with more pixels after ComfyUI zoomed in. */
  sharpen() {
    if (Math.abs(this.pixelRatio() - (this.ratio ?? 1)) > 0.1) this.resize(this.width);
  }

  /** Lay out again, after another choice of layers. */
  refresh() {
    this.theme = readTheme(this.root);
    this.state.dark = this.theme.dark;
    this.resize(this.width || this.scroller.clientWidth);
  }

  describe() {
    const { state } = this;
    const measure = state.currentMeasure?.label ?? "";
    const help = state.canEdit ? "Arrow keys move, Enter opens, Space selects." : "Arrow keys move, Enter opens.";
    this.canvas.setAttribute("aria-label", `Map of ${counted(state.shown.length, "layer")} by ${measure}. ${help}`);
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.paint();
    });
  }

  paint() {
    const context = this.canvas.getContext("2d");
    if (!context || !this.layout) return;
    const ratio = this.ratio ?? 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.layout.width, this.layout.height);
    const focused = this.isFocused();
    paintMap(context, this.layout, this.state, this.theme, {
      scrolled: this.scroller.scrollLeft,
      cursor: focused ? this.state.cursor : this.state.detail,
      hover: this.hover,
      band: this.band,
    });
  }

  isFocused() {
    const owner = /** @type {Document | ShadowRoot} */ (this.canvas.getRootNode());
    return owner.activeElement === this.canvas;
  }

  /**
   * @param {Point} point
   * @returns {Hit | null}
   */
  hit(point) {
    return this.layout ? hitTest(this.layout, point.x, point.y, this.scroller.scrollLeft) : null;
  }

  /**
   * The layers of a part: a cell, a row, a block, a list of blocks.
   * @param {Hit | null} hit
   * @returns {number[]}
   */
  layersOf(hit) {
    if (!hit || !this.layout) return [];
    if (hit.part === "cell" || hit.part === "chip") return hit.layer < 0 ? [] : [hit.layer];
    const section = this.layout.sections[hit.section];
    const all = Array.from(section.cells);
    const own = all.filter((layer, i) => {
      if (layer < 0) return false;
      if (hit.part === "row") return Math.floor(i / section.count) === hit.row;
      return hit.part === "list" || i % section.count === hit.block;
    });
    return own;
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0) return;
    event.stopPropagation();
    this.canvas.focus({ preventScroll: true });
    this.pressed = localPoint(this.canvas, event);
    this.tooltip.hide();
    this.canvas.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  move(event) {
    const point = localPoint(this.canvas, event);
    if (this.pressed && this.state.canEdit) {
      const [dx, dy] = [point.x - this.pressed.x, point.y - this.pressed.y];
      if (this.band || Math.hypot(dx, dy) > DRAG_LEAST) {
        event.stopPropagation();
        this.band = {
          x: Math.min(point.x, this.pressed.x),
          y: Math.min(point.y, this.pressed.y),
          width: Math.abs(dx),
          height: Math.abs(dy),
        };
        this.tooltip.hide();
        this.schedule();
        return;
      }
    }
    this.point(point, event);
  }

  /**
   * @param {Point} point
   * @param {PointerEvent} event
   */
  point(point, event) {
    const hit = this.hit(point);
    const layer = hit && (hit.part === "cell" || hit.part === "chip") ? hit.layer : -1;
    const place = localPoint(this.tooltip.frame, event);
    if (layer >= 0) this.tooltip.show(place, layerTooltip(this.state, layer));
    else if (hit?.part === "list" && this.layout) {
      const section = this.layout.sections[hit.section];
      const name = this.state.layers?.containers[section.container]?.name ?? "";
      this.tooltip.show(place, [el("div", { class: "nv-tip-name", text: name })]);
    } else if (hit?.part === "row" && this.layout) {
      const section = this.layout.sections[hit.section];
      const count = this.layersOf(hit).length;
      this.tooltip.show(place, [
        el("div", { class: "nv-tip-name", text: section.rows[hit.row] }),
        el("div", { class: "nv-tip-line", text: `${counted(count, "layer")}${this.state.canEdit ? " · click to select the row" : ""}` }),
      ]);
    } else if (hit?.part === "block" && this.state.canEdit) {
      this.tooltip.show(place, [el("div", { class: "nv-tip-line", text: `block ${hit.block} · click to select the column` })]);
    } else this.tooltip.hide();
    const pressable = layer >= 0 || (hit && hit.part !== "cell" && this.state.canEdit);
    this.canvas.style.cursor = pressable ? "pointer" : "default";
    if (layer !== this.hover) {
      this.hover = layer;
      this.schedule();
    }
  }

  /** @param {PointerEvent} event */
  release(event) {
    if (!this.pressed || !this.layout) return;
    event.stopPropagation();
    const point = localPoint(this.canvas, event);
    const many = event.ctrlKey || event.metaKey;
    if (this.band) {
      const layers = layersWithin(this.layout, this.pressed, point);
      this.cancelDrag();
      if (many) this.state.toggle(layers);
      else if (event.shiftKey) this.state.select([...this.state.selection, ...layers]);
      else this.state.select(layers);
      return;
    }
    const hit = this.hit(point);
    this.cancelDrag();
    this.click(hit, many, event.shiftKey);
  }

  /**
   * @param {Hit | null} hit
   * @param {boolean} many Ctrl or Cmd
   * @param {boolean} extend Shift
   */
  click(hit, many, extend) {
    const { state } = this;
    const layers = this.layersOf(hit);
    if (layers.length === 0) {
      if (!many && !extend) state.select([]);
      return;
    }
    const single = hit?.part === "cell" || hit?.part === "chip";
    state.cursor = layers[0];
    if (single) this.live.textContent = "";
    if (state.canEdit) {
      if (many) state.toggle(layers);
      else if (extend && single && this.anchor >= 0) this.extendTo(layers[0]);
      else if (extend) state.select([...state.selection, ...layers]);
      else state.select(layers);
    }
    if (single && !extend) this.anchor = layers[0];
    if (single && !many && !extend) state.openDetail(layers[0]);
    this.schedule();
  }

  /** @param {number} layer select the rectangle from the anchor to a layer */
  extendTo(layer) {
    if (!this.layout) return;
    const boxes = layerBoxes(this.layout);
    const [a, b] = [boxes.get(this.anchor), boxes.get(layer)];
    if (!a || !b) return;
    /** @param {{ x: number, y: number, width: number, height: number }} box */
    const centre = (box) => ({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
    this.state.select(layersWithin(this.layout, centre(a), centre(b)));
  }

  cancelDrag() {
    this.pressed = null;
    this.band = null;
    this.schedule();
  }

  leave() {
    if (this.band) return;
    this.hover = -1;
    this.tooltip.hide();
    this.schedule();
  }

  focus() {
    const first = this.layout && layerBoxes(this.layout).keys().next().value;
    if (this.state.cursor < 0) this.state.cursor = first ?? -1;
    this.speak();
    this.schedule();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { state } = this;
    const arrow = ARROWS[event.key];
    if (arrow && this.layout && !event.altKey) this.step(arrow, event.shiftKey);
    else if (event.key === "Enter" && state.cursor >= 0) state.openDetail(state.cursor);
    else if (event.key === " " && state.cursor >= 0) {
      if (state.canEdit) state.toggle([state.cursor]);
      this.anchor = state.cursor;
      this.speak();
    } else if (event.key === "Escape" && (state.detail >= 0 || state.selection.size > 0)) {
      if (state.detail >= 0) state.openDetail(-1);
      else state.select([]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * @param {[number, number]} arrow
   * @param {boolean} extend
   */
  step([dx, dy], extend) {
    const { state, layout } = this;
    if (!layout) return;
    const next = neighbour(layout, state.cursor, dx, dy);
    if (extend && state.canEdit) {
      if (this.anchor < 0) this.anchor = state.cursor;
      state.cursor = next;
      this.extendTo(next);
    } else {
      this.anchor = next;
      state.cursor = next;
    }
    if (state.detail >= 0) state.openDetail(next);
    this.reveal(next);
    this.speak();
    this.paint();
  }

  /** @param {number} layer scroll a cell into sight, clear of the labels */
  reveal(layer) {
    const box = this.layout ? layerBoxes(this.layout).get(layer) : undefined;
    if (!box || box.chip) return;
    const left = this.scroller.scrollLeft + (this.layout?.labelWidth ?? 0);
    const right = this.scroller.scrollLeft + this.scroller.clientWidth;
    if (box.x < left) this.scroller.scrollLeft -= left - box.x;
    else if (box.x + box.width > right) this.scroller.scrollLeft += box.x + box.width - right;
  }

  /**
   * Scroll a box so that a cell stays in sight, after something took a part of its height.
   * @param {HTMLElement} box
   * @param {number} layer
   */
  keepInSight(box, layer) {
    const cell = this.layout ? layerBoxes(this.layout).get(layer) : undefined;
    if (!cell || this.canvas.offsetHeight === 0) return;
    const outer = box.getBoundingClientRect();
    const inner = this.canvas.getBoundingClientRect();
    const zoom = outer.height / (box.offsetHeight || 1) || 1;
    const below = (inner.top - outer.top) / zoom + cell.y + cell.height + EDGE - box.clientHeight;
    if (below > 0) box.scrollTop += below;
  }

  speak() {
    this.live.textContent = spokenLayer(this.state, this.state.cursor);
  }
}
