"""What nodes that derive a recipe share."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...quant.derive import DerivedRecipe
from ...quant.planning import Recipe, get_preset
from ...quant.reports.mix import describe_recipe
from ..inputs.sockets import RecipeSocket


def base_input() -> io.Input:
    return RecipeSocket.Input(
        "recipe",
        optional=True,
        tooltip="Says which layers are quantized at all, and the numbers. Without one it is the "
        "preset 'smart'.",
    )


def default_recipe() -> Recipe:
    return get_preset("smart").build()


def derived_outputs() -> list[io.Output]:
    return [
        RecipeSocket.Output(display_name="RECIPE"),
        io.String.Output(display_name="report"),
    ]


def derived_result(derived: DerivedRecipe) -> io.NodeOutput:
    text = "\n".join([*derived.notes, describe_recipe(derived.recipe)])
    return io.NodeOutput(derived.recipe, text, ui=ui.PreviewText(text))
