"""Second moments: exact sums over new tokens, added up part by part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration.moment_accumulator import MomentAccumulator
from nvfp4_foundry.quant.calibration.moments import InputMoments
from nvfp4_foundry.quant.formats.nvfp4 import round_through_nvfp4

from tests.helpers.moments_by_hand import TRUE, check, gathered


@pytest.mark.parametrize("width", [32, 1024, 1040])
def test_sums_are_those_of_float64(width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    batches = [torch.randn(50, width), 3 * torch.randn(20, width)]
    check(InputMoments((gathered(*batches),)), *batches)
    in_file = gathered(*batches, folder=tmp_path / "new")
    assert in_file.tensors is None and in_file.path is not None
    check(InputMoments((in_file,)), *batches)


def test_parts_add_up() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(30, 48), torch.randn(90, 48)
    moments = InputMoments((gathered(a, run="one"), gathered(b, run="two")))
    check(moments, a, b)
    assert moments.runs == {"one", "two"}


def test_rows_with_nan_are_left_out() -> None:
    torch.manual_seed(2)
    rows = torch.randn(10, 32)
    accumulator = MomentAccumulator(32, torch.device("cpu"))
    accumulator.add(rows, rows.abs().amax(), TRUE)
    accumulator.add(rows, torch.tensor(torch.inf), TRUE)
    spoiled = rows.clone()
    spoiled[3, 4] = torch.nan
    accumulator.add(spoiled, rows.abs().amax(), TRUE)
    part = accumulator.finish("r", None)
    assert part is not None and part.tokens == 19 and not part.repeats
    check(InputMoments((part,)), rows, rows[[0, 1, 2, 4, 5, 6, 7, 8, 9]])


def test_a_call_that_repeats_counts_once_and_in_full() -> None:
    """The first call lacks all but four tokens, because the others were sampled as rows."""
    torch.manual_seed(2)
    rows = torch.randn(10, 32)
    accumulator = MomentAccumulator(32, torch.device("cpu"))
    accumulator.add(rows[:4], rows.abs().amax(), TRUE)
    for _ in range(3):
        accumulator.add(rows, rows.abs().amax(), ~TRUE)
    part = accumulator.finish("r", None)
    assert part is not None and part.tokens == 10 and part.repeats
    amax = rows.abs().amax() / 2688
    seen = round_through_nvfp4(torch.cat([rows[:4], rows]), amax, torch.float32)
    loaded = InputMoments((part,)).load()
    torch.testing.assert_close(loaded.hessian, seen.T @ seen / 14, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loaded.mean_rounded, seen.mean(0), rtol=1e-4, atol=1e-5)


def test_branches_that_take_turns_repeat_each_by_itself() -> None:
    """With two guidance calls per step, each branch is completed by its own repetition."""
    torch.manual_seed(3)
    texts = {(0,): torch.randn(10, 32), (1,): torch.randn(6, 32)}
    accumulator = MomentAccumulator(32, torch.device("cpu"))
    amax = torch.stack([text.abs().amax() for text in texts.values()]).amax()
    for step in range(4):
        for branches, text in texts.items():
            rows = text if step else text[:3]
            accumulator.add(rows, amax, TRUE if step == 0 else ~TRUE, branches)
    part = accumulator.finish("r", None)
    assert part is not None and part.tokens == 16 and part.repeats
    summed = torch.cat([rows for text in texts.values() for rows in (text[:3], text)])
    mean = InputMoments((part,)).load().mean
    torch.testing.assert_close(mean, summed.mean(0), rtol=1e-4, atol=1e-5)


def test_nothing_usable_is_no_part() -> None:
    rows = torch.full((3, 32), torch.nan)
    empty = MomentAccumulator(32, torch.device("cpu"))
    empty.add(rows, rows.abs().amax(), TRUE)
    assert empty.finish("r", None) is None
