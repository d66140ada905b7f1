"""The node that saves a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ...quant.errors import RecipeError
from ...quant.planning import Recipe, load_recipe, save_recipe
from ...quant.reports.mix import describe_recipe
from ..files.artefacts import RECIPES
from ..foundry_node import FoundryNode
from ..inputs.sockets import RECIPES as RECIPES_MENU
from ..inputs.sockets import RecipeSocket
from ..reports.errors import refused_if_invalid
from ..reports.shown import shown_text


class SaveRecipe(FoundryNode):
    """Save a recipe as JSON."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundrySaveRecipe",
            display_name="Save Recipe",
            category=RECIPES_MENU,
            description=(
                "Saves a recipe as JSON to keep and share. Load Recipe and "
                "'nvfp4 quantize --recipe' read it."
            ),
            search_aliases=["nvfp4 recipe", "export recipe", "share recipe"],
            inputs=[
                RecipeSocket.Input("recipe", tooltip="From any node that outputs a recipe."),
                io.String.Input(
                    "name",
                    default="my_recipe",
                    tooltip="The name of the file in output/nvfp4_foundry/recipes. If another "
                    "recipe has this name, a number is added.",
                ),
            ],
            outputs=[io.String.Output(display_name="report")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Report an invalid name before the queue starts."""
        return refused_if_invalid(RECIPES.check_new(name, optional=False))

    @classmethod
    def fingerprint_inputs(cls, name: str = "", **others: Any) -> int:
        """Return how often the saved file was deleted, so that it is saved again."""
        return RECIPES.times_lost(name)

    @classmethod
    def execute(cls, recipe: Recipe, name: str) -> io.NodeOutput:
        """Save the recipe and return where."""
        saved = RECIPES.save(name, lambda p: _holds(recipe, p), lambda p: save_recipe(recipe, p))
        text = "\n".join([*saved, describe_recipe(recipe)])
        return io.NodeOutput(text, ui=shown_text(f"Recipe {recipe.name}", text))


def _holds(recipe: Recipe, path: Path) -> bool:
    try:
        return load_recipe(path) == recipe
    except RecipeError:
        return False
