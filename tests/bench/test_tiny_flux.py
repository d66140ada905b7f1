"""The small Flux has Flux's names, and reads all of its inputs."""

from __future__ import annotations

import pytest
import tiny_flux
import torch
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.planning.architectures import detect_architecture
from nvfp4_foundry.quant.sources import StateDictSource
from picture_patches import load_pictures, sample_prompts, to_images
from sample_tiny_flux import fit_judge, sample
from tiny_flux import CHANNELS, POOLED, TEXT, TinyFlux, load_model, new_model


@pytest.fixture(scope="module")
def model() -> TinyFlux:
    """A model whose gates are open."""
    with torch.random.fork_rng():
        made = new_model()
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def draw_inputs(tokens: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 64, CHANNELS), (2, tokens, TEXT), (2, POOLED))
    image, text, pooled = (torch.randn(shape, generator=generator) for shape in shapes)
    return [image, torch.tensor([0.3, 0.9]), text, pooled]


def test_it_is_recognised_as_flux_and_its_preset_fits(model: TinyFlux) -> None:
    inventory = take_inventory(StateDictSource(dict(model.state_dict()), "tiny Flux"))
    assert detect_architecture(inventory).id == "flux1"
    plan = make_plan(get_preset("flux1").build({}), inventory)
    formats = {layer.name: layer.format for layer in plan.layers}
    assert formats["double_blocks.1.img_attn.qkv"] == "nvfp4"
    assert formats["single_blocks.0.linear1"] == "nvfp4"
    assert formats["single_blocks.3.linear2"] == "float8_e4m3fn"
    assert formats["final_layer.linear"] == formats["img_in"] == "keep"


@torch.no_grad()
def test_every_input_matters(model: TinyFlux) -> None:
    inputs = draw_inputs()
    velocity = model(*inputs)
    assert velocity.shape == (2, 64, CHANNELS)
    for number in range(len(inputs)):
        changed = [x * 0.5 if i == number else x for i, x in enumerate(inputs)]
        assert not torch.allclose(model(*changed), velocity, atol=1e-3), number


@torch.no_grad()
def test_the_place_of_a_patch_matters(model: TinyFlux) -> None:
    """Without positions, patches in another order would have velocities in that order."""
    image, *others = draw_inputs()
    turned = model(image.flip(1), *others).flip(1)
    assert not torch.allclose(turned, model(image, *others), atol=1e-3)


def test_text_is_at_the_origin_and_images_are_in_rows() -> None:
    angles = tiny_flux.rotations(text_tokens=3).angle()
    assert not angles[:3].any()
    row, column = angles[3 + 1 * 8 + 2, [4, 18]].tolist()  # the fastest angles of both axes
    assert (row, column) == pytest.approx((1.0, 2.0))


@torch.no_grad()
def test_an_untrained_model_predicts_zero() -> None:
    with torch.random.fork_rng():
        assert not new_model()(*draw_inputs()).any()


def test_the_trained_model_draws_what_the_prompt_names() -> None:
    pytest.importorskip("skimage")
    wanted, labels = sample_prompts(12)
    images = to_images(sample(load_model(), wanted, seed=4, steps=6))
    assert fit_judge(load_pictures()).accuracy(images, labels) >= 0.5, "chance is a twelfth"
