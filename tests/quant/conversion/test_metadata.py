"""The metadata of converted checkpoints records how they were made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.checkpoint.layer_record import read_records
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.planning import Recipe
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from safetensors.torch import save_file

from tests.helpers.conversions import Toy, metadata_of, plan_of


def test_metadata_and_provenance(tmp_path: Path, toy_wan: Toy) -> None:
    path, target = tmp_path / "my model.safetensors", tmp_path / "out.safetensors"
    save_file(
        toy_wan(),
        path,
        {"format": "pt", "license": "mine", "_quantization_metadata": '{"layers": {}}'},
    )
    with open_source(path) as source:
        plan = plan_of(source, headroom=3.0)
        report = convert(source, plan, target)
        digest = source.fingerprint().digest
    metadata = metadata_of(target)
    ours = {"nvfp4_foundry", "nvfp4_foundry_source_digests"}
    assert set(metadata) == {"format", "license", "_quantization_metadata", *ours}
    assert (metadata["format"], metadata["license"]) == ("pt", "mine")
    provenance = json.loads(metadata["nvfp4_foundry"])
    assert provenance["tool"].startswith("nvfp4-foundry ")
    assert provenance["source"] == "my model.safetensors"
    assert provenance["source_digest"] == digest
    assert provenance["calibration"] is None
    assert Recipe.model_validate(provenance["recipe"]) == plan.recipe
    errors = {la.name: la.weight_error for la in report.layers if la.weight_error is not None}
    recorded = {n: r.weight_error for n, r in read_records(provenance).items() if r.weight_error}
    assert recorded == pytest.approx(errors, rel=1e-4)
    assert len(errors) == 40


def test_inspection_shows_what_was_planned(tmp_path: Path, toy_wan: Toy) -> None:
    target = tmp_path / "out.safetensors"
    source = StateDictSource(toy_wan(), metadata={"a": "b"})
    plan = plan_of(source)
    report = convert(source, plan, target)
    summary = inspect_checkpoint(target)
    dtypes = {"bfloat16": "bf16"}
    assert {la.name: (la.kind, la.shape, la.format) for la in summary.layers} == {
        la.name: (la.kind, la.shape, dtypes[la.source_dtype] if la.format == "keep" else la.format)
        for la in plan.layers
    }
    assert {la.name: la.bytes for la in summary.layers} == {
        la.name: la.bytes_after for la in report.layers
    }
    assert summary.total_bytes == report.bytes_after
    assert summary.architecture == str(plan.architecture)
    assert summary.metadata["a"] == "b"
