// The widget of formats: its value is text.

import assert from "node:assert/strict";
import test from "node:test";

import { namesIn, switched } from "../../web/comfy/format_choice.js";

const ALL = ["nvfp4", "float8_e4m3fn", "bf16"];

test("names come from text and from lists of older workflows", () => {
  assert.deepEqual(namesIn("nvfp4,  bf16 ,"), ["nvfp4", "bf16"]);
  assert.deepEqual(namesIn(["nvfp4", "bf16"]), ["nvfp4", "bf16"]);
  assert.deepEqual(namesIn(undefined), []);
});

test("a format is switched on in its place, and off", () => {
  assert.equal(switched(ALL, "bf16", "nvfp4"), "nvfp4, bf16");
  assert.equal(switched(ALL, "nvfp4, bf16", "bf16"), "nvfp4");
  assert.equal(switched(ALL, "nvfp4", "nvfp4"), "");
});

test("a format that this version does not know stays", () => {
  assert.equal(switched(ALL, "other, bf16", "nvfp4"), "nvfp4, bf16, other");
});
