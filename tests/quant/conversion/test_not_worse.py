"""With Hessians, no layer is clearly worse than by the max rule on the rows that judge it.

Without them no rows are held out, and a rounding does not depend on which rows were sampled.
"""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.conversion.choose_encoding import choose_encoding
from nvfp4_foundry.quant.conversion.observed_input import ObservedInput, ObservedInputs
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.formats import get_format

WIDTH, OUT = 64, 16
NVFP4 = get_format("nvfp4")


def one_loud_channel(seed: int) -> ObservedInput:
    """Return the calibration of inputs with nearly all energy in one channel."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.nn.Sequential(torch.nn.Linear(WIDTH, OUT))
    collector = ActivationCollector(CollectorSettings(64, moments_budget_bytes=2**28))
    with torch.no_grad():
        for run in range(2):
            collector.new_run(f"prompt {run}")
            with collector.observe(root):
                for _ in range(4):
                    collector.begin_call(0.5)
                    x = torch.randn(400, WIDTH, generator=generator)
                    x[:, 5] *= 100
                    root(x)
    statistics = collector.snapshot(ModelFingerprint({"0": (OUT, WIDTH)}, {}))
    observed = ObservedInputs(statistics).of("0")
    assert observed is not None and observed.statistics.moments is not None
    return observed


@pytest.mark.parametrize("rounding", ["mse", "weighted"])
def test_the_max_rule_is_taken_where_it_does_better(rounding: str) -> None:
    """With so few outputs, chance decides whether a search hits the values that count."""
    fell_back = 0
    for seed in range(12):
        weight = torch.randn(OUT, WIDTH, generator=torch.Generator().manual_seed(seed))
        observed = one_loud_channel(seed)
        plain = choose_encoding(weight, NVFP4, "max", observed, None)
        chosen = choose_encoding(weight, NVFP4, rounding, observed, None)
        assert plain.error is not None and chosen.error is not None
        assert not plain.error.beats(chosen.error)
        if chosen.rounding == "max":
            fell_back += 1
            assert chosen.reason.startswith(f"max, not {rounding}: error ")
            assert chosen.encoded.tensors["weight"].equal(plain.encoded.tensors["weight"])
    assert fell_back or rounding == "weighted"  # which knows the loud channel
