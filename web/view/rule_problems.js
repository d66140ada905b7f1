// What is wrong with the lines of a rule widget, told while they are typed. The pack has the last
// word when the node runs.
import { BLOCKS, lineMatcher, parseRuleLine, splitLines } from "./rules.js";

/** @typedef {import("./rules.js").RuleLayer} RuleLayer */
/** @typedef {import("./rules.js").RuleLine} RuleLine */

/**
 * Why each wrong line of a text cannot be used, in the order of the lines.
 * @param {string} text
 * @param {RuleLayer[]} layers all layers of the model
 * @param {string[]} formats the formats that there are
 * @param {string[]} [unquantized]
 * @returns {string[]}
 */
export function ruleProblems(text, layers, formats, unquantized) {
  return splitLines(text).flatMap((source, i) => {
    const line = source.trim();
    if (!line || line.startsWith("#")) return [];
    const problem = lineProblem(parseRuleLine(line), layers, formats, unquantized);
    return problem ? [`line ${i + 1} of the rules, ${line}: ${problem}`] : [];
  });
}

/**
 * @param {RuleLine | null} rule
 * @param {RuleLayer[]} layers
 * @param {string[]} formats
 * @param {string[]} [unquantized]
 */
function lineProblem(rule, layers, formats, unquantized) {
  if (!rule) return "a rule has the form pattern = format";
  if (!formats.includes(rule.format)) {
    return `there is no format ${rule.format}; the formats are ${formats.join(", ")}`;
  }
  const range = /^(\d+)-(\d+)$/.exec(rule.blocks);
  if (rule.blocks && (!BLOCKS.test(rule.blocks) || (range && Number(range[1]) > Number(range[2])))) {
    return `${rule.blocks} names no blocks; write any, first:N, last:N, N or N-M`;
  }
  // Python's expressions can be more than the browser's.
  if (rule.pattern.startsWith("re:") || layers.some(lineMatcher(rule, unquantized))) return "";
  const named = layers.some(lineMatcher({ ...rule, format: "keep", blocks: "" }, ["keep"]));
  return named
    ? `it matches no layer that ${rule.format} is for${rule.blocks ? " in these blocks" : ""}`
    : "it matches no layer of this model";
}
