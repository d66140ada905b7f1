import assert from "node:assert/strict";
import { test } from "node:test";

import { formatsByRules, mergeRules, parseRuleLine } from "../../web/view/rules.js";
import { ruleLines } from "../../web/view/rule_lines.js";
import { globToRegExp } from "../../web/view/glob.js";
import { placedLayers } from "../../web/view/edits.js";
import { othersOfWholeBlocks } from "../../web/view/whole_blocks.js";
import { Layers } from "../../web/view/layers.js";
import { hostileView, random, VIEWS } from "./fixtures/make_views.mjs";
import { globMatches, layersOfLine } from "./reference_rules.mjs";
import { casesOf } from "./rule_cases.mjs";

const placedOf = (view) => placedLayers(new Layers(view));
const qwen = placedOf(VIEWS.qwen());
const where = (layers, accept) => layers.flatMap((layer, i) => (accept(layer) ? [i] : []));

for (const [name, view] of [["qwen", VIEWS.qwen()], ["flux", VIEWS.flux()], ["wan", VIEWS.wan()], ["hostile", hostileView()]]) {
  test(`lines of random selections match these layers and no other: ${name}`, () => {
    const { layers, cases } = casesOf(view, 30, 7);
    for (const { chosen, format, lines, left_out: leftOut } of cases) {
      const decided = new Set(lines.flatMap((line) => layersOfLine(line, layers)));
      const expected = chosen.filter((i) => !leftOut.includes(i));
      assert.deepEqual([...decided].sort((a, b) => a - b), expected, `${format}: ${lines.join("; ")}`);
      assert.ok(lines.length <= expected.length);
    }
  });
}

test("a row is one line", () => {
  const row = where(qwen, (l) => l.row === "attn.to_q");
  assert.deepEqual(ruleLines(qwen, row, "bf16").lines, ["transformer_blocks.*.attn.to_q = bf16"]);
});

test("a run of blocks is one line with a range", () => {
  const rows = (from, to) => where(qwen, (l) => l.row === "attn.to_q" && l.block >= from && l.block <= to);
  assert.deepEqual(ruleLines(qwen, rows(3, 7), "nvfp4").lines, ["transformer_blocks.*.attn.to_q @ 3-7 = nvfp4"]);
  assert.deepEqual(ruleLines(qwen, rows(0, 1), "nvfp4").lines, ["transformer_blocks.*.attn.to_q @ first:2 = nvfp4"]);
  assert.deepEqual(ruleLines(qwen, rows(55, 59), "nvfp4").lines, ["transformer_blocks.*.attn.to_q @ last:5 = nvfp4"]);
});

test("one layer is its name", () => {
  const one = where(qwen, (l) => l.name === "transformer_blocks.3.attn.to_q");
  assert.deepEqual(ruleLines(qwen, one, "nvfp4").lines, ["transformer_blocks.3.attn.to_q = nvfp4"]);
});

test("all Linears of one block are one line for a quantized format", () => {
  const column = where(qwen, (l) => l.block === 3 && l.linear);
  assert.deepEqual(ruleLines(qwen, column, "nvfp4").lines, ["transformer_blocks.3.* = nvfp4"]);
});

test("an unquantized format does not reach norms beside the chosen Linears", () => {
  const column = where(qwen, (l) => l.block === 3 && l.linear);
  const { lines } = ruleLines(qwen, column, "bf16");
  assert.ok(lines.length > 1 && lines.length <= 6, lines.join("; "));
  const decided = lines.flatMap((line) => layersOfLine(line, qwen));
  assert.ok(decided.every((i) => qwen[i].linear));
});

test("two kinds of attention rows share a line", () => {
  const rows = where(qwen, (l) => /^attn\.to_[qkv]$/.test(l.row));
  const { lines } = ruleLines(qwen, rows, "nvfp4");
  assert.ok(lines.length <= 3);
});

test("other kinds than Linear are left out of a quantized format", () => {
  const block = where(qwen, (l) => l.block === 0);
  const { lines, left_out: leftOut } = ruleLines(qwen, block, "nvfp4");
  assert.deepEqual(lines, ["transformer_blocks.0.* = nvfp4"]);
  assert.equal(leftOut.length, 4);
});

test("nothing chosen gives no lines", () => {
  assert.deepEqual(ruleLines(qwen, [], "nvfp4"), { lines: [], left_out: [] });
});

test("glob characters in names are escaped", () => {
  const layers = placedOf(hostileView());
  const star = where(layers, (l) => l.name === "a*b[c]?.weight");
  assert.deepEqual(ruleLines(layers, star, "nvfp4").lines, ["a[*]b[[]c][?].weight = nvfp4"]);
});

test("names that no line can tell apart are left out", () => {
  const layer = { linear: true, block: -1, count: 0, list: "" };
  const twins = ["a@b", "a#b"].map((name) => ({ ...layer, name, row: name }));
  assert.deepEqual(ruleLines(twins, [0], "nvfp4"), { lines: [], left_out: [0] });
  assert.equal(ruleLines(twins, [0, 1], "nvfp4").lines.length, 1);
});

test("globs agree with the reference", () => {
  const rand = random(3);
  const alphabet = "ab.*?[]!-";
  const word = (length, letters) => Array.from({ length }, () => letters[Math.floor(rand() * letters.length)]).join("");
  for (let i = 0; i < 4000; i += 1) {
    const pattern = word(1 + Math.floor(rand() * 6), alphabet);
    const name = word(Math.floor(rand() * 5), "ab.-!]");
    assert.equal(globToRegExp(pattern).test(name), globMatches(pattern, name), `${pattern} on ${name}`);
  }
});

test("lines are parsed as the pack parses them", () => {
  assert.deepEqual(parseRuleLine(" blocks.*.ffn.2 @ first:2 = bf16 "), { pattern: "blocks.*.ffn.2", blocks: "first:2", format: "bf16", left: "blocks.*.ffn.2 @ first:2" });
  assert.equal(parseRuleLine("# a = b"), null);
  assert.equal(parseRuleLine("no format ="), null);
  assert.equal(parseRuleLine(""), null);
  assert.equal(parseRuleLine("a=b=nvfp4")?.pattern, "a=b");
});

test("the first line that matches decides", () => {
  const formats = formatsByRules("transformer_blocks.*.attn.to_q @ first:1 = bf16\n*to_q = nvfp4", qwen);
  const of = (name) => formats[qwen.findIndex((l) => l.name === name)];
  assert.equal(of("transformer_blocks.0.attn.to_q"), "bf16");
  assert.equal(of("transformer_blocks.1.attn.to_q"), "nvfp4");
  assert.equal(of("transformer_blocks.1.attn.to_k"), "");
});

test("new lines go first and replace lines with the same left side", () => {
  const text = "# mine\na.* = bf16\n\nb.*  @ 3-7=bf16\nc = keep\nnonsense";
  assert.equal(mergeRules(text, ["b.* @ 3-7 = nvfp4", "d = nvfp4"]), "b.* @ 3-7 = nvfp4\nd = nvfp4\n# mine\na.* = bf16\n\nc = keep\nnonsense");
  assert.equal(mergeRules("", ["a = bf16"]), "a = bf16");
  assert.equal(mergeRules("a = keep", ["a = bf16"]), "a = bf16");
});

test("merged text gives the chosen layers their format whatever stood there", () => {
  const rand = random(21);
  let text = "# start";
  for (const { chosen, format, lines, left_out: leftOut } of casesOf(VIEWS.qwen(), 30, 33).cases) {
    text = mergeRules(text, lines);
    const formats = formatsByRules(text, qwen);
    for (const i of chosen) if (!leftOut.includes(i)) assert.equal(formats[i], format);
    if (rand() < 0.2) text = "# start";
  }
});

test("lines may reach layers that already are what the line says", () => {
  const column = where(qwen, (l) => l.block === 3 && l.linear);
  const norms = othersOfWholeBlocks(qwen, new Set(column));
  assert.deepEqual(norms, where(qwen, (l) => l.block === 3 && !l.linear));
  const { lines } = ruleLines(qwen, column, "keep", undefined, norms);
  assert.deepEqual(lines, ["transformer_blocks.3.* = keep"]);
  const part = ruleLines(qwen, column, "keep", undefined, norms.slice(1)).lines;
  assert.ok(part.length > 1, part.join("; "));
});

test("a whole block with its norms is one line", () => {
  const column = where(qwen, (l) => l.block === 3 && l.linear);
  const all = [...column, ...othersOfWholeBlocks(qwen, new Set(column))];
  assert.deepEqual(ruleLines(qwen, all, "bf16").lines, ["transformer_blocks.3.* = bf16"]);
});

test("a block is whole if all its Linear layers are chosen", () => {
  const column = where(qwen, (l) => l.block === 3 && l.linear);
  assert.deepEqual(othersOfWholeBlocks(qwen, new Set(column.slice(1))), []);
  assert.deepEqual(othersOfWholeBlocks(qwen, new Set()), []);
});
