// Random selections of layers with the rule lines that the view makes of them. Prints them as
// JSON, for a test that reads the lines with the pack's own parser.
import { fileURLToPath } from "node:url";

import { placedLayers } from "../../web/view/edits.js";
import { Layers } from "../../web/view/layers.js";
import { ruleLines } from "../../web/view/rule_lines.js";
import { hostileView, random, VIEWS } from "./fixtures/make_views.mjs";

const FORMATS = ["nvfp4", "bf16", "keep", "float8_e4m3fn"];

/** A selection as people make them: cells, rectangles, rows, columns, or part of a name. */
export function randomSelection(placed, rand) {
  const pick = (items) => items[Math.floor(rand() * items.length)];
  const indices = placed.map((_, i) => i);
  const some = pick(placed);
  const [low, high] = [rand() * some.count, rand() * some.count].sort((a, b) => a - b);
  const kinds = [
    () => indices.filter(() => rand() < 0.01),
    () => [pick(indices)],
    () => indices.filter((i) => placed[i].row === some.row && placed[i].list === some.list),
    () => indices.filter((i) => placed[i].block === some.block && placed[i].list === some.list),
    () => indices.filter((i) => placed[i].list === some.list && placed[i].row.startsWith(some.row.slice(0, 5)) && placed[i].block >= low && placed[i].block <= high),
    () => indices.filter((i) => placed[i].name.includes(some.row.slice(-6))),
    () => indices.filter((i) => placed[i].block < 0),
    () => indices.filter((i) => placed[i].linear),
  ];
  const chosen = new Set(pick(kinds)());
  if (rand() < 0.3) for (const i of pick(kinds)()) chosen.add(i);
  if (rand() < 0.3) chosen.delete(pick([...chosen, 0]));
  return [...chosen].sort((a, b) => a - b);
}

export function casesOf(view, count, seed) {
  const layers = new Layers(view);
  const placed = placedLayers(layers);
  const rand = random(seed);
  const cases = Array.from({ length: count }, () => {
    const chosen = randomSelection(placed, rand);
    const format = FORMATS[Math.floor(rand() * FORMATS.length)];
    return { chosen, format, ...ruleLines(placed, chosen, format) };
  });
  const kinds = placed.map((_, i) => layers.kind(i));
  return { layers: placed, kinds, cases };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const models = [VIEWS.qwen(), VIEWS.flux(), VIEWS.wan(), hostileView()];
  console.log(JSON.stringify(models.map((view, i) => casesOf(view, 25, 100 + i))));
}
