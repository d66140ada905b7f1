// The parts of the page side that need no page: hashes of inputs, migrations, words for problems.
import assert from "node:assert/strict";
import { test } from "node:test";

import { valuesByName, valuesOfNow, migrateWorkflow } from "../../web/comfy/migrations.js";
import { Problems } from "../../web/comfy/problems.js";
import { hashInputs, inputsChanged, upstream } from "../../web/comfy/staleness.js";
import { problemsOf } from "../../web/comfy/validation.js";

/** @returns {import("../../web/comfy/types.js").Prompt} */
const prompt = (seed = 1, file = "a") => ({
  1: { class_type: "Load", inputs: { file } },
  2: { class_type: "Sample", inputs: { seed, model: ["1", 0] } },
  "3:4": { class_type: "Plan", inputs: { latent: ["2", 0], rules: "", pair: [1, 2, 3] } },
  9: { class_type: "Other", inputs: { model: ["1", 0] } },
});

test("a hash depends on everything upstream and on nothing else", () => {
  const base = hashInputs(prompt(), "3:4");
  assert.equal(hashInputs(prompt(), "3:4"), base);
  assert.notEqual(hashInputs(prompt(1, "b"), "3:4"), base);
  assert.notEqual(hashInputs(prompt(2), "3:4"), base);
  const other = prompt();
  other[9].inputs.more = 1;
  assert.equal(hashInputs(other, "3:4"), base);
  const slot = prompt();
  slot["3:4"].inputs.latent = ["2", 1];
  assert.notEqual(hashInputs(slot, "3:4"), base);
  assert.equal(hashInputs(prompt(), "7"), null);
});

test("a list that the page wraps is the list that the server keeps", () => {
  const wrapped = prompt();
  wrapped["3:4"].inputs.pair = { __value__: [1, 2, 3] };
  assert.equal(hashInputs(wrapped, "3:4"), hashInputs(prompt(), "3:4"));
  wrapped["3:4"].inputs.pair = { __value__: [1, 2] };
  assert.notEqual(hashInputs(wrapped, "3:4"), hashInputs(prompt(), "3:4"));
});

test("a hash does not depend on ids, and inputs can be left out", () => {
  const copy = { 21: prompt()[1], 22: prompt()[2], 23: prompt()["3:4"] };
  copy[22].inputs.model = ["21", 0];
  copy[23].inputs.latent = ["22", 0];
  assert.equal(hashInputs(copy, "23"), hashInputs(prompt(), "3:4"));
  const seedless = (/** @type {number} */ seed) =>
    hashInputs(prompt(seed), "3:4", (_, name) => name === "seed");
  assert.equal(seedless(1), seedless(2));
});

test("a seed that changes by itself makes nothing stale, one that is fixed does", () => {
  const g = /** @type {any} */ (globalThis);
  const seed = ["INT", { control_after_generate: true }];
  g.LiteGraph = { registered_node_types: { Sample: { nodeData: { input: { required: { seed } } } } } };
  const control = { name: "control_after_generate", value: "randomize" };
  const widgets = [{ name: "seed", linkedWidgets: [control] }];
  const app = { rootGraph: { getNodeById: () => ({ widgets }) } };
  const without = hashInputs(prompt(), "3:4", (_, name) => name === "seed");
  const record = {
    id: "r", at: "", of: "3:4", inputs: hashInputs(prompt(), "3:4"), seedless: without,
  };
  // node 2 is in the root graph; "3:4" would need a subgraph
  app.rootGraph.getNodeById = () => ({ widgets, subgraph: app.rootGraph });
  assert.equal(inputsChanged(app, record, prompt(2), "3:4"), false);
  assert.equal(inputsChanged(app, record, prompt(1, "b"), "3:4"), true);
  control.value = "fixed";
  assert.equal(inputsChanged(app, record, prompt(2), "3:4"), true);
  assert.equal(inputsChanged(app, record, prompt(1), "3:4"), false);
  delete g.LiteGraph;
});

test("upstream lists the nearest nodes first", () => {
  assert.deepEqual(upstream(prompt(), "3:4"), ["3:4", "2", "1"]);
  assert.deepEqual(upstream(prompt(), "none"), []);
});

const mix = {
  id: "New",
  widgets: [{ name: "budget", options: { size: ["budget.gigabytes"], own: [] } }, "save_as", "allow_a", "allow_b"],
  inputs: { save_as: "name" },
  values: { extra: 1 },
  switches: { prefix: "allow_", input: "formats", on: ["a", "c"] },
  unless: "formats",
};

test("values that were saved by position get their names of now", () => {
  const sized = valuesByName(mix, { widgets_values: ["size", 4, "x", false, true] });
  assert.deepEqual(sized, { budget: "size", "budget.gigabytes": 4, save_as: "x", allow_a: false, allow_b: true });
  const own = valuesByName(mix, { widgets_values: ["own", "x", true] });
  assert.deepEqual(own, { budget: "own", save_as: "x", allow_a: true });
  assert.deepEqual(valuesOfNow(mix, sized), {
    extra: 1, budget: "size", "budget.gigabytes": 4, name: "x", formats: "c, b",
  });
});

test("workflows are migrated once, with links and subgraphs", () => {
  const old = () => ({
    id: 5, type: "Old", widgets_values: ["own", "x"],
    inputs: [{ name: "clip", link: 3 }, { name: "save_as", link: null, widget: { name: "save_as" } }],
    outputs: [{ name: "a", links: [1] }, { name: "b", links: [2] }],
  });
  const migration = { ...mix, inputs: { clip: "model" } };
  const graph = {
    nodes: [old()],
    links: [[1, 5, 0, 6, 0, "A"], [2, 5, 1, 6, 1, "B"], [3, 4, 0, 5, 0, "CLIP"]],
    definitions: { subgraphs: [{ nodes: [old()], links: [{ origin_id: 5, origin_slot: 0 }] }] },
  };
  assert.deepEqual(migrateWorkflow(graph, { Old: migration }), ["Old", "Old"]);
  const [node] = /** @type {any[]} */ (graph.nodes);
  assert.equal(node.type, "New");
  assert.deepEqual(node.inputs.map((/** @type {any} */ i) => i.name), ["model"]);
  assert.deepEqual(node.outputs.map((/** @type {any} */ o) => o.name), ["a", "b"]);
  assert.deepEqual(graph.links.map((link) => link[2]), [0, 1, 0]);
  assert.equal(graph.definitions.subgraphs[0].nodes[0].type, "New");
  const isNew = { nodes: [{ type: "New", inputs: [{ name: "formats" }] }] };
  assert.deepEqual(migrateWorkflow(isNew, { New: mix }), []);
});

test("widgets that a subgraph shows outside keep their nodes' names", () => {
  const migration = { ...mix, inputs: { name: "source.name" } };
  const outer = { id: 9, type: "sub", properties: { proxyWidgets: [["5", "name"], ["5", "other"], ["6", "name"]] } };
  const graph = {
    nodes: [outer],
    definitions: { subgraphs: [{ id: "sub", nodes: [{ id: 5, type: "Old" }, { id: 6, type: "Else" }] }] },
  };
  migrateWorkflow(graph, { Old: migration });
  assert.deepEqual(outer.properties.proxyWidgets, [["5", "source.name"], ["5", "other"], ["6", "name"]]);
});

test("one problem is kept once, with its remedy", () => {
  const problems = new Problems();
  problems.add("w", "1", { message: "ValueError: no file" });
  problems.add("w", "1", { message: "no file", remedy: { label: "x", node: "", widget: "w", value: 1 } });
  problems.add("w", "1", { message: "another" });
  assert.equal(problems.get("w", "1").length, 2);
  assert.equal(problems.get("w", "1")[0].remedy?.label, "x");
  assert.equal(problems.clear("w", "1"), true);
  assert.equal(problems.clear("w", "1"), false);
});

test("validation errors in words, with the default as a remedy", () => {
  const error = (/** @type {any} */ config) => ({
    errors: [{
      type: "value_not_in_list", message: "Value not in list",
      extra_info: { input_name: "preset", input_config: config, received_value: "x" },
    }],
  });
  const [problem] = problemsOf(error(["COMBO", { options: ["a", "b"], default: "b" }]));
  assert.match(problem.message, /preset: “x” is not in the list/);
  assert.equal(problem.remedy?.value, "b");
  assert.equal(problemsOf(error([["a", "b"], {}]))[0].remedy, null);
  const [said] = problemsOf({
    errors: [{ type: "custom_validation_failed", message: "m", details: "rules - no such - format" }],
  });
  assert.equal(said.message, "no such - format");
});
