"""A mirrored recipe gives the same formats again, whoever made the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conversions import plan_of
from nvfp4_foundry.quant.convert import convert
from nvfp4_foundry.quant.errors import PlanError, RecipeError
from nvfp4_foundry.quant.planning import make_plan, recipe_from_checkpoint, take_inventory
from nvfp4_foundry.quant.sources import StateDictSource, open_source, open_tensors
from safetensors.torch import load_file, save_file

Toy = Callable[..., dict[str, torch.Tensor]]
Q, F8 = "blocks.0.self_attn.q", "blocks.0.ffn.2"


@pytest.fixture
def files(tmp_path: Path, toy_wan: Toy) -> tuple[Path, Path]:
    """Return a source and a mixed checkpoint of it."""
    source, made = tmp_path / "source.safetensors", tmp_path / "made.safetensors"
    save_file(toy_wan(), source)
    with open_source(source) as opened:
        convert(opened, plan_of(opened), made)
    return source, made


def test_the_same_formats_again(files: tuple[Path, Path]) -> None:
    source, made = files
    with open_tensors(made) as checkpoint, open_source(source) as model:
        derived = recipe_from_checkpoint(checkpoint, "theirs")
        again = make_plan(derived.recipe, take_inventory(model))
        wanted = {la.name: la.format for la in plan_of(model).layers}
    wanted["head.modulation"] = "keep"  # fp32 there, but not quantized
    assert {la.name: la.format for la in again.layers} == wanted
    assert again.warnings == ()
    assert derived.recipe.architectures == ("wan-t2v",)
    assert derived.notes == ("as stored there: 32 nvfp4, 4 float8_e4m3fn, 4 nvfp4_w4a16",)
    assert next(la.reason for la in again.layers if la.name == Q).endswith("(as in theirs)")


def test_layers_the_model_lacks_are_an_error(files: tuple[Path, Path], toy_wan: Toy) -> None:
    with open_tensors(files[1]) as checkpoint:
        recipe = recipe_from_checkpoint(checkpoint, "theirs").recipe
    shallow = take_inventory(StateDictSource(toy_wan(blocks=3)))
    with pytest.raises(PlanError, match=r"does not have: blocks\.3\..* and \d more; the nearest"):
        make_plan(recipe, shallow)


def test_files_without_markers_go_by_dtype(toy_wan: Toy) -> None:
    """Plain float8 casts, and ModelOpt's NVFP4."""
    tensors = toy_wan()
    tensors[f"{F8}.weight"] = tensors[f"{F8}.weight"].to(torch.float8_e4m3fn)
    tensors[f"{Q}.weight"] = torch.zeros(64, 32, dtype=torch.uint8)
    tensors[f"{Q}.weight_scale"] = torch.ones(64, 4).to(torch.float8_e4m3fn)
    tensors[f"{Q}.weight_scale_2"] = torch.tensor(1.0)
    derived = recipe_from_checkpoint(StateDictSource(tensors), "cast")
    assert {rule.format: rule.pattern for rule in derived.recipe.rules} == {
        "float8_e4m3fn": (F8,), "nvfp4": (Q,),
    }  # fmt: skip
    assert "2 layers have no marker and go by their dtype" in derived.notes


def test_what_is_not_known_is_an_error(files: tuple[Path, Path], toy_wan: Toy) -> None:
    tensors = load_file(files[1])
    marker = json.dumps({"format": "int3_fancy"}).encode()
    tensors[f"{Q}.comfy_quant"] = torch.frombuffer(bytearray(marker), dtype=torch.uint8)
    with pytest.raises(RecipeError, match=rf"{Q} of x is stored as int3_fancy, which is not known"):
        recipe_from_checkpoint(StateDictSource(tensors), "x")
    with pytest.raises(RecipeError, match="holds no quantized layer"):
        recipe_from_checkpoint(StateDictSource(toy_wan()), "x")
    odd = {**toy_wan(), f"{Q}.weight": torch.zeros(64, 32, dtype=torch.uint8)}
    with pytest.raises(RecipeError, match="without saying in which format"):
        recipe_from_checkpoint(StateDictSource(odd), "x")


def test_what_cannot_be_mirrored_is_said(files: tuple[Path, Path]) -> None:
    tensors = load_file(files[1])
    marker = json.dumps({"format": "float8_e4m3fn", "full_precision_matrix_mult": True}).encode()
    tensors[f"{F8}.comfy_quant"] = torch.frombuffer(bytearray(marker), dtype=torch.uint8)
    notes = recipe_from_checkpoint(StateDictSource(tensors), "x").notes
    assert any(note.startswith("1 layers are multiplied in 16 bits there") for note in notes)
