"""The probe does not disturb a sampling and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.model import MODEL_PATH, load_model
from nvfp4_foundry.demo.sampling import simple_sigmas
from nvfp4_foundry.quant.sensitivity.artefact import CandidateErrors, LayerSensitivity, Sensitivity
from nvfp4_foundry.quant.sensitivity.probe import LatentProbe
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from torch import Tensor, nn

from tests.helpers.probing import hooks, latents, probe_once, random_input


class Interrupted(BaseException):
    """Like ComfyUI's interruption, this is not an `Exception`."""


@pytest.mark.parametrize("where", ["between units", "in the model", "in a layer"])
def test_an_exception_leaves_nothing_behind(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity, where: str
) -> None:
    probe = LatentProbe(source, sensitivity, unit="block")
    probe_once(probe, toy_model)
    before = latents(probe.result())
    x, runs = random_input(5), []
    reference = toy_model(x)

    def stop() -> None:
        raise Interrupted

    def run() -> Tensor:
        runs.append(hooks(toy_model))
        if len(runs) == 3 and where == "in the model":
            stop()
        if len(runs) == 3 and where == "in a layer":
            handle = toy_model.head.register_forward_pre_hook(lambda *a: stop())
            try:
                return toy_model(x)
            finally:
                handle.remove()
        return toy_model(x)

    def on_unit(done: int, total: int, unit: str) -> None:
        if done == 3 and where == "between units":
            stop()

    with pytest.raises(Interrupted):
        probe.probe(toy_model, run, reference, 0.25, on_unit)
    assert runs[-1] > 0 and hooks(toy_model) == 0
    assert torch.equal(toy_model(x), reference)
    assert probe.calls == 1 and latents(probe.result()) == before  # nothing of the broken call


def test_torch_random_state_is_untouched(
    toy_model: nn.Module, source: StateDictSource, sensitivity: Sensitivity
) -> None:
    probe, x = LatentProbe(source, sensitivity, unit="block"), random_input()
    drawn: list[Tensor] = []

    def run() -> Tensor:
        drawn.append(torch.rand(4))
        return toy_model(x)

    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    probe.probe(toy_model, run, toy_model(x), 0.5)
    assert torch.equal(torch.rand(4), expected)
    assert len(drawn) == 4 and all(torch.equal(values, expected) for values in drawn)


def demo_sensitivity(statistics: bool = False) -> tuple[StateDictSource, Sensitivity]:
    """Return the demo model's weights and a sensitivity without output errors."""
    with open_source(MODEL_PATH) as file:
        source = StateDictSource({name: file.load(name) for name in file.tensors})
    candidates = {"nvfp4": CandidateErrors()}
    names = [n for n in source.fingerprint().shapes if n.startswith("blocks.")]
    layers = {
        n: LayerSensitivity(n, source.info(f"{n}.weight").shape, None, candidates) for n in names
    }
    return source, Sensitivity(source.fingerprint(), "max", layers)


def ancestral(model: nn.Module, on_call: Callable[[Callable[[], Tensor], Tensor, float], None]):
    """Sample the demo model, adding noise from torch's global generator at every step."""
    torch.manual_seed(5)
    x, context = torch.randn(2, 16, 1, 8, 8), load_task().contexts([3, 4]).float()
    sigmas = simple_sigmas(4).tolist()
    with torch.no_grad():
        for sigma, following in pairwise(sigmas):

            def run(x: Tensor = x, sigma: float = sigma) -> Tensor:
                return model(x, torch.full((2,), 1000 * sigma), context)

            velocity = run()
            on_call(run, velocity, sigma)
            x = x + (following - sigma) * velocity + 0.1 * following * torch.randn_like(x)
    return x


def test_sampling_the_demo_model_is_bit_equal() -> None:
    source, sensitivity = demo_sensitivity()
    model = load_model()
    wanted = ancestral(model, lambda *call: None)
    probe = LatentProbe(source, sensitivity, unit="block")
    chosen = simple_sigmas(4).tolist()[1:4:2]

    def on_call(run: Callable[[], Tensor], reference: Tensor, sigma: float) -> None:
        if sigma in chosen:
            probe.probe(model, run, reference, sigma)

    assert torch.equal(ancestral(model, on_call), wanted)
    assert probe.calls == 2 and hooks(model) == 0
    found = latents(probe.result())
    assert len(found) == 40
    assert all(len(shift) == 2 and 0 < max(shift.values()) < 0.2 for shift in found.values())
