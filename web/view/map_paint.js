// Draws the map on a canvas, for the screen and for pictures.
import { INVALID, UNDECIDED } from "./edits.js";
import { sequentialColour } from "./palette.js";
import { safeText } from "./safe_text.js";

/** @typedef {import("./state.js").ViewState} ViewState */
/** @typedef {import("./map_layout.js").MapLayout} MapLayout */
/** @typedef {import("./map_layout.js").Section} Section */
/** @typedef {import("./theme.js").Theme} Theme */
/** @typedef {{ fill: string | null, letter: string, ink: string }} Look `fill` null: hatched */

const LETTER_LEAST = 9; // pixels of a cell that can hold a letter

/**
 * How each layer looks with the current measure.
 * @param {ViewState} state
 * @param {boolean} dark
 * @returns {(layer: number) => Look}
 */
export function layerLooks(state, dark) {
  const { layers, currentMeasure: measure, scale, colours } = state;
  if (!layers || !measure) return () => ({ fill: null, letter: "", ink: "#000" });
  if (measure.scale === "category") {
    return (layer) => {
      const colour = colours.get(state.formatOf(layer));
      if (!colour) return { fill: null, letter: "", ink: "#000" };
      return { fill: colour.colour, letter: colour.letter, ink: colour.ink };
    };
  }
  return (layer) => {
    const value = layers.value(measure.id, layer);
    const fill = value === null || !scale ? null : sequentialColour(scale.share(value), dark);
    return { fill, letter: "", ink: "#000" };
  };
}

/**
 * Diagonal lines for what is not known.
 * @param {CanvasRenderingContext2D} context
 * @param {Theme} theme
 * @returns {CanvasPattern | string}
 */
function hatching(context, theme) {
  const tile = document.createElement("canvas");
  tile.width = 6;
  tile.height = 6;
  const c = tile.getContext("2d");
  if (!c) return theme.line;
  c.strokeStyle = theme.muted;
  c.globalAlpha = 0.55;
  c.lineWidth = 1;
  for (const shift of [-6, 0, 6]) {
    c.moveTo(shift - 1, 7);
    c.lineTo(shift + 7, -1);
  }
  c.stroke();
  return context.createPattern(tile, "repeat") ?? theme.line;
}

/**
 * @typedef {{
 *   scrolled?: number,
 *   cursor?: number,
 *   hover?: number,
 *   band?: { x: number, y: number, width: number, height: number } | null,
 *   marks?: boolean,
 * }} PaintOptions `marks`: selection and cursor are drawn
 */

/**
 * Draw the map at the origin of a context.
 * @param {CanvasRenderingContext2D} context
 * @param {MapLayout} layout
 * @param {ViewState} state
 * @param {Theme} theme
 * @param {PaintOptions} [options]
 */
export function paintMap(context, layout, state, theme, options = {}) {
  const painter = new MapPainter(context, layout, state, theme, options);
  painter.paint();
}

class MapPainter {
  /**
   * @param {CanvasRenderingContext2D} context
   * @param {MapLayout} layout
   * @param {ViewState} state
   * @param {Theme} theme
   * @param {PaintOptions} options
   */
  constructor(context, layout, state, theme, options) {
    this.context = context;
    this.layout = layout;
    this.state = state;
    this.theme = theme;
    this.options = options;
    this.look = layerLooks(state, theme.dark);
    this.hatch = hatching(context, theme);
    this.marked = options.marks ?? true;
  }

  paint() {
    const { context, layout } = this;
    context.textBaseline = "middle";
    for (const section of layout.sections) this.paintSection(section);
    if (layout.strip) this.paintStrip(layout.strip);
    if (this.options.band) {
      const { x, y, width, height } = this.options.band;
      context.globalAlpha = 0.18;
      context.fillStyle = this.theme.accent;
      context.fillRect(x, y, width, height);
      context.globalAlpha = 1;
      context.strokeStyle = this.theme.accent;
      context.lineWidth = 1;
      context.strokeRect(x + 0.5, y + 0.5, width, height);
    }
  }

  /** @param {Section} section */
  paintSection(section) {
    const { context } = this;
    const gap = section.cellWidth >= 16 ? 2 : 1;
    /** @type {[number, number, number, number, number][]} */
    const marked = [];
    section.cells.forEach((layer, i) => {
      if (layer < 0) return;
      const block = i % section.count;
      const x = Math.round(section.x + block * section.cellWidth);
      const y = section.y + Math.floor(i / section.count) * section.cellHeight;
      const w = Math.round(section.x + (block + 1) * section.cellWidth) - x - gap;
      const h = section.cellHeight - gap;
      this.paintCell(layer, x, y, w, h, section.cellWidth - gap);
      if (this.needsMark(layer)) marked.push([layer, x, y, w, h]);
    });
    for (const [layer, x, y, w, h] of marked) this.paintMarks(layer, x, y, w, h);
    this.paintBlockNumbers(section);
    // The labels lie over what scrolled below them.
    const scrolled = section.left === 0 ? (this.options.scrolled ?? 0) : 0;
    const left = section.left + scrolled;
    context.fillStyle = this.theme.background;
    if (scrolled > 0) context.fillRect(left, section.titleY, this.layout.labelWidth - 2, section.y - section.titleY + section.rows.length * section.cellHeight);
    this.text(section.title, left + 2, section.titleY + 8, `600 11px ${this.theme.font}`, this.theme.text);
    section.labels.forEach((label, row) => {
      const y = section.y + (row + 0.5) * section.cellHeight;
      const rows = this.options.hover ?? -1;
      const own = rows >= 0 && this.state.layers?.row(rows) === section.rows[row] && this.state.layers.container[rows] === section.container;
      const colour = own ? this.theme.text : this.theme.muted;
      this.text(label, left + this.layout.labelWidth - 6, y, `11px ${this.theme.font}`, colour, "right", this.layout.labelWidth - 8);
    });
  }

  /**
   * @param {number} layer
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   * @param {number} [room] width for the letter, the same in all cells
   */
  paintCell(layer, x, y, width, height, room = width) {
    const { context } = this;
    const look = this.look(layer);
    if (look.fill === null) {
      context.fillStyle = this.theme.line;
      context.globalAlpha = 0.25;
      context.fillRect(x, y, width, height);
      context.globalAlpha = 1;
    }
    context.fillStyle = look.fill ?? this.hatch;
    context.fillRect(x, y, width, height);
    if (look.letter && room >= LETTER_LEAST) {
      const size = Math.min(11, Math.floor(room * 0.9));
      context.globalAlpha = 0.72;
      this.text(look.letter, x + width / 2, y + height / 2 + 0.5, `${size}px ${this.theme.font}`, look.ink, "center");
      context.globalAlpha = 1;
    }
  }

  /** @param {number} layer */
  needsMark(layer) {
    const { state, options } = this;
    if (state.pending.has(layer)) return true;
    return this.marked && (state.selection.has(layer) || options.cursor === layer || options.hover === layer);
  }

  /**
   * Outlines: pending edits in the accent colour, the selection in the colour of text, the cursor
   * with two rings.
   * @param {number} layer
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   */
  paintMarks(layer, x, y, width, height) {
    const { state, theme, options } = this;
    if (state.pending.has(layer)) {
      const edited = state.pending.get(layer);
      this.ring(x, y, width, height, edited === INVALID ? theme.error : theme.accent, 1.5, 0.25);
      if ((edited === UNDECIDED || edited === INVALID) && width >= LETTER_LEAST) {
        this.text(edited, x + width / 2, y + height / 2, `600 10px ${theme.font}`, theme.text, "center");
      }
    }
    if (!this.marked) return;
    if (state.selection.has(layer)) {
      this.ring(x, y, width, height, theme.background, 3, -0.5);
      this.ring(x, y, width, height, theme.text, 1.5, -0.5);
    }
    if (options.hover === layer) this.ring(x, y, width, height, theme.text, 1, -0.5);
    if (options.cursor === layer) {
      this.ring(x, y, width, height, theme.background, 4.5, -1.5);
      this.ring(x, y, width, height, theme.accent, 2, -1.5);
    }
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   * @param {string} colour
   * @param {number} line
   * @param {number} inset negative: outside
   */
  ring(x, y, width, height, colour, line, inset) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = line;
    this.context.strokeRect(x + inset, y + inset, width - 2 * inset, height - 2 * inset);
  }

  /** @param {Section} section */
  paintBlockNumbers(section) {
    const font = `10px ${this.theme.font}`;
    const room = 22;
    const step = [1, 2, 5, 10, 20, 50].find((s) => s * section.cellWidth >= room) ?? 100;
    const hovered = this.options.hover ?? -1;
    const layers = this.state.layers;
    const own = hovered >= 0 && layers?.container[hovered] === section.container ? layers.block[hovered] : -1;
    for (let block = 0; block < section.count; block += 1) {
      const near = own >= 0 && own !== block && Math.abs(own - block) * section.cellWidth < room;
      if (block !== own && (near || block % step !== 0)) continue;
      const x = section.x + (block + 0.5) * section.cellWidth;
      const colour = block === own ? this.theme.text : this.theme.muted;
      this.text(String(block), x, section.headY + 7, font, colour, "center");
    }
  }

  /** @param {NonNullable<MapLayout["strip"]>} strip */
  paintStrip(strip) {
    // The strip wraps within the width that is in sight and does not scroll.
    const left = this.options.scrolled ?? 0;
    this.text("outside of blocks", left + 2, strip.titleY + 8, `600 11px ${this.theme.font}`, this.theme.text);
    for (const chip of strip.chips) {
      const [x, y, w, h] = [left + chip.x + 2, chip.y + 2, 18, strip.chipHeight - 4];
      this.paintCell(chip.layer, x, y, w, h);
      if (this.needsMark(chip.layer)) this.paintMarks(chip.layer, x, y, w, h);
      const colour = this.options.hover === chip.layer ? this.theme.text : this.theme.muted;
      this.text(chip.label, x + w + 6, y + h / 2, `11px ${this.theme.font}`, colour, "left", chip.width - w - 12);
    }
  }

  /**
   * @param {string} text
   * @param {number} x
   * @param {number} y
   * @param {string} font
   * @param {string} colour
   * @param {CanvasTextAlign} [align]
   * @param {number} [most] pixels; wider text is drawn narrower
   */
  text(text, x, y, font, colour, align = "left", most = undefined) {
    const { context } = this;
    context.font = font;
    context.fillStyle = colour;
    context.textAlign = align;
    context.direction = "ltr";
    if (most === undefined) context.fillText(safeText(text), x, y);
    else context.fillText(safeText(text), x, y, most);
  }
}
