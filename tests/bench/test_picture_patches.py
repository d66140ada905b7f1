"""Patches keep their pixels, prompts name what they show, and drawing is repeatable."""

from __future__ import annotations

import pytest
import torch
from picture_patches import (
    PICTURES,
    draw_patches,
    empty_prompts,
    load_pictures,
    prompts,
    sample_prompts,
    to_images,
    to_patches,
)
from sample_tiny_flux import fit_judge


def gradients() -> list[torch.Tensor]:
    """Pictures whose channels are the number of the picture, the row and the column."""
    rows, columns = torch.meshgrid(torch.arange(90.0), torch.arange(120.0), indexing="ij")
    return [torch.stack([torch.full_like(rows, n), rows, columns]) for n in range(3)]


def test_patches_are_the_image_row_by_row() -> None:
    image = torch.rand(2, 3, 32, 32)
    patches = to_patches(image)
    assert patches.shape == (2, 64, 48)
    torch.testing.assert_close(to_images(patches), image)
    marked = image.clone()
    marked[:, :, 4:8, 12:16] = 5.0  # the second row of patches, the fourth column
    changed = (to_patches(marked) != patches).any(dim=2)
    assert changed.nonzero()[:, 1].tolist() == [11, 11]


def test_drawn_patches_have_the_labels_and_places_that_they_show() -> None:
    images, labels, places = draw_patches(gradients(), 50, torch.Generator().manual_seed(0))
    assert images.shape == (50, 3, 32, 32)
    assert images[:, 0, 0, 0].tolist() == labels.tolist()
    corners = images[:, 1:, 0, 0]
    room = torch.tensor([90 - 31, 120 - 31])
    # a corner on the border of two cells of the 4x4 can be in either
    assert (corners * 4 // room <= places).all() and (places * room < (corners + 1) * 4).all()


def test_drawing_depends_on_the_seed_alone() -> None:
    first, again, other = (
        draw_patches(gradients(), 5, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_prompts_differ_in_the_words_that_differ() -> None:
    made = prompts(torch.tensor([0, 0, 1]), torch.tensor([[1, 2], [1, 3], [1, 2]]))
    same = [(made.tokens[0] == made.tokens[n]).all(dim=1).tolist() for n in (1, 2)]
    assert same == [[True, True, False, *[True] * 5], [False, *[True] * 7]]
    assert torch.equal(made.pooled[0], made.pooled[1])
    assert not torch.equal(made.pooled[0], made.pooled[2])


def test_dropped_prompts_are_empty() -> None:
    wanted, _ = sample_prompts(4)
    dropped = wanted.dropped(torch.tensor([True, False, False, True]))
    assert torch.equal(dropped.tokens[[0, 3]], empty_prompts(2).tokens)
    assert torch.equal(dropped.pooled[1:3], wanted.pooled[1:3])


def test_samples_show_all_pictures_equally() -> None:
    _, labels = sample_prompts(4 * len(PICTURES))
    assert labels.bincount().tolist() == [4] * len(PICTURES)


def test_the_judge_tells_scikit_images_pictures_apart() -> None:
    pytest.importorskip("skimage")
    pictures = load_pictures()
    assert [picture.shape[0] for picture in pictures] == [3] * len(PICTURES)
    images, labels, _ = draw_patches(pictures, 300, torch.Generator().manual_seed(5))
    assert fit_judge(pictures).accuracy(images, labels) > 0.8
