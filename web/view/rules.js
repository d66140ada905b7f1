// The rule lines of recipes as the pack reads them: which line decides which layer.
import { patternMatcher } from "./glob.js";

/**
 * What rules look at in a layer. `count` is the number of blocks of its list, 0 outside of blocks.
 * @typedef {{ name: string, linear: boolean, block: number, count: number }} RuleLayer
 */

/** @typedef {{ pattern: string, blocks: string, format: string, left: string }} RuleLine */

const UNQUANTIZED = ["keep", "bf16", "fp16", "fp32"];
/** The places that a rule may name after its `@`. */
export const BLOCKS = /^(any|first:\d{1,4}|last:\d{1,4}|\d{1,4}(-\d{1,4})?)$/;
const LINE_BREAK = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

/**
 * Split a text where the pack does.
 * @param {string} text
 */
export const splitLines = (text) => text.split(LINE_BREAK);

/**
 * Parse `pattern = format` or `pattern @ blocks = format`; null for comments, blank and wrong lines.
 * @param {string} line
 * @returns {RuleLine | null}
 */
export function parseRuleLine(line) {
  const text = line.trim();
  const equals = text.lastIndexOf("=");
  if (!text || text.startsWith("#") || equals < 0) return null;
  const whole = text.slice(0, equals);
  const format = text.slice(equals + 1).trim();
  const cut = whole.indexOf("@");
  const pattern = (cut < 0 ? whole : whole.slice(0, cut)).trim();
  const blocks = cut < 0 ? "" : whole.slice(cut + 1).trim();
  if (!pattern || !format) return null;
  return { pattern, blocks, format, left: blocks ? `${pattern} @ ${blocks}` : pattern };
}

/**
 * Whether a layer is in the blocks that a rule names.
 * @param {string} blocks "", any, first:N, last:N, N or N-M
 * @param {RuleLayer} layer
 */
export function inBlocks(blocks, layer) {
  if (!blocks) return true;
  if (layer.block < 0) return false;
  if (blocks === "any") return true;
  const ends = /^(first|last):(\d+)$/.exec(blocks);
  if (ends?.[1] === "first") return layer.block < Number(ends[2]);
  if (ends) return layer.block >= layer.count - Number(ends[2]);
  const range = /^(\d+)(?:-(\d+))?$/.exec(blocks);
  if (!range) return false;
  return layer.block >= Number(range[1]) && layer.block <= Number(range[2] ?? range[1]);
}

/**
 * Whether a format is stored as plain numbers. Its rules apply to layers of every kind, those of
 * other formats to Linear layers only.
 * @param {string} format
 * @param {string[]} [unquantized]
 */
export const isUnquantized = (format, unquantized = UNQUANTIZED) => unquantized.includes(format);

/**
 * Return a test of layers for a line.
 * @param {RuleLine} line
 * @param {string[]} [unquantized]
 * @returns {(layer: RuleLayer) => boolean}
 */
export function lineMatcher(line, unquantized) {
  const matches = patternMatcher(line.pattern);
  const everyKind = isUnquantized(line.format, unquantized);
  return (layer) =>
    (everyKind || layer.linear) && inBlocks(line.blocks, layer) && matches(layer.name);
}

/**
 * The format that the lines of a text give each layer, or "" where none does. The first line that
 * matches decides.
 * @param {string} text
 * @param {RuleLayer[]} layers
 * @param {string[]} [unquantized]
 * @returns {string[]}
 */
export function formatsByRules(text, layers, unquantized) {
  /** @type {string[]} */
  const found = new Array(layers.length).fill("");
  for (const source of splitLines(text)) {
    const line = parseRuleLine(source);
    if (!line) continue;
    const matches = lineMatcher(line, unquantized);
    layers.forEach((layer, i) => {
      if (!found[i] && matches(layer)) found[i] = line.format;
    });
  }
  return found;
}

/**
 * Put new lines in front of a text. Earlier lines with the same left side decide nothing any more
 * and go; comments, blank and all other lines stay.
 * @param {string} text
 * @param {string[]} lines
 */
export function mergeRules(text, lines) {
  const replaced = new Set(lines.map((line) => parseRuleLine(line)?.left));
  const kept = splitLines(text).filter((line) => {
    const rule = parseRuleLine(line);
    return !rule || !replaced.has(rule.left);
  });
  while (kept.length > 0 && !kept[0].trim()) kept.shift();
  return [...lines, ...kept].join("\n");
}
