"""Layers that do not fit the format of a preset, written, verified and decoded."""

from __future__ import annotations

from pathlib import Path

import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from safetensors.torch import load_file, save_file

#: The sizes of OmniGen2, about a thirtieth: its width fits no block of 32, its feed-forward does.
SIZES = {
    "attn.to_q": (84, 84), "attn.to_k": (28, 84), "attn.to_v": (28, 84), "attn.to_out.0": (84, 84),
    "feed_forward.linear_1": (352, 84), "feed_forward.linear_2": (96, 352),
    "feed_forward.linear_3": (352, 84),
}  # fmt: skip


def test_what_does_not_fit_nvfp4_is_float8_in_the_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    weights = {
        f"layers.{i}.{name}.weight": torch.randn(size, generator=generator).bfloat16()
        for i in range(4)
        for name, size in SIZES.items()
    }
    save_file(weights, tmp_path / "source.safetensors")
    source = StateDictSource(weights)
    plan = make_plan(get_preset("all").build(), take_inventory(source))
    report = convert(source, plan, tmp_path / "out.safetensors")
    assert report.counts() == {"float8_e4m3fn": 24, "nvfp4": 4}
    verified = verify_checkpoint(tmp_path / "out.safetensors", tmp_path / "source.safetensors")
    assert verified.problems == ()
    stored = load_file(tmp_path / "out.safetensors")
    assert stored["layers.2.attn.to_q.weight"].dtype == torch.float8_e4m3fn
    assert stored["layers.2.attn.to_q.weight"].shape == (84, 84)
    with open_source(tmp_path / "out.safetensors") as decoded:
        for name, weight in weights.items():
            error = (decoded.load(name).float() - weight.float()).norm() / weight.float().norm()
            assert error < (0.1 if "linear_2" in name else 0.03), name
