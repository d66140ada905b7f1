import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { budgetOf, pointWithin } from "../../web/view/budget.js";
import { csvField, toCsv } from "../../web/view/csv.js";
import { errorRows } from "../../web/view/detail.js";
import { INVALID, pendingEdits, placedLayers, totalsAfter, UNDECIDED } from "../../web/view/edits.js";
import { fileStem, viewCsv } from "../../web/view/exports.js";
import { nameFilter } from "../../web/view/filter.js";
import { Layers } from "../../web/view/layers.js";
import { hitTest, layerBoxes, layersWithin, layoutMap, neighbour } from "../../web/view/map_layout.js";
import { ruleProblems } from "../../web/view/rule_problems.js";
import { textParts } from "../../web/view/text_tab.js";
import { byLevel, sentence } from "../../web/view/messages.js";
import { formatBytes, formatNumber, formatPercent, formatValue, trimZeros } from "../../web/view/numbers.js";
import { cieLightness } from "../../web/view/oklab.js";
import { formatColours, KNOWN_FORMATS, SEQUENTIAL } from "../../web/view/palette.js";
import { nameOf } from "../../web/view/sampled.js";
import { linearTicks, logTicks, numberScale } from "../../web/view/scales.js";
import { safeLines, safeText, shortenMiddle } from "../../web/view/safe_text.js";
import { ViewState } from "../../web/view/state.js";
import { sortLayers, tableColumns, worstLayers } from "../../web/view/table_rows.js";
import { currentTiles } from "../../web/view/tiles.js";
import { mixView, VIEWS } from "./fixtures/make_views.mjs";

const VIEW_FOLDER = new URL("../../web/view/", import.meta.url);

test("acting characters are escaped visibly", () => {
  assert.equal(safeText("\u001b[31mred"), "\\x1b[31mred");
  assert.equal(safeText("a\u202eb\u2066c\u200fd"), "a\\u202eb\\u2066c\\u200fd");
  assert.equal(safeText("\u{e0041}"), "\\u{e0041}");
  assert.equal(safeText("a\nb"), "a\\x0ab");
  assert.equal(safeLines("a\r\nb\tc\u0007"), "a\nb\tc\\x07");
  assert.equal(safeText("\ud800"), "\\ud800");
  assert.equal(safeText("ünïcödé 漢字 <b>"), "ünïcödé 漢字 <b>");
  assert.equal(safeText(null), "");
});

test("names are shortened in the middle", () => {
  assert.equal(shortenMiddle("attn.to_q", 9), "attn.to_q");
  const short = shortenMiddle("time_text_embed.timestep_embedder.linear_1", 16);
  assert.equal(Array.from(short).length, 16);
  assert.ok(short.startsWith("time") && short.endsWith("linear_1"));
});

test("the sequential palette is evenly light to dark", () => {
  const lightness = SEQUENTIAL.map(cieLightness);
  const steps = lightness.slice(1).map((value, i) => lightness[i] - value);
  const mean = steps.reduce((sum, step) => sum + step, 0) / steps.length;
  for (const step of steps) assert.ok(Math.abs(step - mean) < 0.15 * mean, `step of ${step}`);
  assert.ok(lightness[0] > 90 && lightness[lightness.length - 1] < 30);
});

test("colours of formats differ in lightness and letter", () => {
  const colours = [...formatColours(KNOWN_FORMATS).values()];
  const lightness = colours.map(({ rgb }) => cieLightness(rgb)).sort((a, b) => a - b);
  for (let i = 1; i < lightness.length; i += 1) assert.ok(lightness[i] - lightness[i - 1] > 3);
  assert.equal(new Set(colours.map(({ letter }) => letter)).size, colours.length);
});

test("formats that usually meet are far apart in lightness", () => {
  const usual = ["nvfp4", "nvfp4_w4a16", "keep", "float8_e4m3fn", "bf16"];
  const lightness = usual.map((name) => cieLightness(formatColours([name]).get(name).rgb));
  for (let i = 1; i < lightness.length; i += 1) assert.ok(lightness[i] - lightness[i - 1] > 8);
});

test("unknown formats get a colour of their own", () => {
  const colours = formatColours([...KNOWN_FORMATS, "new_a", "new_b"]);
  assert.notEqual(colours.get("new_a").colour, colours.get("new_b").colour);
  const letters = [...colours.values()].map(({ letter }) => letter);
  assert.equal(new Set(letters).size, letters.length);
});

test("letters can be read on their colours", () => {
  for (const { rgb, ink, name } of formatColours(KNOWN_FORMATS).values()) {
    const contrast = Math.abs(cieLightness(rgb) - (ink === "#111" ? 5 : 100));
    assert.ok(contrast > 40, `${name}: ${contrast}`);
  }
});

const measure = (scale, unit = "%") => ({ id: "m", label: "m", unit, scale, help: "" });

test("scales", () => {
  const log = numberScale(measure("log"), [0.001, null, 0.01, 0.1, 0]);
  assert.equal(log.share(0.001), 0);
  assert.equal(log.share(0.1), 1);
  assert.ok(Math.abs(log.share(0.01) - 0.5) < 1e-12);
  assert.equal(log.share(0), 0);
  const linear = numberScale(measure("linear"), [0.2, 1]);
  assert.equal(linear.low, 0);
  assert.equal(linear.share(0.5), 0.5);
  assert.equal(numberScale(measure("log"), [null, null]), null);
  assert.equal(numberScale(measure("log"), [3, 3]).share(3), 0.5);
  assert.equal(numberScale(measure("log"), [0, 0]).kind, "linear");
  for (const { ticks } of [log, linear]) {
    assert.deepEqual([ticks[0].share, ticks[ticks.length - 1].share], [0, 1]);
    for (let i = 1; i < ticks.length; i += 1) assert.ok(ticks[i].share - ticks[i - 1].share >= 0.17);
  }
});

test("ticks are round numbers within the range", () => {
  assert.deepEqual(logTicks(0.001, 1), [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1]);
  assert.deepEqual(linearTicks(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]);
});

test("numbers", () => {
  assert.equal(formatPercent(0.0812), "8.12%");
  assert.equal(formatPercent(0.1), "10%");
  assert.equal(formatPercent(1), "100%");
  assert.equal(formatPercent(0), "0%");
  assert.equal(formatPercent(0.00001), "1.0e-3%");
  assert.equal(formatBytes(999), "999 B");
  assert.equal(formatBytes(12_345_678_900), "12.35 GB");
  assert.equal(formatBytes(999_960), "1.0 MB");
  assert.equal(formatNumber(0.00012345), "1.234e-4");
  assert.equal(formatNumber(1234567), "1.235e6");
  assert.equal(formatNumber(3.14159), "3.142");
  assert.equal(formatNumber(0), "0");
  assert.equal(formatValue(null, "%"), "–");
  assert.equal(trimZeros("5.00%"), "5%");
  assert.equal(trimZeros("7.50 GB"), "7.5 GB");
  assert.equal(trimZeros("100%"), "100%");
});

test("CSV is quoted, and no field is a formula", () => {
  assert.equal(csvField('a"b,c'), '"a""b,c"');
  assert.equal(csvField("=1+1"), "'=1+1");
  assert.equal(csvField("@SUM(A1)"), "'@SUM(A1)");
  assert.equal(csvField("-2+3"), "'-2+3");
  assert.equal(csvField("-2"), "-2");
  assert.equal(csvField(-0.5), "-0.5");
  assert.equal(csvField(null), "");
  assert.equal(toCsv(["a", "b"], [["x", 1]]), "a,b\r\nx,1\r\n");
});

test("the CSV of a view has every layer", () => {
  const csv = viewCsv(new ViewState(VIEWS.hostile(), {}));
  const lines = csv.trimEnd().split("\r\n");
  assert.equal(lines.length, 1 + VIEWS.hostile().layers.name.length);
  assert.ok(lines.some((line) => line.startsWith("'=cmd|")));
  assert.ok(!/[\u001b\u202e]/.test(csv));
});

test("file names hold nothing but letters, digits and marks", () => {
  assert.equal(fileStem("../../etc/<passwd>"), "etc_passwd");
  assert.equal(fileStem("..."), "nvfp4");
  assert.equal(fileStem("Plan: qwen_image"), "Plan_qwen_image");
});

test("filters by part of a name or glob", () => {
  assert.ok(nameFilter("TO_Q")("blocks.1.attn.to_q"));
  assert.ok(nameFilter("blocks.*.to_?")("blocks.1.attn.to_q"));
  assert.ok(!nameFilter("blocks.*.to_")("blocks.1.attn.to_q"));
  assert.ok(nameFilter("a[0]")("data[0]"));
  assert.ok(nameFilter("")("anything"));
});

test("sorting keeps unknown values last and equal ones in order", () => {
  const keys = [3, null, 1, 3, 2];
  const column = { key: (i) => keys[i] };
  assert.deepEqual(sortLayers([0, 1, 2, 3, 4], column, false), [2, 4, 0, 3, 1]);
  assert.deepEqual(sortLayers([0, 1, 2, 3, 4], column, true), [0, 3, 4, 2, 1]);
  const names = ["blocks.10", "blocks.9", "blocks.1"];
  assert.deepEqual(sortLayers([0, 1, 2], { key: (i) => names[i] }, false), [2, 1, 0]);
});

test("the worst layers are those with the highest values", () => {
  const values = [0.1, null, 0.3, 0.2];
  assert.deepEqual(worstLayers([0, 1, 2, 3], (i) => values[i], 2), [2, 3]);
});

test("columns of the table hold what the view knows", () => {
  const ids = (view) => tableColumns(new ViewState(view, {})).map(({ id }) => id);
  assert.ok(ids(VIEWS.qwen()).includes("format"));
  assert.ok(!ids(VIEWS.calibration()).includes("format"));
});

test("a map of 60 blocks fits into 560 pixels with cells of at least 6", () => {
  const layers = new Layers(VIEWS.qwen());
  const layout = layoutMap(layers, layers.shown(true), 540);
  assert.equal(layout.width, 540);
  assert.equal(layout.sections[0].rows.length, 14);
  assert.ok(layout.sections[0].cellWidth >= 6);
  assert.equal(layerBoxes(layout).size, 846);
});

test("every shown layer has one place, and a click there finds it", () => {
  for (const make of [VIEWS.qwen, VIEWS.flux, VIEWS.wan, VIEWS.hostile]) {
    const layers = new Layers(make());
    const layout = layoutMap(layers, layers.shown(false), 540);
    const boxes = layerBoxes(layout);
    assert.equal(boxes.size, layers.count);
    for (const [layer, box] of boxes) {
      assert.equal(hitTest(layout, box.x + box.width / 2, box.y + box.height / 2)?.layer, layer);
    }
  }
});

test("row labels stay where they are while the map scrolls", () => {
  const layers = new Layers(VIEWS.qwen());
  const layout = layoutMap(layers, layers.shown(true), 300);
  const { y } = layout.sections[0];
  assert.equal(hitTest(layout, 205, y + 2, 200)?.part, "row");
});

test("arrow keys reach every layer of a map", () => {
  const layers = new Layers(VIEWS.flux());
  const layout = layoutMap(layers, layers.shown(true), 540);
  const seen = new Set([layers.shown(true)[0]]);
  const open = [...seen];
  while (open.length > 0) {
    const layer = open.pop();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      const next = neighbour(layout, layer, dx, dy);
      if (!seen.has(next)) open.push(next);
      seen.add(next);
    }
  }
  assert.equal(seen.size, layers.shown(true).length);
});

test("a rectangle selects the cells that it touches", () => {
  const layers = new Layers(VIEWS.qwen());
  const layout = layoutMap(layers, layers.shown(true), 540);
  const { x, y, cellWidth, cellHeight } = layout.sections[0];
  const found = layersWithin(layout, { x: x + 1, y: y + 1 }, { x: x + 2.5 * cellWidth, y: y + 1.5 * cellHeight });
  assert.equal(found.length, 6);
});

test("edits in the widget are pending until the view contains them", () => {
  const view = VIEWS.qwen();
  const layers = new Layers(view);
  const placed = placedLayers(layers);
  const rule = "transformer_blocks.*.attn.to_q = bf16";
  const pending = pendingEdits(view, layers, placed, rule);
  assert.equal(pending.size, 60);
  assert.ok([...pending.values()].every((format) => format === "bf16"));
  view.edit.rules = rule;
  assert.equal(pendingEdits(view, layers, placed, rule).size, 0);
  const removed = pendingEdits(view, layers, placed, "");
  assert.equal(removed.size, 60);
  assert.ok([...removed.values()].every((format) => format === UNDECIDED));
});

test("a format that cannot store a layer leaves it as it is", () => {
  const view = VIEWS.qwen();
  const layers = new Layers(view);
  const key = view.edit.keys[view.edit.size_of[layers.names.indexOf("img_in")]];
  delete view.edit.sizes[key].nvfp4;
  assert.equal(pendingEdits(view, layers, placedLayers(layers), "img_in = nvfp4").size, 0);
});

test("size and bits follow the edits", () => {
  const view = VIEWS.qwen();
  const state = new ViewState(view, { onRules: () => {}, rules: () => "transformer_blocks.0.attn.to_q = bf16" });
  const total = totalsAfter(view, state.layers, state.pending);
  assert.equal(total.bytes - total.bytesBefore, 2 * 3072 ** 2 - (3072 ** 2 / 2 + 3072 ** 2 / 16 + 4));
  assert.ok(total.bits > total.bitsBefore);
  const tiles = currentTiles(state).filter(({ edited }) => edited);
  assert.deepEqual(tiles.map(({ label }) => label), ["size after edits", "bits per weight after edits", "Linear layers after edits"]);
  assert.equal(currentTiles(state).length, view.tiles.length);
});

test("messages come by level", () => {
  const levels = byLevel([{ level: "note", text: "" }, { level: "error", text: "" }, { level: "warning", text: "" }]);
  assert.deepEqual(levels.map(({ level }) => level), ["error", "warning", "note"]);
});

test("errors by format list what was measured", () => {
  const { kinds, rows } = errorRows({ nvfp4: { w4a4: [0.1, null] }, bf16: { w4a4: [null, null] } }, 0);
  assert.deepEqual(kinds, ["w4a4"]);
  assert.deepEqual(rows, [{ format: "nvfp4", values: [0.1] }]);
});

test("the budget of a point chooses that point", () => {
  const points = mixView().frontier.points;
  for (const kind of ["size", "bits", "error"]) {
    points.forEach((point, i) => assert.equal(pointWithin(points, { kind, value: budgetOf(point, kind) }), i));
  }
  assert.equal(pointWithin(points, { kind: "size", value: 0.1 }), 0);
});

test("a mix that was sampled whole is named by what it is and by its formats", () => {
  const counts = { nvfp4: 3, bf16: 1 };
  assert.equal(nameOf({ counts, is_preset: false }, false, "wan2.2"), "3 nvfp4, 1 bf16");
  assert.equal(nameOf({ counts, is_preset: true }, false, "wan2.2"), "preset wan2.2 · 3 nvfp4, 1 bf16");
  assert.equal(nameOf({ counts, is_preset: true }, true, "x"), "this mix · preset x · 3 nvfp4, 1 bf16");
});

test("the view of all layers of Qwen-Image is below 1 MB", () => {
  const view = VIEWS.qwen();
  assert.equal(view.layers.kind.at.filter((at) => view.layers.kind.of[at] === "linear").length, 846);
  assert.ok(JSON.stringify(view).length < 1e6);
});

test("no module writes HTML, evaluates text or loads anything", () => {
  for (const name of readdirSync(VIEW_FOLDER)) {
    const source = readFileSync(new URL(name, VIEW_FOLDER), "utf8").replace(/\/\*\*.*?\*\//gs, "");
    assert.doesNotMatch(source, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bfetch\(|XMLHttpRequest|\bimport\(/, name);
  }
});

test("modules import by literal relative paths, one per statement", () => {
  for (const name of readdirSync(VIEW_FOLDER)) {
    const source = readFileSync(new URL(name, VIEW_FOLDER), "utf8");
    for (const [line] of source.matchAll(/^import .*$/gm)) assert.match(line, /^import .* from "\.{1,2}\/[\w./]+\.js";$/, name);
  }
});

test("modules can be imported without a document", async () => {
  assert.equal(typeof document, "undefined");
  for (const name of readdirSync(VIEW_FOLDER)) await import(new URL(name, VIEW_FOLDER).href);
});

test("a rule with a format that there is not is a problem, not a format", () => {
  const view = VIEWS.qwen();
  const text = "transformer_blocks.3.attn.to_q = fp9\ntransformer_blocks.4.attn.to_q = bf16";
  const state = new ViewState(view, { rules: () => text, onRules: () => {} });
  const at = (name) => state.layers.names.indexOf(name);
  assert.equal(state.pending.get(at("transformer_blocks.3.attn.to_q")), INVALID);
  assert.equal(state.pending.get(at("transformer_blocks.4.attn.to_q")), "bf16");
  assert.ok(!state.colours.has(INVALID) && !state.colours.has("fp9"));
  assert.equal(state.problems.length, 1);
  assert.match(state.problems[0], /^line 1 of the rules, .*there is no format fp9; the formats are nvfp4/);
  const only = new ViewState(view, { rules: () => text.split("\n")[0], onRules: () => {} });
  const { bytes, bytesBefore } = totalsAfter(view, only.layers, only.pending);
  assert.equal(bytes, bytesBefore);
  view.edit.rules = text;
  assert.deepEqual(new ViewState(view, { rules: () => text }).problems, []);
});

test("each wrong rule line is told with its number", () => {
  const layers = placedLayers(new Layers(VIEWS.qwen()));
  const found = (text) => ruleProblems(text, layers, ["nvfp4", "bf16", "keep"], ["bf16", "keep"]);
  assert.deepEqual(found("# note\n\n*.to_q = nvfp4\n*.to_q @ first:2 = bf16\nre:(?i).* = keep"), []);
  assert.match(found("\nattn")[0], /^line 2 .*pattern = format/);
  assert.match(found("* @ 5-2 = bf16")[0], /5-2 names no blocks/);
  assert.match(found("* @ middle = bf16")[0], /middle names no blocks/);
  assert.match(found("blocks.*.q = bf16")[0], /matches no layer of this model/);
  assert.match(found("*.norm_q = nvfp4")[0], /matches no layer that nvfp4 is for/);
  assert.match(found("*.to_q @ 99 = nvfp4")[0], /in these blocks/);
});

test("only parts of a report with a line of dashes keep their columns", () => {
  const text = "model  a\nnote: long\n\nlayer  format\n-------------\nq      nvfp4\n\n\n  indented - words\n";
  assert.deepEqual(textParts(text), [
    { table: false, lines: "model  a\nnote: long" },
    { table: true, lines: "layer  format\n-------------\nq      nvfp4" },
    { table: false, lines: "  indented - words" },
  ]);
  assert.deepEqual(textParts(""), []);
});

test("messages are sentences, names in front stay as they are", () => {
  assert.equal(sentence("the sensitivity was not probed"), "The sensitivity was not probed");
  assert.equal(sentence("transformer_blocks.0.attn is kept"), "transformer_blocks.0.attn is kept");
  assert.equal(sentence("nvfp4 needs Blackwell"), "nvfp4 needs Blackwell");
});

test("the budget of a small file keeps its digits", () => {
  const point = { bytes: 6_085_000, bits: 6.8231, error: 0.0261, counts: {} };
  assert.equal(budgetOf(point, "size"), 0.006085);
  assert.equal(budgetOf({ ...point, bytes: 12_834_567_890 }, "size"), 12.835);
  const [small, large] = [point, { ...point, bytes: 6_900_000 }];
  assert.equal(pointWithin([small, large], { kind: "size", value: budgetOf(small, "size") }), 0);
});
