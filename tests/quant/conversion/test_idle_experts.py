"""Experts that may get no tokens have formats whose product does not fail then."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.calibration.input_scale import ScaleDecision
from nvfp4_foundry.quant.conversion.idle_experts import without_idle_failures
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.layer_names import is_expert
from nvfp4_foundry.quant.planning import Plan, Recipe, inventory_of, make_plan
from nvfp4_foundry.quant.sources import TensorInfo

EXPERT, SHARED = "blocks.0.ff.experts.2.w1", "blocks.0.ff.shared_experts.w1"


def plan(fmt: str, columns: int = 256) -> Plan:
    """Return a plan for an expert and for a layer that gets every token."""
    names = (EXPERT, SHARED)
    infos = [TensorInfo(f"{n}.weight", (64, columns), torch.bfloat16) for n in names]
    return make_plan(Recipe(name="r", default=fmt, comfyui="0.33"), inventory_of(infos))


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.is_quantized])
def test_no_format_of_an_expert_fails(name: str) -> None:
    """Which products fail is what ComfyUI 0.29 and 0.33 do with comfy-kitchen on a CPU."""
    formats = {la.name: la.format for la in without_idle_failures(plan(name), {}).layers}
    assert formats[SHARED] == name
    assert formats[EXPERT] in ("nvfp4_w4a16", "mxfp8") or formats[EXPERT].startswith("float8_")


def test_a_static_scale_keeps_nvfp4() -> None:
    before = plan("nvfp4")
    scaled = {EXPERT: ScaleDecision("static", amax=3.0)}
    assert without_idle_failures(before, scaled) is before
    after = without_idle_failures(before, {EXPERT: ScaleDecision("dynamic")})
    assert after.layers[0].format == "nvfp4_w4a16" and after.layers[0].reason.endswith("nvfp4")
    assert "with a calibration that covers them" in after.warnings[-1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("double_stream_blocks.3.block.ff_i.experts.0.w1", True),
        ("experts.11.down", True),
        ("blocks.0.shared_experts.w1", False),
        ("layers.0.mlp.experts.gate_up_proj", False),  # a bank, of which only some are multiplied
        ("blocks.3.ffn.0", False),
    ],
)
def test_names_of_experts(name: str, expected: bool) -> None:
    assert is_expert(name) is expected
