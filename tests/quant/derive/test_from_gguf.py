"""A recipe from a GGUF: exactly the documented mapping, whatever names the file has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.derive import GgufMapping, recipe_from_gguf
from nvfp4_foundry.quant.errors import RecipeError
from nvfp4_foundry.quant.planning import Inventory, inventory_of, make_plan, take_inventory
from nvfp4_foundry.quant.planning.recipe_file import load_recipe
from nvfp4_foundry.quant.sources import StateDictSource, TensorInfo
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers

from tests.helpers.gguf_files import write_gguf

Toy = Callable[..., dict[str, torch.Tensor]]
SIZE = 256  # a K-quant's block

# layer of a block -> type in the GGUF, and the format the user guide gives it
LEGACY = {
    "self_attn.q": ("Q4_0", "nvfp4"), "self_attn.k": ("Q4_1", "nvfp4"),
    "self_attn.v": ("Q8_0", "float8_e4m3fn"), "self_attn.o": ("Q5_0", "float8_e4m3fn"),
    "cross_attn.q": ("Q5_1", "float8_e4m3fn"), "cross_attn.k": ("F16", "fp16"),
    "cross_attn.v": ("BF16", "bf16"), "cross_attn.o": ("F32", "fp32"),
    "ffn.0": ("MXFP4", "nvfp4"), "ffn.2": ("Q8_0", "float8_e4m3fn"),
}  # fmt: skip
K_QUANTS = {
    "self_attn.q": ("Q2_K", "nvfp4"), "self_attn.k": ("Q3_K", "nvfp4"),
    "self_attn.v": ("Q6_K", "float8_e4m3fn"), "self_attn.o": ("Q4_K", "nvfp4"),
    "cross_attn.q": ("Q5_K", "float8_e4m3fn"), "cross_attn.k": ("IQ4_XS", "nvfp4"),
    "cross_attn.v": ("IQ3_S", "nvfp4"), "cross_attn.o": ("Q8_K", "float8_e4m3fn"),
    "ffn.0": ("IQ2_XXS", "nvfp4"), "ffn.2": ("IQ4_NL", "nvfp4"),
}  # fmt: skip
OUTSIDE = {"text_embedding.0": ("F16", "fp16"), "text_embedding.2": ("F16", "fp16"),
           "time_embedding.0": ("F32", "fp32"), "time_embedding.2": ("F32", "fp32"),
           "time_projection.1": ("F32", "fp32"), "head.head": ("BF16", "bf16")}  # fmt: skip
BLOCKS = 4


@pytest.fixture
def model(toy_wan: Toy) -> dict[str, torch.Tensor]:
    return toy_wan(blocks=BLOCKS, width=SIZE)


def types(table: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return the type of each layer's weight, by layer name."""
    inside = {f"blocks.{i}.{n}": kind for i in range(BLOCKS) for n, (kind, _) in table.items()}
    return {**inside, **{name: kind for name, (kind, _) in OUTSIDE.items()}}


def expected(table: dict[str, tuple[str, str]]) -> dict[str, str]:
    inside = {f"blocks.{i}.{n}": fmt for i in range(BLOCKS) for n, (_, fmt) in table.items()}
    return {**inside, **{name: fmt for name, (_, fmt) in OUTSIDE.items()}}


def made(
    path: Path,
    model: dict[str, torch.Tensor],
    table: dict[str, tuple[str, str]],
    rename: Callable[[str], str] = str,
    **left_out: bool,
) -> Path:
    """Write the GGUF; norms and biases are F32, the patch embedding is missing."""
    kinds = {f"{name}.weight": kind for name, kind in types(table).items()}
    weights = {n: t for n, t in model.items() if n != "patch_embedding.weight"}
    by_name = {rename(n): kinds.get(n, "F32") for n in weights}
    renamed = {rename(n): t for n, t in weights.items()}
    return write_gguf(path, renamed, lambda name, _: by_name[name])


def formats(path: Path, model: dict[str, torch.Tensor], **mapping: object) -> dict[str, str]:
    """Return each Linear's planned format; every other layer has to be kept."""
    inventory = take_inventory(StateDictSource(model))
    recipe = recipe_from_gguf(path, GgufMapping(**mapping), inventory).recipe  # type: ignore[arg-type]
    plan = make_plan(recipe, inventory)
    assert plan.warnings == ()
    assert all(la.format == "keep" for la in plan.layers if la.kind != "linear")
    return {layer.name: layer.format for layer in plan.layers if layer.kind == "linear"}


def with_prefix(name: str) -> str:
    return f"model.diffusion_model.{name}"


@pytest.mark.parametrize("rename", [str, wan_to_diffusers, with_prefix])
@pytest.mark.parametrize("table", [LEGACY, K_QUANTS], ids=["legacy", "k-quants"])
def test_the_documented_mapping(
    table: dict[str, tuple[str, str]],
    rename: Callable[[str], str],
    model: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    path = made(tmp_path / "wan.gguf", model, table, rename)
    assert formats(path, model) == expected(table)


def test_reasons_name_the_type(model: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = made(tmp_path / "wan.gguf", model, K_QUANTS)
    recipe = recipe_from_gguf(path).recipe
    by_why = {rule.why: rule for rule in recipe.rules}
    assert by_why["Q6_K in the GGUF"].format == "float8_e4m3fn"
    assert by_why["Q6_K in the GGUF"].pattern == tuple(
        f"blocks.{i}.self_attn.v" for i in range(BLOCKS)
    )
    assert recipe.name == "from wan.gguf"


@pytest.mark.parametrize(
    ("limit", "four_bit"),
    [(2, {"Q2_K", "IQ2_XXS"}), (3, {"Q2_K", "IQ2_XXS", "Q3_K", "IQ3_S"}),
     (6, {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL"})],
)  # fmt: skip
@pytest.mark.parametrize("higher", ["bf16", "nvfp4_w4a16"])
def test_limit_and_higher(
    limit: int, four_bit: set[str], higher: str, model: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = made(tmp_path / "wan.gguf", model, K_QUANTS)
    wanted = {
        f"blocks.{i}.{name}": "nvfp4" if kind in four_bit else higher
        for i in range(BLOCKS)
        for name, (kind, _) in K_QUANTS.items()
    }
    found = formats(path, model, bits_limit=limit, higher=higher)
    assert {n: f for n, f in found.items() if n.startswith("blocks.")} == wanted


def test_edge_blocks_keep_what_was_quantized(
    model: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = made(tmp_path / "wan.gguf", model, LEGACY)
    wanted = expected(LEGACY)
    for i in (0, BLOCKS - 1):
        for name, (kind, _) in LEGACY.items():
            if kind not in ("F32", "F16", "BF16"):  # those stay what they are
                wanted[f"blocks.{i}.{name}"] = "nvfp4_w4a16"
    assert formats(path, model, edge_blocks=1, edge_format="nvfp4_w4a16") == wanted


def test_layers_of_only_one_side_are_named(model: dict[str, torch.Tensor], tmp_path: Path) -> None:
    extra = {**model, "blocks.0.extra.weight": torch.ones(SIZE, SIZE)}
    path = made(tmp_path / "wan.gguf", extra, LEGACY)
    target = take_inventory(StateDictSource({**model, "own.weight": torch.ones(SIZE, SIZE)}))
    result = recipe_from_gguf(path, target=target)
    assert result.notes == (
        "1 layers of the GGUF are not in the model, so the recipe leaves them out, "
        "e.g. blocks.0.extra",
        "1 Linear layers of the model are not in the GGUF and stay as they are, e.g. own",
    )
    named = {name for rule in result.recipe.rules for name in rule.pattern}
    assert "blocks.0.extra" not in named and "blocks.0.ffn.0" in named


def test_another_model_is_refused(model: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = made(tmp_path / "wan.gguf", model, LEGACY)
    other = inventory_of([TensorInfo("layers.0.q.weight", (64, 64), torch.bfloat16)])
    with pytest.raises(RecipeError, match=r"wan\.gguf is of another model"):
        recipe_from_gguf(path, target=other)


def test_embeddings_stay(tmp_path: Path) -> None:
    tensors = {"shared.weight": torch.ones(64, 32), "q.weight": torch.ones(64, 32),
               "embed_tokens.weight": torch.ones(64, 32)}  # fmt: skip
    path = write_gguf(
        tmp_path / "m.gguf", tensors, lambda n, _: "F16" if n.startswith("embed") else "Q4_0"
    )
    rules = recipe_from_gguf(path).recipe.rules
    assert {rule.pattern: rule.format for rule in rules} == {
        ("q",): "nvfp4", ("embed_tokens",): "fp16"
    }  # fmt: skip


def test_nothing_to_take(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a.bias": torch.ones(3)})
    with pytest.raises(RecipeError, match="no 2-D weights"):
        recipe_from_gguf(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"bits_limit": 0}, "from 1 to 8"), ({"bits_limit": 9}, "from 1 to 8"),
     ({"higher": "fp5"}, "fp5"), ({"edge_blocks": -1}, "edge blocks must be 0 or more, not -1"),
     ({"edge_format": "x"}, "'x'")],
)  # fmt: skip
def test_wrong_settings(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        GgufMapping(**wrong)  # type: ignore[arg-type]


def test_it_survives_a_file(
    model: dict[str, torch.Tensor], tmp_path: Path, inventory_named: Callable[[str], Inventory]
) -> None:
    recipe = recipe_from_gguf(made(tmp_path / "wan.gguf", model, LEGACY)).recipe
    path = tmp_path / "mine.json"
    path.write_text(recipe.to_json())
    assert load_recipe(path) == recipe
