"""Gains of units that did not run, compared with the conditional normal distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nvfp4_foundry.quant.sensitivity.gains import GainModel, RunTraits

KINDS, BLOCKS, FORMATS = ("q", "o", "ffn"), 4, ("nvfp4", "float8_e4m3fn")


def traits() -> list[RunTraits]:
    found = [
        RunTraits((fmt, f"blocks.{block}.{kind}"), f"blocks.*.{kind}", "blocks", block, error)
        for fmt, error in zip(FORMATS, (1e-2, 1e-3), strict=True)
        for block in range(BLOCKS)
        for kind in KINDS
    ]
    return [*found, RunTraits(("nvfp4", "head"), "head", None, None, 1e-2)]


def test_the_estimate_is_the_conditional_mean_and_covariance() -> None:
    model = GainModel(traits())
    prior = model.estimate({})
    known = {("nvfp4", "blocks.0.q"): 3e-4, ("nvfp4", "blocks.2.ffn"): 5e-3}
    rows = [model.runs.index(run) for run in known]
    covariance = prior.covariance(np.arange(len(model.runs)))
    assert np.linalg.eigvalsh(covariance).min() > 0
    own = covariance[np.ix_(rows, rows)] + 1e-3 * np.eye(2)
    observed = np.log(list(known.values())) - prior.mean[rows]
    wanted = prior.mean + covariance[:, rows] @ np.linalg.solve(own, observed)
    left = covariance - covariance[:, rows] @ np.linalg.solve(own, covariance[rows])
    found = model.estimate(known)
    assert found.mean == pytest.approx(wanted)
    assert found.covariance(np.arange(len(model.runs))) == pytest.approx(left, abs=1e-9)


def test_like_units_have_like_gains() -> None:
    """A kind in a near block, and the other format of a unit, tell more than anything else."""
    model = GainModel(traits())
    gain = math.log(1e3)
    found = model.estimate({("nvfp4", "blocks.1.q"): 1e-2 * 1e3})
    spread = np.diag(found.covariance(np.arange(len(model.runs))))

    def of(run: tuple[str, str]) -> tuple[float, float]:
        row = model.runs.index(run)
        error = 1e-2 if run[0] == "nvfp4" else 1e-3
        return found.mean[row] - math.log(error), float(spread[row])

    same, near, far, other, outside = map(
        of,
        (
            ("float8_e4m3fn", "blocks.1.q"),
            ("nvfp4", "blocks.2.q"),
            ("nvfp4", "blocks.3.q"),
            ("nvfp4", "blocks.1.o"),
            ("nvfp4", "head"),
        ),
    )
    assert gain * 0.95 < same[0] <= gain
    assert same[0] > near[0] > far[0] > other[0] > outside[0] > 0
    assert same[1] < near[1] < far[1] < other[1] < outside[1]


def test_a_shift_of_zero_has_a_finite_estimate() -> None:
    found = GainModel(traits()).estimate({("nvfp4", "blocks.1.q"): 0.0})
    assert np.isfinite(found.mean).all()
