"""Recipes from the types of the layers in a GGUF."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.derive import DerivedRecipe, GgufMapping, recipe_from_gguf
from ...quant.formats import FORMATS
from ...quant.planning import take_inventory
from ..bridge.model_source import ModelSource
from ..files import folders


def inputs() -> list[io.Input]:
    """Return the widgets of this source."""
    return [
        io.Combo.Input(
            "gguf_file",
            options=folders.gguf_files(),
            tooltip="A GGUF of this model, or of another model of the same architecture. Its "
            "weights are not used.",
        ),
        io.Int.Input(
            "bits_limit",
            default=4,
            min=1,
            max=8,
            tooltip="Quantized types with up to this many bits become nvfp4. 4 means Q4_K, Q4_0, "
            "IQ4_XS and smaller types.",
        ),
        io.Combo.Input(
            "higher",
            options=list(FORMATS),
            default="float8_e4m3fn",
            tooltip="The format for quantized types with more bits, such as Q5_K, Q6_K and Q8_0.",
        ),
        io.Int.Input(
            "edge_blocks",
            default=0,
            min=0,
            max=64,
            tooltip="How many blocks at each end get edge_format instead. This applies to layers "
            "that the GGUF quantizes.",
        ),
        io.Combo.Input(
            "edge_format",
            options=list(FORMATS),
            default="bf16",
            tooltip="The format for those blocks.",
        ),
    ]


def derived(choice: dict[str, Any], model: Any = None) -> DerivedRecipe:
    """Return the recipe for the values of `inputs`, and notes."""
    target = None
    if model is not None:
        with ModelSource(model) as source:
            target = take_inventory(source)
    mapping = GgufMapping(
        choice["bits_limit"], choice["higher"], choice["edge_blocks"], choice["edge_format"]
    )
    made = recipe_from_gguf(folders.source_path(choice["gguf_file"]), mapping, target)
    return DerivedRecipe(made.recipe, tuple(f"note: {note}" for note in made.notes))
