"""Codes times scales: per tensor, per row, or per block, of matrices and convolutions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file


def test_the_last_of_several_blocks_may_be_partial(tmp_path: Path) -> None:
    """960 channels are 7.5 blocks of 128, and 8 scales divide them evenly, too."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(192, 960, generator=generator).to(torch.float8_e4m3fn)
    scales = torch.rand(2, 8, generator=generator) + 0.5
    path = tmp_path / "model.safetensors"
    save_file({"l.weight": codes, "l.weight_scale_inv": scales}, path)
    wanted = codes.float()
    for row in range(192):
        for block in range(8):
            wanted[row, 128 * block : 128 * (block + 1)] *= scales[row // 128, block]
    with open_source(path) as source:
        assert torch.equal(source.load("l.weight"), wanted)


@pytest.mark.parametrize("shape", [(8,), (8, 1, 1, 1), (), (1, 1)])
def test_convolutions_have_scales_too(tmp_path: Path, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(8, 4, 3, 3, generator=generator).to(torch.float8_e4m3fn)
    scales = (torch.rand(shape, generator=generator) + 0.5).bfloat16()
    path = tmp_path / "model.safetensors"
    save_file({"l.weight": codes, "l.weight_scale": scales}, path)
    with open_source(path) as source:
        wanted = codes.float() * scales.float().reshape(-1, 1, 1, 1)
        assert torch.equal(source.load("l.weight"), wanted)
        stored = source.stored_weight("l.weight")
        assert stored is not None and not stored.kept_as


def test_scales_that_fit_nothing_name_the_layer(tmp_path: Path) -> None:
    """The error comes before the conversion starts, not when it reaches the layer."""
    path = tmp_path / "model.safetensors"
    codes = torch.zeros(12, 12).to(torch.float8_e4m3fn)
    for suffix, scales in (("weight_scale", (5, 7)), ("scale_weight", (3,))):
        save_file({"l.weight": codes, f"l.{suffix}": torch.ones(scales)}, path)
        with pytest.raises(SourceError, match=rf"l\.weight cannot be decoded with l\.{suffix}"):
            open_source(path)
