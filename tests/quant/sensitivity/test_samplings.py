"""Whole samplings in several formats, compared with float64 by hand, and mixes from them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED, LatentProbe
from nvfp4_foundry.quant.sources import StateDictSource
from torch import Tensor, nn

from tests.helpers.probing import hooks, probe_once, random_input

FORMATS = ("nvfp4", "float8_e4m3fn")
GROUP = ["blocks.1.q", "blocks.1.k", "blocks.1.v"]


class ByHand(nn.Module):
    """A quantized Linear layer in float64."""

    def __init__(self, linear: nn.Linear, weight: Tensor, rounded: Callable[[Tensor], Tensor]):
        super().__init__()
        self.weight, self.bias, self.rounded = weight.double(), linear.bias, rounded

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.rounded(x), self.weight, self.bias)


def float8(linear: nn.Linear) -> ByHand:
    scale = linear.weight.abs().max().float() / 448
    weight = (linear.weight.float() / scale).to(torch.float8_e4m3fn).double() * scale
    return ByHand(linear, weight, lambda x: x.float().to(torch.float8_e4m3fn).double())


def nvfp4(linear: nn.Linear, reference: ModuleType) -> ByHand:
    def rounded(x: Tensor) -> Tensor:
        amax = float(x.abs().max())
        return reference.through_nvfp4(x.reshape(-1, x.shape[-1]), amax / 2688).reshape(x.shape)

    return ByHand(linear, reference.weight_through_nvfp4(linear.weight), rounded)


def sampled(model: nn.Module, x: Tensor) -> Tensor:
    """Return the result of three Euler steps."""
    for _ in range(3):
        x = x - 0.3 * nn.functional.pad(model(x), (0, 12))
    return x


@pytest.fixture
def both(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, statistics: object
) -> LatentProbe:
    """Return a probe of one sampling in two formats."""
    measured = measure_sensitivity(source, statistics, FORMATS, rounding="max")
    probe, x = LatentProbe(source, measured, formats=FORMATS), random_input()
    with torch.no_grad():
        probe.probe(toy_model, lambda: sampled(toy_model, x), sampled(toy_model, x), SAMPLED)
    return probe


def test_shifts_are_those_of_the_samplings_end(
    toy_model: nn.Module, both: LatentProbe, nvfp4_reference: ModuleType
) -> None:
    exact, x, found = copy.deepcopy(toy_model).double(), random_input().double(), both.result()
    for fmt in FORMATS:
        quantized = copy.deepcopy(exact)
        for name in GROUP:
            linear = exact.get_submodule(name)
            by_hand = nvfp4(linear, nvfp4_reference) if fmt == "nvfp4" else float8(linear)
            quantized.set_submodule(name, by_hand)
        with torch.no_grad():
            wanted = sampled(exact, x)
            shift = float((sampled(quantized, x) - wanted).norm() / wanted.norm())
        together = sum(found.cost(name, fmt) or 0.0 for name in GROUP) ** 0.5
        assert together == pytest.approx(shift, rel=5e-3), fmt
    assert found.is_of_samplings and hooks(toy_model) == 0


def test_every_format_is_one_more_run_of_each_unit(both: LatentProbe) -> None:
    units = len(both.units)
    # embed and head beside three blocks of q/k/v, o and two of ffn; head cannot be NVFP4
    assert (both.calls, units, both.runs) == (1, 14, 27)


def test_a_single_call_is_no_sampling(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    assert not sensitivity.is_of_samplings
    probe = LatentProbe(source, sensitivity)
    probe_once(probe, toy_model)
    assert not probe.result().is_of_samplings


def test_every_format_must_have_been_measured(
    source: StateDictSource, sensitivity: Sensitivity
) -> None:
    with pytest.raises(CalibrationError, match="not measured for mxfp8"):
        LatentProbe(source, sensitivity, formats=("nvfp4", "mxfp8"))
