"""The heat map: every layer is in its place, darker is worse, unknown is hatched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.reports.pictures.palette import LIGHT
from nvfp4_foundry.quant.reports.pictures.sensitivity import draw_sensitivity, picture_tensor
from nvfp4_foundry.quant.reports.pictures.sheet import MARGIN, ROW
from nvfp4_foundry.quant.sensitivity.artefact import CandidateErrors, LayerSensitivity, Sensitivity
from PIL import Image

HEADINGS = 28 + 30 + 20  # the first row of cells begins below them
PAPER, HATCH = (255, 255, 255), LIGHT.hatch
KINDS = ("attn.q", "attn.o", "ffn.0")


def make(errors: dict[str, float | None], blocks: int = 20) -> Sensitivity:
    """Return a model with three kinds of layer per block and one outside; errors default to 0.1."""
    names = [f"blocks.{b}.{kind}" for b in range(blocks) for kind in KINDS] + ["head"]
    layers = {
        n: LayerSensitivity(n, (64, 64), n, {"nvfp4": CandidateErrors(w4a4=errors.get(n, 0.1))})
        for n in names
    }
    fingerprint = ModelFingerprint(dict.fromkeys(names, (64, 64)), {})
    return Sensitivity(fingerprint, "mse", layers)


def colours(picture: Image.Image) -> list[tuple[int, ...]]:
    """Return every pixel."""
    return [tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()]


def cell(picture: Image.Image, row: int, block: int, blocks: int = 20) -> list[tuple[int, ...]]:
    """Return the pixels inside a cell, which begin right of the row labels."""
    width = min(54, max(14, 880 // blocks))
    top = MARGIN + HEADINGS + row * ROW
    border = LIGHT.line
    line = [picture.getpixel((x, top)) for x in range(picture.width)]
    left = line.index(border) + block * width
    box = (left + 1, top + 1, left + width - 2, top + ROW - 2)
    return colours(picture.crop(box))


def darkness(pixels: list[tuple[int, ...]]) -> int:
    """Return how dark the most frequent colour is."""
    return -sum(max(set(pixels), key=pixels.count))


def test_worse_is_darker_and_unknown_is_hatched() -> None:
    errors = {"blocks.3.attn.q": 0.05, "blocks.5.attn.q": 0.2, "blocks.7.ffn.0": None}
    picture = draw_sensitivity(make(errors))
    best, usual, worst = (darkness(cell(picture, 0, block)) for block in (3, 4, 5))
    assert best < usual < worst
    assert HATCH in cell(picture, 2, 7)
    assert HATCH not in cell(picture, 2, 6) + cell(picture, 0, 5)


def test_a_layer_that_cannot_take_the_format_is_left_out() -> None:
    whole = make({})
    layers = {n: la for n, la in whole.layers.items() if n != "blocks.2.attn.o"}
    picture = draw_sensitivity(replace(whole, layers=layers))
    assert set(cell(picture, 1, 2)) == {PAPER}
    assert set(cell(draw_sensitivity(whole), 1, 2)) != {PAPER}


def test_latents_are_drawn_where_they_were_measured() -> None:
    """Block 4 has the worst output error, block 6 the worst latent shift."""
    whole = make({"blocks.4.attn.q": 0.4})
    shifts = {name: {0.5: 0.9 if name == "blocks.6.attn.q" else 0.5} for name in whole.layers}
    errors, latents = (draw_sensitivity(s) for s in (whole, whole.with_latents("nvfp4", shifts)))
    for picture, worst, other in ((errors, 4, 6), (latents, 6, 4)):
        assert darkness(cell(picture, 0, worst)) > darkness(cell(picture, 0, other))


@pytest.mark.parametrize(
    "sensitivity",
    [
        make(dict.fromkeys(make({}).layers)),  # nothing known
        make({}, blocks=0),  # no blocks at all
        make({}, blocks=2),
        make({}, blocks=60),
        make({"head": 0.0, "blocks.1.attn.q": 1e-6}),
        make({"head": 50.0}),
    ],
)
def test_extremes_can_be_drawn(sensitivity: Sensitivity) -> None:
    picture = draw_sensitivity(sensitivity)
    assert 200 < picture.width < 1400 and 100 < picture.height < 400
    margins = [(0, 0, picture.width, MARGIN - 4), (picture.width - 8, 0, *picture.size)]
    assert all(set(colours(picture.crop(box))) == {PAPER} for box in margins)


def test_many_layers_outside_of_blocks_do_not_fill_the_sheet() -> None:
    names = [f"extra_{number}" for number in range(100)]
    layers = {
        n: LayerSensitivity(n, (64, 64), n, {"nvfp4": CandidateErrors(w4a4=0.1)}) for n in names
    }
    fingerprint = ModelFingerprint(dict.fromkeys(names, (64, 64)), {})
    assert draw_sensitivity(Sensitivity(fingerprint, "mse", layers)).height < 800


def test_as_a_tensor() -> None:
    picture = draw_sensitivity(make({}))
    tensor = picture_tensor(picture)
    assert tensor.shape == (1, picture.height, picture.width, 3) and tensor.dtype == torch.float32
    assert torch.equal(tensor[0, 0, 0], torch.ones(3))
    x, y = picture.width // 3, MARGIN + HEADINGS + 5
    assert (tensor[0, y, x] * 255).round().int().tolist() == list(picture.getpixel((x, y)))
