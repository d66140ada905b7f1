"""The probe's shifts, compared with float64 by hand, and divided among a unit's layers."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics, InputScalePolicy
from nvfp4_foundry.quant.sensitivity.artefact import CandidateErrors, Sensitivity
from nvfp4_foundry.quant.sensitivity.probe import LatentProbe
from nvfp4_foundry.quant.sources import StateDictSource
from torch import Tensor, nn

from tests.helpers.probing import latents, probe_once, random_input

BLOCK = ("q", "k", "v", "o", "ffn.0", "ffn.2")


class ByHand(nn.Module):
    """A quantized Linear layer in float64, rounded value by value."""

    def __init__(self, linear: nn.Linear, amax: float | None, reference: ModuleType) -> None:
        super().__init__()
        self.weight = reference.weight_through_nvfp4(linear.weight)
        self.bias = linear.bias
        self.amax, self.reference = amax, reference

    def forward(self, x: Tensor) -> Tensor:
        amax = float(x.abs().max()) if self.amax is None else self.amax
        rounded = self.reference.through_nvfp4(x.reshape(-1, x.shape[-1]), amax / 2688)
        return nn.functional.linear(rounded.reshape(x.shape), self.weight, self.bias)


def shift_by_hand(
    model: nn.Module, names: list[str], amax: dict[str, float | None], reference: ModuleType
) -> float:
    """Return the relative shift of the output with these layers quantized, all in float64."""
    exact = copy.deepcopy(model).double()
    quantized = copy.deepcopy(exact)
    for name in names:
        linear = quantized.get_submodule(name)
        quantized.set_submodule(name, ByHand(linear, amax[name], reference))
    with torch.no_grad():
        x = random_input().double()
        wanted = exact(x)
        return float((quantized(x) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("static", [False, True])
def test_shifts_are_those_of_float64(
    toy_model: nn.Module,
    source: StateDictSource,
    statistics: CalibrationStatistics,
    sensitivity: Sensitivity,
    nvfp4_reference: ModuleType,
    static: bool,
) -> None:
    probe = LatentProbe(
        source,
        sensitivity,
        unit="layer",
        statistics=statistics if static else None,
        input_scale=InputScalePolicy(headroom=8.0),
    )
    assert len(probe.units) == 19  # head cannot be NVFP4
    probe_once(probe, toy_model)
    found = latents(probe.result())
    assert set(found) == set(probe.units)
    for name in ("embed", "blocks.0.v", "blocks.1.ffn.0", "blocks.2.o"):
        amax = {name: 8.0 * statistics.amax(name) if static else None}
        wanted = shift_by_hand(toy_model, [name], amax, nvfp4_reference)
        assert found[name] == {0.5: pytest.approx(wanted, rel=2e-3)}
    assert probe.result().cost("blocks.0.v", "nvfp4") == pytest.approx(
        found["blocks.0.v"][0.5] ** 2
    )


def test_layers_of_one_input_are_quantized_together(
    toy_model: nn.Module,
    source: StateDictSource,
    sensitivity: Sensitivity,
    nvfp4_reference: ModuleType,
) -> None:
    probe = LatentProbe(source, sensitivity)
    qkv = [f"blocks.1.{leaf}" for leaf in "qkv"]
    assert len(probe.units) == 13
    assert sorted(probe.units["blocks.1.k"]) == sorted(qkv)
    assert probe.units["blocks.1.o"] == ("blocks.1.o",)
    probe_once(probe, toy_model)
    found = {name: shift[0.5] for name, shift in latents(probe.result()).items()}
    for names in (qkv, ["blocks.1.o"]):
        wanted = shift_by_hand(toy_model, names, dict.fromkeys(names), nvfp4_reference)
        assert sum(found[name] ** 2 for name in names) ** 0.5 == pytest.approx(wanted, rel=5e-3)


def test_a_block_is_shared_by_squared_output_errors(
    toy_model: nn.Module,
    source: StateDictSource,
    sensitivity: Sensitivity,
    nvfp4_reference: ModuleType,
) -> None:
    probe = LatentProbe(source, sensitivity, unit="block")
    assert list(probe.units) == ["embed", "blocks.0", "blocks.1", "blocks.2"]
    probe_once(probe, toy_model)
    found = {name: shift[0.5] for name, shift in latents(probe.result()).items()}
    names = [f"blocks.1.{leaf}" for leaf in BLOCK]
    assert sorted(probe.units["blocks.1"]) == sorted(names)
    wanted = shift_by_hand(toy_model, names, dict.fromkeys(names), nvfp4_reference)
    assert sum(found[name] ** 2 for name in names) ** 0.5 == pytest.approx(wanted, rel=5e-3)
    errors = {name: sensitivity.candidates(name)["nvfp4"].w4a4 for name in names}
    ratios = [found[name] / errors[name] for name in names]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))


@pytest.mark.parametrize("known", [0, 2])
def test_a_block_is_shared_equally_where_errors_are_unknown(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, known: int
) -> None:
    names = [f"blocks.0.{leaf}" for leaf in BLOCK]
    layers = dict(sensitivity.layers)
    for number, name in enumerate(names):
        errors = CandidateErrors(w4a4=0.1 * (number + 1) if number < known else None)
        layers[name] = replace(layers[name], candidates={"nvfp4": errors})
    probe = LatentProbe(source, replace(sensitivity, layers=layers), unit="block")
    probe_once(probe, toy_model)
    found = latents(probe.result())
    squares = [found[name][0.5] ** 2 for name in names]
    # errors of 0.1 and 0.2, if known; the unknown count as their mean square
    weights = [0.01, 0.04, *[0.025] * 4] if known else [1.0] * 6
    assert [s / sum(squares) for s in squares] == pytest.approx([w / sum(weights) for w in weights])


def test_calls_of_one_sigma_are_pooled(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    both = LatentProbe(source, sensitivity, unit="layer")
    squares = []
    for seed in (3, 4):
        alone = LatentProbe(source, sensitivity, unit="layer")
        norm = float(probe_once(alone, toy_model, seed=seed).double().norm())
        squares.append((latents(alone.result())["embed"][0.5] ** 2 * norm**2, norm**2))
        probe_once(both, toy_model, seed=seed)
    probe_once(both, toy_model, sigma=0.25)
    difference, norm = map(sum, zip(*squares, strict=True))
    found = latents(both.result())["embed"]
    assert both.calls == 3 and list(found) == [0.25, 0.5]
    assert found[0.5] == pytest.approx((difference / norm) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_keep_their_own(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, dtype: torch.dtype
) -> None:
    """The layers of a 16-bit model get 16-bit inputs and must return 16-bit outputs."""
    exact = LatentProbe(source, sensitivity, unit="layer")
    probe_once(exact, toy_model)
    probe, model, x = (
        LatentProbe(source, sensitivity, unit="layer"),
        toy_model.to(dtype),
        random_input(),
    )
    with torch.no_grad():
        probe.probe(model, lambda: model(x.to(dtype)), model(x.to(dtype)), 0.5)
    wanted, found = latents(exact.result()), latents(probe.result())
    assert found["blocks.0.v"][0.5] == pytest.approx(wanted["blocks.0.v"][0.5], rel=0.1)


def test_packed_weights_take_their_own_size_on_cpu(
    source: StateDictSource, sensitivity: Sensitivity
) -> None:
    probe = LatentProbe(source, sensitivity, unit="layer")
    linear = probe._linears["nvfp4"]["blocks.0.ffn.0"]
    assert linear.tensors["weight"].nbytes == 64 * 32 // 2
    assert all(tensor.device.type == "cpu" for tensor in linear.tensors.values())


def test_weight_only_format_leaves_activations_alone(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    both = {}
    for name in ("nvfp4", "nvfp4_w4a16"):
        probe = LatentProbe(source, sensitivity, formats=(name,))
        probe_once(probe, toy_model)
        both[name] = latents(probe.result(), name)
        assert probe.result().has_latents
    assert both["nvfp4_w4a16"]["embed"][0.5] < both["nvfp4"]["embed"][0.5]
