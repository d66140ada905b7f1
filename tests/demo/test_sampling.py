"""The schedule, the calls a collector sees, and the digits that come out."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.judge import load_judge
from nvfp4_foundry.demo.model import TinyWan, load_model
from nvfp4_foundry.demo.sampling import guided, initial_noise, sample, simple_sigmas


@pytest.fixture(scope="module")
def model() -> TinyWan:
    return load_model()


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_schedule_falls_from_one_to_zero_along_the_shifted_times(steps: int) -> None:
    sigmas = simple_sigmas(steps).double()
    times = 1 - torch.arange(steps, dtype=torch.float64) / steps
    expected = 8 * times / (1 + 7 * times)
    assert len(sigmas) == steps + 1
    assert sigmas[-1] == 0
    # The table has 1000 entries, so a time is off by up to 1/1000 and sigma by up to 8 times it.
    assert torch.allclose(sigmas[:-1], expected, atol=8e-3)
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        simple_sigmas(steps)


def test_digits_are_right(model: TinyWan) -> None:
    task, labels = load_task(), torch.arange(60) % 10
    images = task.decode(sample(model, labels, seed=123, steps=12))
    assert load_judge().accuracy(images, labels) >= 0.95


def test_digits_are_right_in_bfloat16() -> None:
    task, labels = load_task(), torch.arange(60) % 10
    images = task.decode(sample(load_model(dtype=torch.bfloat16), labels, seed=5, steps=12))
    assert load_judge().accuracy(images, labels) >= 0.95


def test_same_seed_same_latents(model: TinyWan) -> None:
    first, again = (sample(model, [4, 2], seed=9, steps=3) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, sample(model, [4, 2], seed=10, steps=3))
    assert torch.equal(initial_noise(2, 9), initial_noise(2, 9))


def test_on_step_comes_before_each_call_with_sigma_and_branches(model: TinyWan) -> None:
    events: list[object] = []

    def record_call(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        latent, timestep, _context = inputs
        events.append(("call", len(latent), timestep.tolist()))

    handle = model.register_forward_pre_hook(record_call)
    sample(model, [1, 2, 3], 0, steps=4, on_step=lambda *seen: events.append(("step", *seen)))
    handle.remove()

    sigmas = simple_sigmas(4).tolist()[:-1]
    assert events[0::2] == [("step", sigma, [0, 1]) for sigma in sigmas]
    for event, sigma in zip(events[1::2], sigmas, strict=True):
        assert event == ("call", 6, pytest.approx([1000 * sigma] * 6))


def test_chunks_are_conditional_then_unconditional(model: TinyWan) -> None:
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[2]))
    sample(model, [1, 2], 0, steps=1)
    handle.remove()
    task = load_task()
    assert torch.equal(seen[0][:2], task.contexts([1, 2]).float())
    assert torch.equal(seen[0][2:], task.empty_context.float().expand(2, -1, -1))


def test_guidance_of_one_runs_only_the_conditional_branch(model: TinyWan) -> None:
    branches: list[list[int]] = []
    unguided = sample(model, [8], 0, steps=2, cfg=1.0, on_step=lambda _, b: branches.append(b))
    assert branches == [[0], [0]]
    almost = sample(model, [8], 0, steps=2, cfg=1.0 + 1e-6)
    assert torch.allclose(unguided, almost, atol=1e-3)


def test_guidance_extrapolates_from_unconditional() -> None:
    velocity = torch.tensor([3.0, 1.0]).view(2, 1, 1, 1, 1)
    assert guided(velocity, [0, 1], cfg=2.0).item() == 5.0
