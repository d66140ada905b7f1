// Where everything of the map lies: lists of blocks below each other, or side by side where they are
// short; layers outside of blocks below them.
import { safeText, shortenMiddle } from "./safe_text.js";

/** @typedef {import("./layers.js").Layers} Layers */

/**
 * A list of blocks: `cells[row * count + block]` is a layer or -1. Positions in pixels.
 * @typedef {{
 *   container: number,
 *   title: string,
 *   count: number,
 *   rows: string[],
 *   labels: string[],
 *   cells: Int32Array,
 *   left: number, width: number, titleY: number, headY: number,
 *   x: number, y: number, cellWidth: number, cellHeight: number,
 * }} Section `left` and `width` are those of labels and cells, `x` is the left of the cells
 */

/** @typedef {{ layer: number, label: string, x: number, y: number, width: number }} Chip */

/**
 * @typedef {{
 *   width: number, height: number, labelWidth: number, cellHeight: number,
 *   sections: Section[],
 *   strip: { titleY: number, chipHeight: number, chips: Chip[] } | null,
 * }} MapLayout
 */

export const CELL_LEAST = 6;
const CELL_MOST = 30;
const ROW_LEAST = 14;
const ROW_MOST = 24;
const TITLE_HEIGHT = 18;
const HEAD_HEIGHT = 14;
const GAP = 12;
const CHARACTER = 5.9; // mean width of a character of the row labels
const CHIP_WIDTH = 150;
const CHIP_HEIGHT = 18;
const CHIP_MARK = 30; // pixels of a chip beside its label
const EDGE = 4;
const SECTION_LEAST = 150;
const SIDE_GAP = 16;
const TITLE_CHARACTER = 7;

/**
 * The rows and cells of one list of blocks, rows in the order of the model.
 * @param {Layers} layers
 * @param {number[]} shown
 * @param {number} container
 */
function gridOf(layers, shown, container) {
  const members = shown.filter((layer) => layers.container[layer] === container);
  const last = members.reduce((most, layer) => Math.max(most, layers.block[layer]), -1);
  const count = Math.max(layers.containers[container]?.count ?? 0, last + 1);
  const rows = [...new Set(members.map((layer) => layers.row(layer)))];
  const at = new Map(rows.map((row, i) => [row, i]));
  const cells = new Int32Array(rows.length * count).fill(-1);
  for (const layer of members) {
    cells[(at.get(layers.row(layer)) ?? 0) * count + layers.block[layer]] = layer;
  }
  return { rows, count, cells };
}

/**
 * Lay the map out for a width.
 * @param {Layers} layers
 * @param {number[]} shown
 * @param {number} width pixels
 * @returns {MapLayout}
 */
export function layoutMap(layers, shown, width) {
  const grids = layers.containers
    .map((container, i) => ({ ...gridOf(layers, shown, i), container: i, name: container.name }))
    .filter((grid) => grid.rows.length > 0);
  const longest = Math.max(0, ...grids.flatMap((grid) => grid.rows.map((row) => row.length)));
  const labelRoom = Math.min(Math.max(width * 0.24, 84), 230);
  const labelWidth = grids.length === 0 ? 0 : Math.ceil(Math.min(labelRoom, longest * CHARACTER + 12));
  const most = Math.max(1, ...grids.map((grid) => grid.count));
  // Not whole pixels: the map fills the width, and cells differ by one pixel when drawn.
  const cellWidth = Math.max(CELL_LEAST, Math.min(CELL_MOST, (width - labelWidth - EDGE) / most));
  const cellHeight = Math.max(ROW_LEAST, Math.min(ROW_MOST, Math.round(cellWidth)));
  const place = flow(width);
  const labelRoomCharacters = Math.floor((labelWidth - 8) / CHARACTER);
  const sections = grids.map(({ container, name, count, rows, cells }) => {
    const own = Math.max(SECTION_LEAST, Math.ceil(labelWidth + count * cellWidth + EDGE));
    const height = TITLE_HEIGHT + HEAD_HEIGHT + rows.length * cellHeight + GAP;
    const { left, top } = place.put(own, height);
    return {
      container,
      title: sectionTitle(safeText(name), count, Math.floor(own / TITLE_CHARACTER)),
      count,
      rows,
      labels: rows.map((row) => shortenMiddle(safeText(row), labelRoomCharacters)),
      cells,
      left,
      width: own,
      titleY: top,
      headY: top + TITLE_HEIGHT,
      x: left + labelWidth,
      y: top + TITLE_HEIGHT + HEAD_HEIGHT,
      cellWidth,
      cellHeight,
    };
  });
  const y = place.bottom();
  const strip = layoutStrip(layers, shown, width, y);
  const bottom = strip ? Math.max(y, ...strip.chips.map((chip) => chip.y + CHIP_HEIGHT)) + EDGE : y;
  return {
    width: Math.max(width, Math.ceil(labelWidth + most * cellWidth + EDGE)),
    height: Math.max(20, bottom),
    labelWidth,
    cellHeight,
    sections,
    strip,
  };
}

/**
 * The name of a list of blocks and how many it has. Long names lose their end, because lists of a
 * model often differ at the start only.
 * @param {string} name
 * @param {number} count
 * @param {number} room characters
 */
function sectionTitle(name, count, room) {
  const whole = `${name} · ${count} block${count === 1 ? "" : "s"}`;
  if (whole.length <= room) return whole;
  const end = ` · ${count}`;
  const start = Array.from(name);
  const fits = start.length + end.length <= room;
  return (fits ? name : `${start.slice(0, Math.max(4, room - end.length - 1)).join("")}…`) + end;
}

/**
 * Place boxes from left to right, in lines below each other.
 * @param {number} width of a line
 */
function flow(width) {
  let [left, top, bottom] = [0, 0, 0];
  return {
    /**
     * @param {number} own width of the box
     * @param {number} height
     */
    put(own, height) {
      if (left > 0 && left + own > width) [left, top] = [0, bottom];
      const placed = { left, top };
      left += own + SIDE_GAP;
      bottom = Math.max(bottom, top + height);
      return placed;
    },
    bottom: () => bottom,
  };
}

/**
 * @param {Layers} layers
 * @param {number[]} shown
 * @param {number} width
 * @param {number} top
 */
function layoutStrip(layers, shown, width, top) {
  const outside = shown.filter((layer) => layers.container[layer] < 0 || layers.block[layer] < 0);
  if (outside.length === 0) return null;
  // As wide as the names need, where that costs one line at most.
  const longest = Math.max(...outside.map((layer) => safeText(layers.names[layer]).length));
  const most = Math.max(1, Math.floor(width / CHIP_WIDTH));
  const whole = Math.max(1, Math.min(most, Math.floor(width / (longest * CHARACTER + CHIP_MARK))));
  const lines = (/** @type {number} */ columns) => Math.ceil(outside.length / columns);
  const columns = lines(whole) <= lines(most) + 1 ? whole : most;
  const chipWidth = Math.floor(width / columns);
  const room = Math.floor((chipWidth - CHIP_MARK) / CHARACTER);
  const chips = outside.map((layer, i) => ({
    layer,
    label: shortenMiddle(safeText(layers.names[layer]), room),
    x: (i % columns) * chipWidth,
    y: top + TITLE_HEIGHT + Math.floor(i / columns) * CHIP_HEIGHT,
    width: chipWidth,
  }));
  return { titleY: top, chipHeight: CHIP_HEIGHT, chips };
}

/**
 * @typedef {(
 *   { part: "cell", layer: number, section: number, row: number, block: number } |
 *   { part: "chip", layer: number, chip: number } |
 *   { part: "row", section: number, row: number } |
 *   { part: "block", section: number, block: number } |
 *   { part: "list", section: number }
 * )} Hit
 */

/**
 * What is at a point. Row labels and the strip stay at the left edge while the map scrolls.
 * @param {MapLayout} layout
 * @param {number} x
 * @param {number} y
 * @param {number} scrolled pixels from the left
 * @returns {Hit | null}
 */
export function hitTest(layout, x, y, scrolled = 0) {
  const { sections, strip } = layout;
  for (let s = 0; s < sections.length; s += 1) {
    const section = sections[s];
    const row = Math.floor((y - section.y) / section.cellHeight);
    const block = Math.floor((x - section.x) / section.cellWidth);
    const inRows = row >= 0 && row < section.rows.length;
    const inBlocks = block >= 0 && block < section.count;
    const fromLeft = x - section.left - (section.left === 0 ? scrolled : 0);
    if (fromLeft < 0 || x >= section.left + section.width) continue;
    if (inRows && fromLeft < layout.labelWidth) return { part: "row", section: s, row };
    if (inRows && inBlocks) {
      const layer = section.cells[row * section.count + block];
      return { part: "cell", layer, section: s, row, block };
    }
    if (y >= section.headY && y < section.y && inBlocks) return { part: "block", section: s, block };
    if (y >= section.titleY && y < section.headY) return { part: "list", section: s };
  }
  const chip = strip?.chips.findIndex(
    (c) => x - scrolled >= c.x && x - scrolled < c.x + c.width && y >= c.y && y < c.y + strip.chipHeight,
  );
  if (strip && chip !== undefined && chip >= 0) {
    return { part: "chip", layer: strip.chips[chip].layer, chip };
  }
  return null;
}

/**
 * The rectangle of a layer, or null.
 * @param {MapLayout} layout
 * @returns {Map<number, { x: number, y: number, width: number, height: number, chip: boolean }>}
 */
export function layerBoxes(layout) {
  const boxes = new Map();
  for (const section of layout.sections) {
    section.cells.forEach((layer, i) => {
      if (layer < 0) return;
      boxes.set(layer, {
        x: section.x + (i % section.count) * section.cellWidth,
        y: section.y + Math.floor(i / section.count) * section.cellHeight,
        width: section.cellWidth,
        height: section.cellHeight,
        chip: false,
      });
    });
  }
  for (const chip of layout.strip?.chips ?? []) {
    boxes.set(chip.layer, {
      x: chip.x + 2,
      y: chip.y + 2,
      width: 18,
      height: (layout.strip?.chipHeight ?? CHIP_HEIGHT) - 4,
      chip: true,
    });
  }
  return boxes;
}

/**
 * Layers within a rectangle, in any direction.
 * @param {MapLayout} layout
 * @param {{ x: number, y: number }} a
 * @param {{ x: number, y: number }} b
 */
export function layersWithin(layout, a, b) {
  const [left, right] = [Math.min(a.x, b.x), Math.max(a.x, b.x)];
  const [top, bottom] = [Math.min(a.y, b.y), Math.max(a.y, b.y)];
  /** @type {number[]} */
  const found = [];
  for (const [layer, box] of layerBoxes(layout)) {
    const inX = box.x <= right && box.x + box.width >= left;
    if (inX && box.y <= bottom && box.y + box.height >= top) found.push(layer);
  }
  return found;
}

/**
 * The next layer from one in a direction: within its list of blocks, then to the next part of the
 * map above or below. Empty cells are skipped.
 * @param {MapLayout} layout
 * @param {number} layer
 * @param {number} dx -1, 0 or 1
 * @param {number} dy -1, 0 or 1
 */
export function neighbour(layout, layer, dx, dy) {
  const boxes = layerBoxes(layout);
  const from = boxes.get(layer);
  if (!from) return boxes.keys().next().value ?? -1;
  const [fx, fy] = [from.x + from.width / 2, from.y + from.height / 2];
  let best = -1;
  let least = Infinity;
  for (const [other, box] of boxes) {
    const [ox, oy] = [box.x + box.width / 2 - fx, box.y + box.height / 2 - fy];
    const along = dx * ox + dy * oy;
    const across = Math.abs(dx * oy) + Math.abs(dy * ox);
    if (along <= 0.5 || (dx !== 0 && across > 0.5)) continue;
    const distance = dx !== 0 ? along : along * 1000 + across;
    if (distance < least) {
      least = distance;
      best = other;
    }
  }
  return best < 0 ? layer : best;
}
