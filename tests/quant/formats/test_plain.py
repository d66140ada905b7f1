"""Casts of unquantized weights: what overflows is refused, without copies of the wide weight."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.formats.plain import cast_plain
from torch.profiler import ProfilerActivity, profile


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_makes_nothing_larger_than_its_result(dtype: torch.dtype) -> None:
    weight = torch.randn(512, 256)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        cast = cast_plain(weight, dtype)
    assert torch.equal(cast, weight.to(dtype))
    # one operation each; those inside of another count too
    assert max(event.cpu_memory_usage for event in profiler.events() or ()) == cast.nbytes


@pytest.mark.parametrize("other", [0.0, float("nan"), float("inf")])
def test_finite_values_that_overflow_are_refused(other: float) -> None:
    """Also beside values that are not finite, which stay what they are."""
    weight = torch.tensor([[1.0, other], [70000.0, -2.0]])
    with pytest.raises(FormatError, match="do not fit fp16"):
        cast_plain(weight, torch.float16)
    weight[1, 0] = 6.0
    assert torch.equal(cast_plain(weight, torch.float16), weight.half()) or other != other
    assert cast_plain(torch.empty(0, 4), torch.float16).shape == (0, 4)
