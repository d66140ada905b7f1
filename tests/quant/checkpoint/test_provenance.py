"""The record of how a file was made is read from a header that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.calibration.input_scale import InputScalePolicy
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.checkpoint.provenance import PROVENANCE, read_provenance
from nvfp4_foundry.quant.checkpoint.rescale import rescale_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.reports.card import model_card
from nvfp4_foundry.quant.reports.checkpoint import describe_summary
from nvfp4_foundry.quant.sources import SafetensorsFile
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import plan_of

WRONG: list[Any] = [5, "text", [1], ["a", 2], {"a": [1]}, True, None]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A converted file of one layer."""
    torch.manual_seed(0)
    source, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    tensors = {"blocks.0.a.weight": torch.randn(16, 32), "blocks.0.a.bias": torch.randn(16)}
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, source)
    with SafetensorsFile(source) as opened:
        convert(opened, plan_of(opened, "* = nvfp4"), target)
    return target


def changed(path: Path, **fields: Any) -> Path:
    """Return a copy of the file with these fields of its record."""
    with SafetensorsFile(path) as file:
        metadata = dict(file.metadata)
    record = {**json.loads(metadata[PROVENANCE]), **fields}
    copy = path.with_name("copy.safetensors")
    save_file(load_file(path), copy, {**metadata, PROVENANCE: json.dumps(record)})
    return copy


def test_what_was_written_is_read_back(written: Path) -> None:
    with SafetensorsFile(written) as file:
        assert read_provenance(file) == json.loads(file.metadata[PROVENANCE])
    copy = changed(written, added_later={"by": ["a newer version"]})
    with SafetensorsFile(copy) as file:
        assert read_provenance(file)["added_later"] == {"by": ["a newer version"]}


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_field_of_the_wrong_type_counts_as_missing(written: Path, wrong: Any) -> None:
    with SafetensorsFile(written) as file:
        names = list(read_provenance(file))
    assert len(names) > 8
    for name in [*names, "errors", "rescaled", "whole_checkpoint"]:
        copy = changed(written, **{name: wrong})
        summary = inspect_checkpoint(copy)
        assert describe_summary(summary) and model_card(summary, "file.safetensors", "")
        verify_checkpoint(copy, written.with_name("source.safetensors"))
        again = written.with_name("again.safetensors")
        rescale_checkpoint(copy, InputScalePolicy("dynamic"), target=again, overwrite=True)
        with SafetensorsFile(again) as file:
            assert read_provenance(file)["rescaled"][-1]
