"""Views of every result: whole columns, finite numbers, small, and true to the result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.checkpoint import CheckpointSummary, LayerSummary
from nvfp4_foundry.quant.checkpoint.layer_record import LayerRecord
from nvfp4_foundry.quant.conversion.report import ConversionReport, LayerReport
from nvfp4_foundry.quant.derive import Budget, mix_plan, rival_mixes
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.planning import (
    Inventory,
    Plan,
    Recipe,
    get_preset,
    make_plan,
    parse_rule_lines,
)
from nvfp4_foundry.quant.planning.plan import stored_bytes, why_not
from nvfp4_foundry.quant.reports.view import (
    LayerView,
    Message,
    calibration_view,
    checkpoint_view,
    conversion_view,
    mix_view,
    plan_view,
    sensitivity_view,
    text_view,
)
from nvfp4_foundry.quant.reports.view.numbers import rounded, rounded_up
from nvfp4_foundry.quant.sensitivity.whole import WholeShift

from tests.helpers.made_up_calibration import made_up_calibration
from tests.helpers.made_up_models import inventory_from, random_costs, sensitivity_of

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "</script>",
    "\ud800",
)
MOST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def qwen(inventory_named: Callable[[str], Inventory]) -> Inventory:
    return inventory_named("qwen-image-2512")


@pytest.fixture(scope="module")
def qwen_plan(qwen: Inventory) -> Plan:
    return make_plan(get_preset("qwen-image-2512").build(), qwen)


def check_columns(data: dict[str, Any]) -> None:
    """Every column has a value per layer, every index is in range, every number has few digits."""
    layers = data["layers"]
    count = len(layers["name"])
    for name, column in layers.items():
        if isinstance(column, dict) and "at" in column:
            assert len(column["at"]) == count, name
            assert all(0 <= at < len(column["of"]) for at in column["at"]), name
    for name in ("container", "block"):
        assert len(layers[name]) == count
    assert all(-1 <= at < len(data["containers"]) for at in layers["container"])
    assert all(len(column) == count for column in layers["values"].values())
    for measure in data["measures"]:
        assert measure["id"] == "format" or measure["id"] in layers["values"]
    for by_measure in data.get("errors", {}).values():
        assert all(len(column) == count for column in by_measure.values())
    if "inputs" in data:
        assert len(data["inputs"]["of"]) == count
        assert all(-1 <= at < len(data["inputs"]["curves"]) for at in data["inputs"]["of"])
    if "edit" in data:
        edit = data["edit"]
        assert len(edit["size_of"]) == count and edit["keys"] == list(edit["sizes"])
        assert all(0 <= at < len(edit["keys"]) for at in edit["size_of"])
    check_numbers(data)


def check_numbers(data: Any) -> None:
    if isinstance(data, dict):
        for value in data.values():
            check_numbers(value)
    elif isinstance(data, list):
        for value in data:
            check_numbers(value)
    elif isinstance(data, float):
        assert math.isfinite(data)
        assert float(f"{data:.4e}") == data


def json_of(view: LayerView) -> dict[str, Any]:
    data = json.loads(view.dumps())
    assert data == view.to_json()
    assert data["version"] == 1
    check_columns(data)
    return data


def report_of(plan: Plan) -> ConversionReport:
    layers = tuple(
        LayerReport(
            la.name, la.kind, la.shape, la.format, la.reason, la.bytes_before, la.bytes_after,
            rounding="mse",
            rounding_reason=f"gptq: error {n / 7:.2f}% on 64 held-out tokens from other runs",
            weight_error=0.08123456 + n * 1e-5,
            output_error_w4a16=0.071234567 + n * 1e-5,
            output_error_w4a4=0.11234567 + n * 1e-5,
            max_rule_weight_error=0.09123456 + n * 1e-5,
            max_rule_output_error=0.08123456 + n * 1e-5,
            weight_norm=1.23456 + n,
            output_norm=12.3456 + n,
            activation_spread=1.23456 + n / 1000,
            input_scale=0.0123456789 + n * 1e-6,
            input_scale_reason=f"static: amax {n / 3:.4g} x 4",
            calls=80,
            activation_amax=12.3456789 + n,
        )
        if la.kind == "linear"
        else LayerReport(
            la.name, la.kind, la.shape, la.format, la.reason, la.bytes_before, la.bytes_after
        )
        for n, la in enumerate(plan.layers)
    )  # fmt: skip
    return ConversionReport(
        "qwen.safetensors", "qwen_nvfp4.safetensors", "mine", "Qwen", "gptq", layers,
        calibration="2 runs", warnings=("careful",), notes=("read so",),
    )  # fmt: skip


def summary_of(report: ConversionReport) -> CheckpointSummary:
    """Return what the header of the written file would tell."""
    names = [field.name for field in fields(LayerRecord)]
    layers = tuple(
        LayerSummary(
            la.name, la.kind, la.shape, la.format, la.bytes_after, la.input_scale,
            LayerRecord(**{name: getattr(la, name) for name in names}),
        )
        for la in report.layers
    )  # fmt: skip
    return CheckpointSummary("qwen_nvfp4.safetensors", "Qwen", layers, (), {}, {"tool": "t"})


def test_views_of_the_real_qwen_image_are_small(qwen: Inventory, qwen_plan: Plan) -> None:
    linears = [la.name for la in qwen.of_kind("linear")]
    assert len(linears) == 846
    statistics = made_up_calibration(qwen)
    sensitivity = sensitivity_of(qwen, random_costs(linears, 0))
    mix = mix_plan(qwen_plan, qwen, sensitivity, Budget(bits=5.0), points=4)
    report = report_of(qwen_plan)
    views = (
        plan_view(qwen_plan, inventory=qwen),
        checkpoint_view(summary_of(report)),
        calibration_view(statistics),
        conversion_view(report, statistics),
        sensitivity_view(sensitivity),
        mix_view(mix, sensitivity, inventory=qwen),
    )
    for view in views:
        data = json_of(view)
        size = len(view.dumps())
        assert size <= MOST_BYTES, f"{view.kind}: {size} bytes"
        assert data["containers"] == [{"name": "transformer_blocks", "count": 60}]
        at = data["layers"]["name"].index("transformer_blocks.59.attn.to_q")
        assert data["layers"]["block"][at] == 59
        assert data["layers"]["row"]["of"][data["layers"]["row"]["at"][at]] == "attn.to_q"
        outside = data["layers"]["name"].index("proj_out")
        assert (data["layers"]["container"][outside], data["layers"]["block"][outside]) == (-1, -1)


def test_sizes_to_edit_are_those_of_the_plan(qwen: Inventory, qwen_plan: Plan) -> None:
    edit = json_of(plan_view(qwen_plan, inventory=qwen, widget="my_rules"))["edit"]
    assert edit["widget"] == "my_rules" and edit["bits"]["nvfp4"] == 4.5
    for planned, at in zip(qwen_plan.layers, edit["size_of"], strict=True):
        sizes = edit["sizes"][edit["keys"][at]]
        assert sizes[planned.format] == rounded(planned.bytes_after), planned.name
        layer = qwen.layers[planned.name]
        for name, fmt in FORMATS.items():
            refused = why_not(layer, fmt, qwen_plan.architecture)
            expected = None if refused else rounded(stored_bytes(layer, fmt))
            assert sizes.get(name) == expected, (planned.name, name, refused)


def test_layers_whose_shape_is_read_have_sizes_of_their_own(
    qwen: Inventory, qwen_plan: Plan
) -> None:
    """ComfyUI reads the shape of one of these layers, so it cannot be packed."""
    read = [name for name in qwen_plan.architecture.shapes_read if name in qwen.layers]
    edit = json_of(plan_view(qwen_plan, inventory=qwen))["edit"]
    names = list(qwen.layers)
    assert read
    for name in read:
        assert "nvfp4" not in edit["sizes"][edit["keys"][edit["size_of"][names.index(name)]]]


def test_a_plan_shows_its_notes_and_warnings_apart() -> None:
    inventory = inventory_from({"blocks.0.a": (64, 64), "blocks.0.b": (60, 64)})
    recipe = Recipe(rules=parse_rule_lines("* = nvfp4"), name="mine")
    plan = make_plan(recipe, inventory)
    view = plan_view(plan, ("LoRA x",))
    assert view.messages[0] == Message("note", "LoRA x")
    assert [m.level for m in view.messages] == ["note", *["warning"] * len(plan.warnings)]
    assert plan.warnings and all(str(m) in view.text for m in view.messages)
    assert "edit" not in view.to_json()


def test_a_calibration_shows_what_was_not_observed() -> None:
    inventory = inventory_from({f"blocks.{n}.{x}": (64, 64) for n in range(2) for x in "ab"})
    statistics = made_up_calibration(inventory)
    del statistics.layers["blocks.1.b"]  # type: ignore[attr-defined]
    data = json_of(calibration_view(statistics))
    layers = data["layers"]
    at = layers["name"].index("blocks.1.b")
    assert layers["values"]["amax"][at] is None and layers["values"]["coverage"][at] == 0
    assert layers["reason"]["of"][layers["reason"]["at"][at]] == "never observed"
    assert data["inputs"]["of"][at] == -1
    assert "format" not in layers and data["measures"][0]["id"] == "amax"


def test_curves_have_the_largest_input_of_each_branch_at_each_sigma() -> None:
    inventory = inventory_from({"blocks.0.q": (64, 64), "blocks.0.k": (64, 64)})
    statistics = made_up_calibration(inventory)
    data = json_of(calibration_view(statistics))
    assert data["inputs"]["of"] == [0, 0]
    (curve,) = data["inputs"]["curves"]
    assert curve["sigma"] == sorted(curve["sigma"]) and set(curve) == {"sigma", "cond", "uncond"}
    layer = statistics.layers["blocks.0.q"]
    for code, branch in enumerate(("cond", "uncond")):
        largest = float(layer.call_amax[layer.branch == code].max())
        assert max(v for v in curve[branch] if v is not None) == rounded(largest)


def test_records_without_a_sigma_have_no_curve() -> None:
    inventory = inventory_from({"blocks.0.q": (64, 64)})
    statistics = made_up_calibration(inventory)
    statistics.layers["blocks.0.q"].sigma[:] = np.nan
    data = json_of(calibration_view(statistics))
    assert data["inputs"] == {"of": [-1], "curves": []}


def test_a_mix_has_its_frontier_and_budgets_in_reach() -> None:
    names = [f"blocks.{n}.{x}" for n in range(4) for x in "ab"]
    inventory = inventory_from(dict.fromkeys(names, (96, 96)))
    base = make_plan(Recipe(default="nvfp4", name="mine"), inventory)
    sensitivity = sensitivity_of(inventory, random_costs(names, 1))
    mix = mix_plan(base, inventory, sensitivity, Budget(bits=6.0))
    data = json_of(mix_view(mix, sensitivity, ("saved",), inventory=inventory))
    assert data["frontier"]["budget"] == {"kind": "bits", "value": 6}
    assert data["frontier"]["preset"]["name"] == "mine"
    assert {m["level"] for m in data["messages"]} == {"note", "warning"}
    for shown, point in zip(data["frontier"]["points"], mix.frontier, strict=True):
        again = mix_plan(base, inventory, sensitivity, Budget(size=shown["bytes"]), points=0)
        assert again.point.error <= point.error * (1 + 1e-9)
        by_error = Budget(error=shown["error"]) if shown["error"] else None
        if by_error:
            mix_plan(base, inventory, sensitivity, by_error, points=0)
    chosen = {la.name: la.format for la in mix.plan.layers}
    values, errors = data["layers"]["values"]["w4a4"], data["errors"]
    for at, name in enumerate(data["layers"]["name"]):
        if chosen[name] in errors:
            assert values[at] == errors[chosen[name]]["w4a4"][at]


@pytest.mark.parametrize("preset", [0.04, 0.02])
def test_a_mix_shows_the_mixes_that_were_sampled_whole(preset: float) -> None:
    names = [f"blocks.{n}.{x}" for n in range(4) for x in "ab"]
    inventory = inventory_from(dict.fromkeys(names, (96, 96)))
    rules = parse_rule_lines("*.a = nvfp4\n*.b = float8_e4m3fn")
    base = make_plan(Recipe(rules=rules, name="mine"), inventory)
    sensitivity = sensitivity_of(inventory, random_costs(names, 1))
    plain = mix_view(mix_plan(base, inventory, sensitivity), sensitivity)
    assert "sampled whole" not in [tile.label for tile in plain.tiles]
    assert json_of(plain)["frontier"]["sampled"] == []
    first, best, *_ = rival_mixes(base, inventory, sensitivity)
    shifts = [WholeShift(first, preset), WholeShift(best, 0.03)]
    shifts += [WholeShift(dict.fromkeys(names, "nvfp4"), math.inf)]
    mix = mix_plan(base, inventory, replace(sensitivity, whole=tuple(shifts)))
    data = json_of(mix_view(mix, sensitivity))
    (tile,) = (tile for tile in data["tiles"] if tile["label"] == "sampled whole")
    assert tile["value"] == f"{min(preset, 0.03):.2%}"
    assert tile["detail"] == f"preset {preset:.2%}; the least of {len(shifts)} mixes"
    assert tile.get("tone", "") == ("good" if preset > 0.03 else "")
    points = data["frontier"]["sampled"]
    assert [point["shift"] for point in points[:2]] == sorted([0.03, preset])
    assert [point["shift"] for point in points[2:]] == [None]  # JSON has no infinity
    assert [point["is_preset"] for point in points] == [preset < 0.03, preset > 0.03, False]
    assert points[0]["bytes"] == data["frontier"]["mix"]["bytes"]
    assert points[0]["error"] == data["frontier"]["mix"]["error"]


def test_a_text_has_messages_and_tiles() -> None:
    view = text_view("Verify", "fine", [Message("error", "broken")])
    assert json.loads(view.dumps())["messages"] == [{"level": "error", "text": "broken"}]
    assert "layers" not in view.to_json()


_NAMES = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=20)).map(str), unique=True
)
_NUMBERS = st.one_of(st.none(), st.floats(), st.integers(0, 10**15).map(float))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(_NAMES, st.data())
def test_any_names_and_numbers_survive(names: list[str], data: st.DataObject) -> None:
    draw = data.draw
    layers = tuple(
        LayerReport(
            name, "linear", (draw(st.integers(1, 99)), 64), "nvfp4", name, 10, 5,
            weight_error=draw(_NUMBERS), output_error_w4a4=draw(_NUMBERS),
            activation_amax=draw(_NUMBERS),
        )
        for name in names
    )  # fmt: skip
    report = ConversionReport("a", "b", "c", "d", "max", layers, warnings=tuple(names))
    shown = json_of(conversion_view(report))
    assert shown["layers"]["name"] == names
    assert [m["text"] for m in shown["messages"]] == names
    for la, value in zip(layers, shown["layers"]["values"].get("weight", []), strict=False):
        finite = la.weight_error is not None and math.isfinite(la.weight_error)
        assert (value is not None) == finite
        if finite and la.weight_error is not None and value is not None:
            assert value == pytest.approx(la.weight_error, rel=5e-5)
    summary = CheckpointSummary(
        "p",
        "a",
        tuple(LayerSummary(n, "linear", (1, 2), n, 4, math.nan) for n in names),
        (),
        {},
        {},
    )
    inspected = json_of(checkpoint_view(summary))
    assert inspected["layers"]["name"] == names
    assert inspected["layers"]["format"]["of"] == names


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=6e-5)
    if 0 <= value < 1e300:
        up = rounded_up(value)
        assert up >= value and up == pytest.approx(value, rel=1.01e-4, abs=1e-320)
