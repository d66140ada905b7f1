"""Values that the probe cannot measure stay unknown or are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nvfp4_foundry.quant.errors import CalibrationError, FormatError
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.probe import LatentProbe
from nvfp4_foundry.quant.sources import StateDictSource
from torch import Tensor, nn

from tests.helpers.probing import latents, probe_once, random_input


def test_what_did_not_run_is_unknown_not_harmless(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    """A cache that replaces the model call would make every layer look harmless."""
    probe, x = LatentProbe(source, sensitivity, unit="layer"), random_input()
    reference = toy_model(x)
    probe.probe(toy_model, lambda: reference, reference, 0.5)
    assert set(probe.unreached) == set(probe.units)
    assert latents(probe.result()) == {}

    probe = LatentProbe(source, sensitivity, unit="block")
    toy_model.blocks[1].o = nn.Identity()  # the module tree lacks a layer of the source
    probe_once(probe, toy_model)
    assert probe.unreached == ("blocks.1.o",)
    assert set(latents(probe.result())) == set(probe.result().layers) - {"blocks.1.o", "head"}
    assert "blocks.1.o" in probe.result().unknown("nvfp4")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_shift_that_is_not_finite_is_unknown(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, value: float
) -> None:
    probe, x = LatentProbe(source, sensitivity, unit="layer"), random_input()
    reference = toy_model(x)
    probe_once(probe, toy_model, sigma=0.75)

    def run() -> Tensor:
        hooked = bool(toy_model.embed._forward_hooks)
        return toy_model(x) + (value if hooked else 0.0)

    probe.probe(toy_model, run, reference, 0.5)
    found = latents(probe.result())
    assert "embed" not in found and len(found) == len(probe.units) - 1
    assert probe.result().cost("embed", "nvfp4") is None


def test_a_reference_of_zero_makes_all_unknown(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    probe, x = LatentProbe(source, sensitivity, unit="layer"), random_input()
    with torch.no_grad():
        probe.probe(toy_model, lambda: toy_model(x) * 0, toy_model(x) * 0, 0.5)
    assert latents(probe.result()) == {}


def test_a_weight_with_nan_is_not_probed(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    state = dict(toy_model.state_dict())
    state["blocks.0.o.weight"] = torch.full((32, 32), torch.nan)
    probe = LatentProbe(StateDictSource(state), sensitivity, unit="layer")
    assert "blocks.0.o" not in probe.units and len(probe.units) == 18


def test_refusals(toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity) -> None:
    with pytest.raises(CalibrationError, match="sample with the probed model first"):
        LatentProbe(source, sensitivity, unit="layer").result()
    with pytest.raises(FormatError, match="quantizes nothing"):
        LatentProbe(source, sensitivity, formats=("bf16",))
    only_head = {"head": sensitivity.layers["head"]}
    with pytest.raises(CalibrationError, match="not measured for nvfp4"):
        LatentProbe(source, replace(sensitivity, layers=only_head))
    other = StateDictSource({n: t * 1.5 for n, t in toy_model.state_dict().items()})
    with pytest.raises(CalibrationError, match="different model"):
        LatentProbe(other, sensitivity)


def test_active_dropout_is_refused(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    probe = LatentProbe(source, sensitivity, unit="block")
    toy_model.blocks[0].ffn[1] = nn.Dropout(0.5)
    with pytest.raises(CalibrationError, match=r"blocks\.0\.ffn\.1 drops values"):
        probe_once(probe, toy_model.train())
    probe_once(probe, toy_model.eval())
    assert probe.calls == 1
