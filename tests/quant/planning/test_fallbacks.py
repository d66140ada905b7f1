"""A layer whose shape a format cannot store gets the next format that can, not 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.derive import recipe_from_gguf
from nvfp4_foundry.quant.formats import FORMATS, get_format
from nvfp4_foundry.quant.planning import (
    Inventory,
    Plan,
    Recipe,
    for_gpu,
    get_preset,
    inventory_of,
    make_plan,
    parse_rule_lines,
)
from nvfp4_foundry.quant.planning.fallbacks import next_formats
from nvfp4_foundry.quant.sources import TensorInfo
from nvfp4_foundry.quant.sources.base import StoredAs

from tests.helpers.gguf_files import write_gguf

#: OmniGen2: the width is no multiple of 32, the width of the feed-forward is.
OMNIGEN2 = {
    "attn.to_q": (2520, 2520), "attn.to_k": (840, 2520), "attn.to_v": (840, 2520),
    "attn.to_out.0": (2520, 2520), "feed_forward.linear_1": (10240, 2520),
    "feed_forward.linear_2": (2520, 10240), "feed_forward.linear_3": (10240, 2520),
}  # fmt: skip
FITS = "feed_forward.linear_2"


def omnigen2(blocks: int = 4) -> Inventory:
    return inventory_of(
        TensorInfo(f"layers.{i}.{name}.weight", shape, torch.bfloat16)
        for i in range(blocks)
        for name, shape in OMNIGEN2.items()
    )


def formats(plan: Plan) -> dict[str, str]:
    """Return the formats of block 1 by the name in the block."""
    return {
        layer.name.removeprefix("layers.1."): layer.format
        for layer in plan.layers
        if layer.name.startswith("layers.1.")
    }


@pytest.mark.parametrize(
    ("wanted", "odd", "even"),
    [
        ("nvfp4", "float8_e4m3fn", "nvfp4"),
        ("nvfp4_w4a16", "float8_e4m3fn_w8a16", "nvfp4_w4a16"),
        ("convrot_w4a4", "int8_rowwise", "convrot_w4a4"),
        ("int8_convrot", "int8_rowwise", "int8_convrot"),
        ("float8_e4m3fn", "float8_e4m3fn", "float8_e4m3fn"),
        ("mxfp8", "mxfp8", "mxfp8"),
    ],
)
def test_all_takes_the_next_format(wanted: str, odd: str, even: str) -> None:
    plan = make_plan(get_preset("all").build({"format": wanted}), omnigen2())
    expected = {name: even if name == FITS else odd for name in OMNIGEN2}
    assert formats(plan) == expected
    assert plan.warnings == ()
    if odd != wanted:
        reason = next(la.reason for la in plan.layers if la.name == "layers.1.attn.to_q")
        assert f"; {odd}, because {wanted} is not possible: " in reason
        assert "2520" in reason and "Linear layer inside a block" in reason


@pytest.mark.parametrize("name", FORMATS)
def test_chains_end_at_a_format_that_stores_every_shape(name: str) -> None:
    chain = [name, *next_formats(name)]
    assert len(set(chain)) == len(chain)
    last = get_format(chain[-1])
    assert all(last.refusal((rows, columns)) is None for rows in (1, 7) for columns in (1, 33))
    bits = [get_format(fmt).bits for fmt in chain]
    assert bits == sorted(bits), "a chain goes from few bits to many"


def test_a_users_rule_says_it_in_a_warning() -> None:
    recipe = get_preset("smart").build().with_rules(parse_rule_lines("*.to_[qk] = nvfp4"))
    plan = make_plan(recipe, omnigen2())
    assert formats(plan)["attn.to_q"] == "float8_e4m3fn"
    assert plan.warnings == (
        "layers.0.attn.to_q, layers.1.attn.to_q, layers.2.attn.to_q and 1 more become "
        "float8_e4m3fn instead of nvfp4: the native NVFP4 product needs in_features % 32 == 0 and "
        "out_features % 8 == 0, but they are 2520 and 2520",
        "layers.0.attn.to_k, layers.1.attn.to_k, layers.2.attn.to_k and 1 more become "
        "float8_e4m3fn instead of nvfp4: the native NVFP4 product needs in_features % 32 == 0 and "
        "out_features % 8 == 0, but they are 2520 and 840",
    )


def test_the_target_gpu_is_honoured() -> None:
    """The formats of Turing and Ampere give way to formats of Turing and Ampere."""
    plan = make_plan(for_gpu(get_preset("all").build(), "turing_ampere"), omnigen2())
    assert formats(plan) == {n: "convrot_w4a4" if n == FITS else "int8_rowwise" for n in OMNIGEN2}
    ada = make_plan(for_gpu(get_preset("all").build(), "ada_hopper"), omnigen2())
    assert set(formats(ada).values()) == {"float8_e4m3fn"}


def test_a_fallback_of_the_rule_comes_first() -> None:
    rule = {"format": "nvfp4", "fallback": "mxfp8"}
    plan = make_plan(Recipe.model_validate({"rules": [rule]}), omnigen2())
    assert formats(plan)["attn.to_q"] == "mxfp8"
    kept = make_plan(Recipe.model_validate({"rules": [{**rule, "fallback": "keep"}]}), omnigen2())
    assert formats(kept)["attn.to_q"] == "keep" and kept.warnings == ()


def test_a_default_has_the_same_chain() -> None:
    assert formats(make_plan(Recipe(default="nvfp4"), omnigen2()))["attn.to_q"] == "float8_e4m3fn"


def test_from_gguf(tmp_path: Path) -> None:
    """A GGUF's 4-bit layer of an odd width becomes float8, as its recipe is applied."""
    tensors = {f"layers.{i}.{n}.weight": torch.randn(16, 96 if n == "a" else 32 * 3 + 16 * 2)
               for i in range(2) for n in ("a", "b")}  # fmt: skip
    tensors |= {f"layers.{i}.odd.weight": torch.randn(12, 96) for i in range(2)}
    path = write_gguf(tmp_path / "m.gguf", tensors, "Q4_0", architecture=None)
    inventory = inventory_of(
        TensorInfo(n, tuple(t.shape), torch.bfloat16) for n, t in tensors.items()
    )
    plan = make_plan(recipe_from_gguf(path).recipe, inventory)
    assert {la.name[9:]: la.format for la in plan.layers} == {
        "a": "nvfp4", "b": "nvfp4", "odd": "float8_e4m3fn",
    }  # fmt: skip
    assert plan.warnings == ()


def test_a_layer_that_is_stored_as_small_stays_as_it_is() -> None:
    """Decoding int8 to store it as float8 would lose precision and save nothing."""
    stored = StoredAs("int8", 64 * 100, "int8_rowwise")
    info = TensorInfo("a.weight", (64, 100), torch.float32, stored=stored)
    plan = make_plan(Recipe(default="nvfp4"), inventory_of([info]))
    assert plan.layers[0].format == "int8_rowwise"
