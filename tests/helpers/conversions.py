"""Conversions of toys: planned by rules, read back, compared bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from nvfp4_foundry.quant.checkpoint.digests import without_digests
from nvfp4_foundry.quant.planning import Plan, Recipe, make_plan, parse_rule_lines, take_inventory
from nvfp4_foundry.quant.planning.loadable import needed_comfyui
from nvfp4_foundry.quant.sources import TensorSource
from safetensors import safe_open

Toy = Callable[..., dict[str, torch.Tensor]]
RULES = """
*.self_attn.v = nvfp4_w4a16
*.ffn.2 @ any = float8_e4m3fn
blocks.*.*_attn.? = nvfp4
blocks.*.ffn.0 = nvfp4
head.modulation = fp32
"""
MARKERS = {
    "nvfp4": {"format": "nvfp4"},
    "nvfp4_w4a16": {"format": "nvfp4", "full_precision_matrix_mult": True},
    "float8_e4m3fn": {"format": "float8_e4m3fn"},
}


def plan_of(source: TensorSource, lines: str = RULES, **numbers: Any) -> Plan:
    """Plan by rules, with the max rounding unless another is named."""
    recipe = Recipe(rules=parse_rule_lines(lines), **{"rounding": "max", **numbers})
    return make_plan(for_its_formats(recipe), take_inventory(source))


def for_its_formats(recipe: Recipe) -> Recipe:
    """Return a recipe for the oldest ComfyUI that loads its formats."""
    return recipe.for_comfyui(needed_comfyui(recipe.formats()))


def metadata_of(path: Path) -> dict[str, str]:
    """Read a file's metadata, without the digests, which belong to this very file."""
    with safe_open(path, "pt") as file:
        return without_digests(file.metadata())


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """View a tensor's bytes, which compare NaN as equal."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    """Check that two models have the same names, dtypes, shapes and bits."""
    assert set(a) == set(b)
    for name, tensor in a.items():
        assert (tensor.dtype, tensor.shape) == (b[name].dtype, b[name].shape), name
        assert torch.equal(bits(tensor), bits(b[name])), name
