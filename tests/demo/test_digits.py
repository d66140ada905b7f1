"""The codec, the contexts and the judge."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.demo.digits import DIGITS_PATH, load_task, new_task
from nvfp4_foundry.demo.judge import Judge, load_judge


def test_codec_direction_is_a_unit_vector_of_equal_shares() -> None:
    direction = load_task().direction
    assert direction.norm().item() == pytest.approx(1.0, abs=1e-7)
    assert torch.equal(direction.abs(), torch.full((16,), 0.25))


def test_codec_round_trips_and_scales_every_channel_alike() -> None:
    task = load_task()
    images = torch.rand(5, 8, 8)
    latents = task.encode(images)
    assert latents.shape == (5, 16, 1, 8, 8)
    assert torch.allclose(task.decode(latents), images, atol=1e-6)
    # An isometry up to one factor: distances between images are kept.
    pixels = (images[0] - images[1]).norm() / 0.376
    assert (latents[0] - latents[1]).norm().item() == pytest.approx(4 * pixels.item(), rel=1e-5)


def test_decode_ignores_what_lies_across_the_direction() -> None:
    task = load_task()
    latents = task.encode(torch.rand(2, 8, 8))
    across = torch.zeros(16)
    across[0], across[1] = task.direction[1], -task.direction[0]
    disturbed = latents + 3 * across.view(1, 16, 1, 1, 1)
    assert torch.allclose(task.decode(disturbed), task.decode(latents), atol=1e-6)


def test_shipped_task_is_the_one_of_its_seed() -> None:
    shipped, drawn = load_task(), new_task(seed=0)
    assert torch.equal(shipped.direction, drawn.direction)
    assert torch.equal(shipped.class_contexts, drawn.class_contexts)
    assert torch.equal(shipped.empty_context, drawn.empty_context)
    assert DIGITS_PATH.stat().st_size < 500_000


def test_contexts_differ_by_digit_and_pad_with_zeros() -> None:
    task = load_task()
    contexts = task.contexts([3, 3, 7])
    assert contexts.shape == (3, 4, 4096)
    assert torch.equal(contexts[0], contexts[1])
    assert not torch.equal(contexts[0], contexts[2])
    assert contexts[:, -1].abs().max() == 0
    assert task.empty_context.shape == (1, 4, 4096)


def test_judge_counts_matches() -> None:
    # This judge calls an image by the brightest of its first ten pixels.
    judge = Judge(weight=torch.eye(10, 64), bias=torch.zeros(10))
    images = torch.zeros(4, 64)
    images[torch.arange(4), torch.tensor([2, 5, 9, 0])] = 1.0
    images = images.view(4, 8, 8)
    assert judge.predict(images).tolist() == [2, 5, 9, 0]
    assert judge.accuracy(images, [2, 5, 9, 1]) == pytest.approx(0.75)


def test_shipped_judge_reads_real_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    images, labels = torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target)
    assert load_judge().accuracy(images, labels) > 0.95
