"""A recipe from a checkpoint gives the same formats again, for files of all tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.derive import recipe_from_checkpoint
from nvfp4_foundry.quant.errors import PlanError, RecipeError
from nvfp4_foundry.quant.planning import make_plan, take_inventory
from nvfp4_foundry.quant.sources import (
    StateDictSource,
    StoredAs,
    TensorInfo,
    decoded,
    open_source,
)
from safetensors.torch import save_file

from tests.helpers.conversions import plan_of

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
    with open_source(made) as checkpoint, open_source(source) as model:
        derived = recipe_from_checkpoint(checkpoint, "theirs")
        again = make_plan(derived.recipe, take_inventory(model))
        wanted = {la.name: la.format for la in plan_of(model).layers}
    wanted["head.modulation"] = "keep"  # fp32 there, but not quantized
    assert {la.name: la.format for la in again.layers} == wanted
    assert again.warnings == ()
    assert derived.recipe.architectures == ("wan-t2v",)
    assert derived.notes == (
        "quantized Linear layers in theirs: 32 nvfp4; 4 float8_e4m3fn; 4 nvfp4_w4a16",
    )
    assert next(la.reason for la in again.layers if la.name == Q).endswith("(as in theirs)")


def test_layers_the_model_lacks_are_an_error(files: tuple[Path, Path], toy_wan: Toy) -> None:
    with open_source(files[1]) as checkpoint:
        recipe = recipe_from_checkpoint(checkpoint, "theirs").recipe
    shallow = take_inventory(StateDictSource(toy_wan(blocks=3)))
    with pytest.raises(PlanError, match=r"does not have: blocks\.3\..* and \d more; the nearest"):
        make_plan(recipe, shallow)


def test_files_of_other_conventions(toy_wan: Toy) -> None:
    """Plain float8 casts, scaled float8 with diffusers-like suffixes, and ModelOpt's NVFP4."""
    tensors = toy_wan()
    for name in (F8, "blocks.1.ffn.2"):
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"].to(torch.float8_e4m3fn)
    tensors[f"{F8}.scale_weight"] = torch.tensor(0.5)
    tensors[f"{Q}.weight"] = torch.zeros(64, 32, dtype=torch.uint8)
    tensors[f"{Q}.weight_scale"] = torch.ones(64, 4).to(torch.float8_e4m3fn)
    tensors[f"{Q}.weight_scale_2"] = torch.tensor(1.0)
    derived = recipe_from_checkpoint(decoded(StateDictSource(tensors)), "theirs")
    assert {rule.format: set(rule.pattern) for rule in derived.recipe.rules} == {
        "float8_e4m3fn": {F8, "blocks.1.ffn.2"}, "nvfp4": {Q},
    }  # fmt: skip
    assert "1 float8_e4m3fn;" in f"{derived.notes[0]};"


def test_what_is_not_known_is_an_error(toy_wan: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="holds no quantized layer"):
        recipe_from_checkpoint(StateDictSource(toy_wan()), "x")
    about = StoredAs("Q4_K", 1000)
    odd = StateDictSource({"other.weight": torch.zeros(64, 64)})
    info = TensorInfo("other.weight", (64, 64), torch.bfloat16, about)
    monkeypatch.setattr(type(odd), "tensors", {"other.weight": info})
    with pytest.raises(RecipeError, match=r"other of x is stored as Q4_K, which is not one .*gguf"):
        recipe_from_checkpoint(odd, "x")
