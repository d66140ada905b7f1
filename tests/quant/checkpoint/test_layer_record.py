"""Records of layers in the header: what is written is read back, whatever else a header holds."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.checkpoint.layer_record import LayerRecord, read_records, write_records
from nvfp4_foundry.quant.conversion.convert import convert, quantize_to_memory
from nvfp4_foundry.quant.conversion.header_metadata import header_metadata, reserved_length
from nvfp4_foundry.quant.conversion.job import prepare_job
from nvfp4_foundry.quant.planning import Inventory, get_preset, make_plan
from nvfp4_foundry.quant.reports.view import checkpoint_view, conversion_view
from nvfp4_foundry.quant.sources import StateDictSource
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import Toy, metadata_of, plan_of

_TEXT = st.text(max_size=30)
_NUMBER = st.one_of(st.none(), st.floats(0, 1e6))
_RECORD = st.builds(
    LayerRecord, reason=_TEXT, rounding=_TEXT, rounding_reason=_TEXT, bias=_TEXT,
    input_scale_reason=_TEXT, weight_error=_NUMBER, output_error_w4a4=_NUMBER,
    activation_amax=_NUMBER, calls=st.integers(0, 10**9),
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=20), _RECORD, max_size=8))
def test_what_is_written_is_read_back(records: dict[str, LayerRecord]) -> None:
    columns = json.loads(json.dumps(write_records(records), allow_nan=False))
    found = read_records({"layers": columns})
    assert list(found) == list(records)
    for name, record in records.items():
        for field, value in asdict(record).items():
            shown = getattr(found[name], field)
            assert shown == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    "damaged",
    [
        {"layers": 3},
        {"layers": {"name": "a"}},
        {"layers": {"name": ["a", 3], "weight_error": [0.1]}},
        {"layers": {"name": ["a"], "weight_error": ["x"], "reason": {"of": [1], "at": [0]}}},
        {"layers": {"name": ["a"], "reason": {"of": ["x"], "at": [7]}, "calls": [None]}},
        {"layers": {"name": ["a"], "reason": {"of": ["x"], "at": [-1]}, "rounding": []}},
        {"errors": [1]},
        {"errors": {"a": "much"}},
        {"layers": {"name": ["a"], "weight_error": [math.inf], "calls": [True]}},
    ],
)
def test_a_damaged_header_gives_no_values(damaged: dict[str, Any]) -> None:
    assert all(record == LayerRecord() for record in read_records(damaged).values())


def test_files_of_before_have_the_errors_of_their_weights() -> None:
    assert read_records({"errors": {"a": 0.5}}) == {"a": LayerRecord(weight_error=0.5)}


def test_inspection_shows_what_the_conversion_showed(tmp_path: Path, toy_wan: Toy) -> None:
    target = tmp_path / "out.safetensors"
    source = StateDictSource(toy_wan())
    report = convert(source, plan_of(source, rounding="mse"), target)
    summary = inspect_checkpoint(target)
    by_name = {la.name: la for la in report.layers}
    assert len(by_name) == len(summary.layers)
    for la in summary.layers:
        written = by_name[la.name]
        assert la.record is not None
        for field, value in asdict(la.record).items():
            expected = getattr(written, field)
            expected = pytest.approx(expected, rel=1e-3) if isinstance(value, float) else expected
            assert value == expected, (la.name, field)
    ours, theirs = summary.overall_error(), report.overall_error()
    assert ours is not None and theirs is not None
    assert ours.error == pytest.approx(theirs.error, rel=1e-3)
    assert ours.max_rule == pytest.approx(theirs.max_rule, rel=1e-3)
    tiles = [
        next(tile for tile in view.tiles if tile.label == "error")
        for view in (checkpoint_view(summary), conversion_view(report))
    ]
    assert tiles[0] == tiles[1]
    assert summary.bytes_before == report.bytes_before
    assert verify_checkpoint(target).ok
    assert "layers" not in summary.to_json()["provenance"]


def test_a_file_with_the_old_record_is_verified_by_it(tmp_path: Path, toy_wan: Toy) -> None:
    source_file, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    tensors = toy_wan()
    save_file(tensors, source_file)
    source = StateDictSource(tensors)
    report = convert(source, plan_of(source), target)
    metadata = metadata_of(target)
    provenance = json.loads(metadata["nvfp4_foundry"])
    del provenance["layers"]
    errors = {la.name: la.weight_error for la in report.layers if la.weight_error is not None}
    for factor in (1.0, 0.8):
        provenance["errors"] = {name: error * factor for name, error in errors.items()}
        old = tmp_path / "old.safetensors"
        save_file(load_file(target), old, {**metadata, "nvfp4_foundry": json.dumps(provenance)})
        result = verify_checkpoint(old, source_file)
        assert result.ok == (factor == 1.0), result.problems[:1]


def test_what_depends_on_scales_is_unknown_after_rescaling() -> None:
    record = LayerRecord(input_scale_reason="static", output_error_w4a4=0.2, weight_error=0.1)
    found = read_records({"layers": write_records({"a": record}), "rescaled": [{}]})
    assert found == {"a": replace(record, input_scale_reason="", output_error_w4a4=None)}


def test_long_reasons_are_cut_rather_than_lost_or_too_long(toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)
    job = prepare_job(source, plan, None, "cpu")
    report = quantize_to_memory(source, plan).report
    layers = [
        replace(
            la, rounding_reason=f"{n} " + "\u202e\x00\"" * 500, bias="b" * 900,
            activation_amax=1.2345678e-300, activation_spread=9.8765432e300, calls=10**12,
        )
        for n, la in enumerate(report.layers)
    ]  # fmt: skip
    before, after = (header_metadata(job, found) for found in ((), layers))
    lengths = [len(json.dumps(metadata)) for metadata in (before, after)]
    assert 0 < lengths[1] - lengths[0] <= reserved_length(job)
    records = read_records(json.loads(after["nvfp4_foundry"]))
    assert all(records[la.name].reason == la.reason for la in layers)


def test_the_header_of_the_real_qwen_image_stays_small(qwen_image: Inventory) -> None:
    plan = make_plan(get_preset("qwen-image-2512").build(), qwen_image)
    records = {
        la.name: LayerRecord(
            la.reason, "gptq", f"gptq: error 1{n}.23% -> 1{n}.01% on 64 held-out tokens", "",
            f"static: amax of 80 calls ({n}.123) x 4", 0.08123, 0.07123, 0.1123, 0.09123,
            0.08234, 123.4, 567.8, 12.34 + n, 1.234, 80,
        )
        if la.kind == "linear"
        else LayerRecord(la.reason)
        for n, la in enumerate(plan.layers)
    }  # fmt: skip
    size = len(json.dumps(json.dumps(write_records(records))))
    assert size < 350_000, size


@pytest.fixture
def qwen_image(inventory_named: Any) -> Inventory:
    return inventory_named("qwen-image-2512")
