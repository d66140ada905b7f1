"""A model gives the same tensors in memory, in a file, when repeated, and with a prefix."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert, quantize_to_memory, save_model
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import Toy, assert_same, metadata_of, plan_of


def test_memory_and_file_and_repetition_are_identical(tmp_path: Path, toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)
    reports = [convert(source, plan, tmp_path / name) for name in ("a", "b")]
    model = quantize_to_memory(source, plan)
    save_model(model, tmp_path / "c")
    first = load_file(tmp_path / "a")
    for other in (load_file(tmp_path / "b"), dict(model.tensors), load_file(tmp_path / "c")):
        assert_same(first, other)
    assert reports[0].layers == reports[1].layers == model.report.layers
    assert verify_checkpoint(tmp_path / "c").problems == ()
    for name, text in metadata_of(tmp_path / "a").items():
        if name != "nvfp4_foundry":  # holds the time
            assert model.metadata[name] == metadata_of(tmp_path / "c")[name] == text


def test_a_model_in_memory_is_independent_of_its_source(toy_wan: Toy) -> None:
    tensors = toy_wan()
    model = quantize_to_memory(StateDictSource(tensors), plan_of(StateDictSource(tensors)))
    before = model.tensors["head.head.weight"].clone()
    tensors["head.head.weight"].zero_()
    assert torch.equal(model.tensors["head.head.weight"], before)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model.", "net."])
def test_a_prefixed_source_gives_the_same(tmp_path: Path, toy_wan: Toy, prefix: str) -> None:
    tensors = toy_wan()
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "in")
    plain = StateDictSource(tensors)
    convert(plain, plan_of(plain), tmp_path / "plain")
    with open_source(tmp_path / "in") as source:
        report = convert(source, plan_of(source), tmp_path / "out")
    assert_same(load_file(tmp_path / "plain"), load_file(tmp_path / "out"))
    assert report.notes == (f"layer names are used without their prefix {prefix!r}",)
    assert ["no static input_scale" in warning for warning in report.warnings] == [True]
    assert verify_checkpoint(tmp_path / "out", tmp_path / "in").problems == ()
