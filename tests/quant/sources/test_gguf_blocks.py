"""Blocks of GGUF decode to the values of the gguf package, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.sources.gguf_blocks import DECODERS


@pytest.mark.parametrize("kind", DECODERS)
def test_values_are_the_packages(kind: str) -> None:
    quantized = gguf.GGMLQuantizationType[kind]
    _, size = gguf.GGML_QUANT_SIZES[quantized]
    blocks = np.random.default_rng(0).integers(0, 256, (4096, size), dtype=np.uint8)
    with np.errstate(all="ignore"):  # some random scales are NaN or infinite
        wanted = torch.from_numpy(gguf.dequantize(blocks.reshape(1, -1), quantized)).view(-1)
    found = DECODERS[kind](torch.from_numpy(blocks)).view(-1)
    is_nan = wanted.isnan()
    assert torch.equal(found.isnan(), is_nan)
    assert torch.equal(found[~is_nan], wanted[~is_nan])
