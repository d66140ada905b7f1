"""The search by tables chooses the scales that trying each candidate in float64 would choose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nvfp4_foundry.quant.formats.base import safe_scale
from nvfp4_foundry.quant.formats.candidate_errors import STEPS, choose_steps
from nvfp4_foundry.quant.formats.nvfp4 import block_amax
from nvfp4_foundry.quant.formats.nvfp4_scales import (
    BLOCK,
    SEARCH_DIVISOR,
    max_block_scales,
    searched_block_scales,
)

ROWS, COLUMNS = 64, 256
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)


def gaussian(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=generator) * 0.02


SOURCES: dict[str, Callable[[torch.Generator], torch.Tensor]] = {
    "gaussian": gaussian,
    "bf16": lambda g: gaussian(g).bfloat16(),
    "fp16": lambda g: gaussian(g).half(),
    "heavy tails": lambda g: gaussian(g) / torch.rand(ROWS, COLUMNS, generator=g).sqrt(),
    "float8 codes": lambda g: (gaussian(g) * 4000).to(torch.float8_e4m3fn).float() * 0.013,
    "4-bit integers": lambda g: torch.randint(-8, 8, (ROWS, COLUMNS), generator=g) * 0.1,
    "exact": lambda g: E2M1.float()[torch.randint(0, 8, (ROWS, COLUMNS), generator=g)] * 0.02,
    "rows of zeros": lambda g: gaussian(g).masked_fill_(torch.arange(ROWS).view(-1, 1) < 30, 0),
    "small rows": lambda g: gaussian(g) * torch.logspace(-12, 0, ROWS).unsqueeze(1),
    "huge": lambda g: gaussian(g) * 1e38,
    "tiny": lambda g: gaussian(g) * 1e-35,
}


def errors_in_float64(
    weight: torch.Tensor, codes: torch.Tensor, tensor_scale: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Return the weighted squared errors of blocks with these codes, float64 ``[B]``."""
    scale = codes.view(torch.float8_e4m3fn).double() * tensor_scale.double()
    values = weight.double().abs().view(-1, BLOCK) / scale.masked_fill(scale == 0, 1).unsqueeze(1)
    nearest = E2M1[(values.unsqueeze(-1) - E2M1).abs().argmin(-1)]
    nearest = torch.where(scale.unsqueeze(1) == 0, 0.0, nearest)
    error = (values - nearest).mul_(scale.masked_fill(scale == 0, 1).unsqueeze(1))
    return (error.square() * counts).sum(1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_no_other_candidate_is_better(source: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = SOURCES[source](generator)
    amax = block_amax(weight).view(-1)
    tensor_scale = torch.tensor(safe_scale(float(amax.max()), SEARCH_DIVISOR))
    channels = torch.rand(COLUMNS, generator=generator) * 3 + 0.3 if weighted else None
    search = searched_block_scales(channels, weight.device)
    chosen = search(weight.view(-1, BLOCK), amax, tensor_scale).view(torch.uint8)

    counts = (torch.ones(COLUMNS) if channels is None else channels).double().view(-1, BLOCK)
    counts = counts.repeat(ROWS, 1)
    start = max_block_scales(weight, amax, tensor_scale).view(torch.uint8).int()
    of = [
        errors_in_float64(
            weight, (start + step).clamp(0, 0x7E).to(torch.uint8), tensor_scale, counts
        )
        for step in STEPS
    ]
    least = torch.stack(of).amin(0)
    found = errors_in_float64(weight, chosen, tensor_scale, counts)
    norm = (weight.double().view(-1, BLOCK).square() * counts).sum(1)
    assert bool((found <= least + norm * 1e-6).all())


def test_few_blocks_need_to_be_tried_in_full() -> None:
    weight = gaussian(torch.Generator().manual_seed(4))
    amax = block_amax(weight).view(-1)
    scale = torch.tensor(safe_scale(float(amax.max()), SEARCH_DIVISOR))
    codes = max_block_scales(weight, amax, scale)
    blocks = weight.abs().view(-1, BLOCK)
    _, unsure = choose_steps(blocks, codes.view(torch.uint8).int(), codes.float() * scale, None)
    assert float(unsure.float().mean()) < 0.02
