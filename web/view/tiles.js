// The numbers that matter most, and what the pending edits make of them.
import { totalsAfter } from "./edits.js";
import { el } from "./dom.js";
import { formatBytes, formatNumber } from "./numbers.js";

/** @typedef {import("./state.js").ViewState} ViewState */
/** @typedef {import("./types.js").Tile} Tile */

/** @param {Tile} tile */
function tileElement({ label, value, detail, tone }) {
  return el(
    "div",
    { class: `nv-tile${tone ? ` nv-${tone}` : ""}` },
    el("div", { class: "nv-tile-label", text: label }),
    el("div", { class: "nv-tile-value", text: value }),
    detail ? el("div", { class: "nv-tile-detail", text: detail }) : null,
  );
}

/**
 * Tiles for size and bits after the pending edits.
 * @param {ViewState} state
 * @returns {Tile[]}
 */
export function editTiles(state) {
  if (state.pending.size === 0 || !state.layers) return [];
  const total = totalsAfter(state.view, state.layers, state.pending);
  const change = total.bytes - total.bytesBefore;
  const sign = change < 0 ? "−" : "+";
  /** @type {Tile[]} */
  const tiles = [
    { label: "Size after edits", value: formatBytes(total.bytes), detail: `${sign}${formatBytes(Math.abs(change))}` },
  ];
  if (total.bits > 0) {
    tiles.push({
      label: "Bits after edits",
      value: formatNumber(total.bits, 3),
      detail: `${formatNumber(total.bitsBefore, 3)} before`,
    });
  }
  return tiles;
}

/**
 * @param {HTMLElement} host
 * @param {ViewState} state
 */
export function drawTiles(host, state) {
  const edited = editTiles(state).map(tileElement);
  for (const tile of edited) tile.classList.add("nv-edit-tile");
  host.replaceChildren(...state.view.tiles.map(tileElement), ...edited);
  host.hidden = host.childElementCount === 0;
}
