// The numbers that matter most, and what the pending edits make of them.
import { totalsAfter } from "./edits.js";
import { el } from "./dom.js";
import { formatBytes } from "./numbers.js";

/** @typedef {import("./state.js").ViewState} ViewState */
/** @typedef {import("./types.js").Tile} Tile */

const LONG_DETAIL = 28; // characters of a detail that need more than the least width

/** @param {Tile} tile */
function tileElement({ label, value, detail, tone }) {
  const roomy = (detail?.length ?? 0) > LONG_DETAIL ? " nv-roomy" : "";
  return el(
    "div",
    { class: `nv-tile${tone ? ` nv-${tone}` : ""}${roomy}` },
    el("div", { class: "nv-tile-label", text: label }),
    el("div", { class: "nv-tile-value", text: value }),
    detail ? el("div", { class: "nv-tile-detail", text: detail }) : null,
  );
}

/**
 * The tiles of a view, those of size and bits as they are after the pending edits.
 * @param {ViewState} state
 * @returns {(Tile & { edited?: boolean })[]}
 */
export function currentTiles(state) {
  /** @type {(Tile & { edited?: boolean })[]} */
  const tiles = [...state.view.tiles];
  if (state.pending.size === 0 || !state.layers) return tiles;
  const total = totalsAfter(state.view, state.layers, state.pending);
  const change = total.bytes - total.bytesBefore;
  const sign = change < 0 ? "−" : "+";
  /**
   * @param {RegExp} known what the label of the tile of the last run looks like
   * @param {Tile} tile
   */
  const put = (known, tile) => {
    const at = tiles.findIndex(({ label, edited }) => !edited && known.test(label));
    if (at < 0) tiles.push({ ...tile, edited: true });
    else tiles[at] = { ...tile, edited: true };
  };
  const difference = `${sign}${formatBytes(Math.abs(change))}`;
  put(/size/i, { label: "size after edits", value: formatBytes(total.bytes), detail: difference });
  if (total.bits > 0) {
    // Views count either nominal or stored bits: go on with those of the tile.
    const shown = parseFloat(tiles.find(({ label }) => /bits/i.test(label))?.value ?? "");
    const stored = Math.abs(total.storedBefore - shown) < Math.abs(total.bitsBefore - shown);
    const [after, before] = stored ? [total.stored, total.storedBefore] : [total.bits, total.bitsBefore];
    const detail = `${before.toFixed(2)} before`;
    put(/bits/i, { label: "bits per weight after edits", value: after.toFixed(2), detail });
  }
  return tiles;
}

/**
 * @param {HTMLElement} host
 * @param {ViewState} state
 */
export function drawTiles(host, state) {
  const elements = currentTiles(state).map((tile) => {
    const element = tileElement(tile);
    element.classList.toggle("nv-edit-tile", Boolean(tile.edited));
    return element;
  });
  host.replaceChildren(...elements);
  host.hidden = host.childElementCount === 0;
}
