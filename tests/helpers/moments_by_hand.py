"""Second moments gathered in one go, and compared with plain float64 arithmetic."""

from __future__ import annotations

from pathlib import Path

import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics
from nvfp4_foundry.quant.calibration.moment_accumulator import MomentAccumulator
from nvfp4_foundry.quant.calibration.moments import InputMoments, MomentPart
from nvfp4_foundry.quant.formats.nvfp4 import NVFP4

TRUE = torch.tensor(True)
BIG = 2**30
Observed = tuple[CalibrationStatistics, dict[str, list[torch.Tensor]]]


def gathered(*batches: torch.Tensor, run: str = "r", folder: Path | None = None) -> MomentPart:
    """Gather batches as the calls of one run; in memory, or in a file in a folder."""
    accumulator = MomentAccumulator(batches[0].shape[1], torch.device("cpu"))
    for rows in batches:
        accumulator.add(rows, rows.abs().amax(), TRUE)
    part = accumulator.finish(run, folder)
    assert part is not None
    return part


def check(moments: InputMoments, *batches: torch.Tensor) -> None:
    """Compare with plain float64 arithmetic."""
    rounded = torch.cat([NVFP4().emulate_activations(rows, None) for rows in batches]).double()
    x = torch.cat(batches).double()
    loaded, count = moments.load().with_residual(), len(x)
    assert moments.tokens == loaded.tokens == count
    residual = x - rounded
    expected = {
        "hessian": rounded.T @ rounded / count,
        "residual": residual.T @ rounded / count,
        "residual_energy": residual.square().mean(0),
        "mean": x.mean(0),
        "mean_rounded": rounded.mean(0),
    }
    for name, value in expected.items():
        got = getattr(loaded, name).double()
        tolerance = 2.0**-7 if name == "residual" else 1e-5  # kept as bfloat16
        assert (got - value).abs().max() <= tolerance * value.abs().max(), name
    assert torch.equal(loaded.hessian, loaded.hessian.T)
