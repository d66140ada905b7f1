// The mixes that were sampled with all of their layers quantized, as a table that is folded.
import { el } from "./dom.js";
import { formatBytes, formatPercent } from "./numbers.js";

/** @typedef {import("./types.js").Frontier} Frontier */
/** @typedef {import("./types.js").SampledPoint} SampledPoint */

const HEADINGS = ["mix", "sampled whole", "predicted", "size"];
const LEAST_BAR = 2; // percent of a cell

/**
 * The folded table; null if no mix was sampled whole.
 * @param {Frontier} frontier
 */
export function sampledMixes({ sampled = [], preset }) {
  if (sampled.length === 0) return null;
  const most = Math.max(...sampled.flatMap(({ shift, error }) => [shift ?? 0, error]), 1e-12);
  const body = el("tbody");
  sampled.forEach((point, index) => {
    const name = nameOf(point, index === 0, preset?.name ?? "");
    const cells = [point.shift, point.error].map((value) => errorCell(value, most));
    const size = el("td", { class: "nv-plain-number", text: formatBytes(point.bytes) });
    const row = el("tr", { class: index === 0 ? "nv-own" : "" }, el("th", { text: name }), ...cells, size);
    body.append(row);
  });
  const head = el("thead", {}, el("tr", {}, ...HEADINGS.map((text) => el("th", { text }))));
  const text = sampled.length === 1 ? "1 mix was sampled whole" : `${sampled.length} mixes were sampled whole`;
  const summary = el("summary", { class: "nv-help", text });
  return el("details", { class: "nv-sampled" }, summary, el("table", { class: "nv-errors" }, head, body));
}

/**
 * What a mix is, and how many layers it has of each format.
 * @param {SampledPoint} point
 * @param {boolean} isTaken
 * @param {string} preset the name of the preset
 */
export function nameOf({ counts, is_preset: isPreset }, isTaken, preset) {
  const formats = Object.entries(counts).map(([format, count]) => `${count} ${format}`).join(", ");
  const marks = [isTaken && "this mix", isPreset && `preset ${preset}`].filter(Boolean);
  return [...marks, formats].join(" · ");
}

/**
 * A percentage over a bar.
 * @param {number | null} value null: not finite
 * @param {number} most the value of the longest bar
 */
function errorCell(value, most) {
  if (value === null) return el("td", { class: "nv-none", text: "not finite" });
  const cell = el("td", { text: formatPercent(value) });
  cell.style.backgroundSize = `${Math.max(LEAST_BAR, (100 * value) / most)}% 3px`;
  return cell;
}
