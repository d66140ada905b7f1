"""Conversions of merged weights: exact until stored, and the report lists the LoRAs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert, quantize_to_memory
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.reports.conversion import conversion_headline
from nvfp4_foundry.quant.sources import AppliedLora, StateDictSource, TensorSource
from safetensors.torch import load_file

from tests.helpers.conversions import RULES, Toy, bits, plan_of


class Merged(StateDictSource):
    """A source of merged weights: float32, announced in their stored dtype."""

    def __init__(self, merged: Mapping[str, torch.Tensor], dtype: torch.dtype):
        super().__init__({name: tensor.to(dtype) for name, tensor in merged.items()})
        self.loras = (AppliedLora("a.safetensors", 0.5), AppliedLora("b.safetensors", None))
        self._merged = merged

    def load(self, name: str) -> torch.Tensor:
        return self._merged[name]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merged_weights_are_quantized_from_fp32_and_stored_in_16_bits(
    tmp_path: Path, toy_wan: Toy, dtype: torch.dtype
) -> None:
    exact = toy_wan(dtype=torch.float32)
    source, target = Merged(exact, dtype), tmp_path / "q.safetensors"
    rules = f"{RULES}\n*.norm3 = bf16"
    report = convert(source, plan_of(source, rules), target)
    ours = load_file(target)
    assert report.bytes_after == sum(tensor.nbytes for tensor in ours.values())
    wide = convert_in_memory(StateDictSource(exact), rules)
    for name, tensor in ours.items():
        layer = name.rpartition(".")[0]
        quantized = f"{layer}.comfy_quant" in ours and not name.endswith(".bias")
        stored = exact[name].to(tensor.dtype) if not quantized else wide[name]
        assert torch.equal(bits(tensor), bits(stored)), name
    assert ours["blocks.0.ffn.0.bias"].dtype == ours["blocks.0.modulation"].dtype == dtype
    assert ours["blocks.0.norm3.weight"].dtype == torch.bfloat16
    assert verify_checkpoint(target).ok


def convert_in_memory(source: TensorSource, rules: str) -> Mapping[str, torch.Tensor]:
    return quantize_to_memory(source, plan_of(source, rules)).tensors


@pytest.mark.parametrize("name", ["blocks.0.ffn.0.bias", "patch_embedding.weight"])
def test_a_merge_that_overflows_fp16_is_named(toy_wan: Toy, name: str) -> None:
    exact = toy_wan(dtype=torch.float32)
    exact[name].view(-1)[3] = 70_000
    source = Merged(exact, torch.float16)
    with pytest.raises(FormatError, match=f"{name}: values above 65504"):
        quantize_to_memory(source, plan_of(source))


def test_loras_are_listed(tmp_path: Path, toy_wan: Toy) -> None:
    source = Merged(toy_wan(dtype=torch.float32), torch.bfloat16)
    report = convert(source, plan_of(source), tmp_path / "q.safetensors")
    assert (
        "LoRAs       a.safetensors at 0.5, b.safetensors at unknown strength"
        in conversion_headline(report)
    )
    listed = [
        {"name": "a.safetensors", "strength": 0.5},
        {"name": "b.safetensors", "strength": None},
    ]
    assert json.loads(report.dumps())["loras"] == listed
    assert inspect_checkpoint(tmp_path / "q.safetensors").provenance["loras"] == listed
