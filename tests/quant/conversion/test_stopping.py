"""Conversions that stop or fail name the cause, leave no file, and report progress."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert, quantize_to_memory
from nvfp4_foundry.quant.errors import FileError, FormatError, PlanError
from nvfp4_foundry.quant.planning import take_inventory
from nvfp4_foundry.quant.sources import StateDictSource

from tests.helpers.conversions import Toy, plan_of


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("layer", ["blocks.2.self_attn.q", "blocks.2.ffn.2"])
def test_a_damaged_weight_is_named(tmp_path: Path, toy_wan: Toy, value: float, layer: str) -> None:
    tensors = toy_wan()
    tensors[f"{layer}.weight"][-1, -1] = value
    source = StateDictSource(tensors)
    with pytest.raises(FormatError, match=f"{layer}.weight: the weight holds NaN or Inf"):
        convert(source, plan_of(source), tmp_path / "out")
    assert os.listdir(tmp_path) == []


class Stop(BaseException):
    """Like ComfyUI's interruption, this is not an `Exception`."""


@pytest.mark.parametrize("at", [0, 5, -1])
def test_stopping_leaves_nothing(tmp_path: Path, toy_wan: Toy, at: int) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)
    calls: list[str] = []

    def stop(done: int, total: int, name: str) -> None:
        calls.append(name.partition(": ")[2])
        if calls[-1] == plan.layers[at].name:
            raise Stop

    before = threading.active_count()
    with pytest.raises(Stop):
        convert(source, plan, tmp_path / "out", on_progress=stop)
    assert calls == [la.name for la in plan.layers][: (at % len(plan.layers)) + 1]
    assert os.listdir(tmp_path) == []
    assert threading.active_count() == before
    calls.clear()
    with pytest.raises(Stop):
        quantize_to_memory(source, plan, on_progress=stop)


def test_stopping_keeps_the_file_that_was_to_be_overwritten(tmp_path: Path, toy_wan: Toy) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"precious")
    source = StateDictSource(toy_wan())

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(FileError, match="exists"):
        convert(source, plan_of(source), target)
    with pytest.raises(Stop):
        convert(source, plan_of(source), target, overwrite=True, on_progress=stop)
    assert target.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["out"]
    convert(source, plan_of(source), target, overwrite=True)
    assert verify_checkpoint(target).problems == ()


def test_progress_counts_source_bytes(tmp_path: Path, toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    seen: list[tuple[int, int, str]] = []
    convert(source, plan_of(source), tmp_path / "out", on_progress=lambda *s: seen.append(s))
    layers = list(take_inventory(source).layers)
    assert [text for _, _, text in seen] == [
        f"layer {number} of {len(layers)}: {name}" for number, name in enumerate(layers, 1)
    ]
    assert {total for _, total, _ in seen} == {source.nbytes}
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][0] == source.nbytes


@pytest.mark.parametrize("changes", [{"blocks": 5}, {"width": 128}], ids=str)
def test_a_plan_for_another_model_is_refused(
    tmp_path: Path, toy_wan: Toy, changes: dict[str, int]
) -> None:
    plan = plan_of(StateDictSource(toy_wan()))
    other = StateDictSource(toy_wan(**changes), "other.safetensors")
    with pytest.raises(
        PlanError, match=r"another model.*make the plan again from other\.safetensors"
    ):
        convert(other, plan, tmp_path / "out")
    assert os.listdir(tmp_path) == []
