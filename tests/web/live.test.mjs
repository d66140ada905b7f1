// What the live panel shows for the events of a calibration and a probe. Run: node --test tests/web

import assert from "node:assert/strict";
import { test } from "node:test";

import { describeLive, duration, mountLive } from "../../web/live.js";

const CALIBRATION = {
  node: "6", kind: "calibration", name: "tiny", state: "sampling", prompt: "digit 4",
  prompts_done: 1, prompts: 3, steps_done: 2, steps: 4, layers_seen: 46, layers: 46,
};
const PROBE = {
  node: "17", kind: "probe", state: "probing", unit: 13, units: 62, format: "nvfp4",
  name: "blocks.0.self_attn.q", steps: 2, known: 0, seconds_left: null,
};

test("a calibration shows prompts, steps and layers", () => {
  const { title, rows, lines } = describeLive(CALIBRATION);
  assert.equal(title, "Calibration tiny: sampling");
  assert.deepEqual(rows.map((row) => [row.label, row.done, row.total]), [
    ["prompts", 1, 3], ["steps", 2, 4], ["layers seen", 46, 46],
  ]);
  assert.deepEqual(lines, ["digit 4"]);
});

test("without a list of prompts there is no row for them", () => {
  const { rows, lines } = describeLive({ ...CALIBRATION, prompts: 0, prompt: "" });
  assert.deepEqual(rows.map((row) => row.label), ["steps", "layers seen"]);
  assert.deepEqual(lines, []);
});

test("what the runs changed, and what is left out, is said in words", () => {
  const more = { runs: 2, growing: 1, left_out: 1, verdict: "sample more", state: "interrupted" };
  const { title, lines } = describeLive({ ...CALIBRATION, ...more });
  assert.equal(title, "Calibration tiny: interrupted");
  assert.deepEqual(lines.slice(1), [
    "1 layer still growing after 2 runs", "sample more", "1 interrupted run left out",
  ]);
});

test("a probe shows the unit that runs and the time left once it is known", () => {
  const early = describeLive(PROBE);
  assert.deepEqual(early.rows, [{ label: "units", done: 12, total: 62 }]);
  assert.deepEqual(early.lines, ["blocks.0.self_attn.q in nvfp4"]);
  const late = describeLive({ ...PROBE, seconds_left: 80, known: 12 });
  assert.deepEqual(late.lines.slice(1), ["1 min 20 s left", "12 units known from before"]);
  assert.equal(describeLive({ ...PROBE, state: "done", unit: 62 }).rows[0].done, 62);
  assert.match(describeLive({ ...PROBE, state: "interrupted" }).lines[0], /queue it again/);
});

test("a probe that ends early says what it estimated", () => {
  const running = describeLive({ ...PROBE, at_most: true, seconds_left: 80 });
  assert.equal(running.lines[1], "at most 1 min 20 s left");
  const { rows, lines } = describeLive({ ...PROBE, at_most: true, unit: 17, state: "done" });
  assert.deepEqual(rows, [{ label: "units", done: 17, total: 62 }]);
  assert.deepEqual(lines, ["45 units estimated"]);
});

test("durations read like those of the server", () => {
  assert.deepEqual([0.2, 59.6, 3599, 7530].map(duration), [
    "0 s", "1 min 0 s", "59 min 59 s", "2 h 6 min",
  ]);
});

/** A document with just what the panel needs; setting innerHTML would throw. */
class Element {
  style = { cssText: "" };
  children = [];
  attributes = {};
  hidden = false;
  textContent = "";
  constructor(owner) { this.ownerDocument = owner; }
  set innerHTML(_) { throw new Error("text must not become markup"); }
  append(...items) { this.children.push(...items); }
  replaceChildren(...items) { this.children = items; }
  setAttribute(name, value) { this.attributes[name] = value; }
}

test("a hostile name is text, and clear empties the panel", () => {
  const owner = { createElement: () => new Element(owner) };
  const host = new Element(owner);
  const panel = mountLive(host);
  const [shown] = host.children;
  assert.equal(shown.hidden, true);
  panel.update({ ...PROBE, name: "<img onerror=alert(1)>" });
  assert.equal(shown.hidden, false);
  assert.equal(shown.children.at(-1).textContent, "<img onerror=alert(1)> in nvfp4");
  panel.clear();
  assert.deepEqual([shown.hidden, shown.children], [true, []]);
});
