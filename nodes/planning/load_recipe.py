"""The node that loads a recipe, or makes one from a GGUF, a checkpoint or a calibration."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.derive import DerivedRecipe
from ...quant.errors import RecipeError
from ...quant.planning import Recipe, load_recipe
from ...quant.reports.mix import describe_recipe
from ..derive import from_calibration, from_checkpoint, from_gguf
from ..files import folders
from ..files.artefacts import CALIBRATIONS, RECIPES
from ..foundry_node import FoundryNode
from ..inputs.saved import saved_input
from ..inputs.sockets import RECIPES as RECIPES_MENU
from ..inputs.sockets import RecipeSocket, StatisticsSocket
from ..prompts.validation import constant_inputs
from ..reports.errors import refused
from ..reports.shown import shown_text

_FILE, _GGUF, _CHECKPOINT, _CALIBRATION = "recipe file", "GGUF", "checkpoint", "calibration"


class LoadRecipe(FoundryNode):
    """Load a recipe, or make one from something else."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadRecipe",
            display_name="Load Recipe",
            category=RECIPES_MENU,
            description=(
                "Loads a saved recipe, or makes one: from the types of the layers in a GGUF, from "
                "the formats in a quantized checkpoint, or from what a calibration advises."
            ),
            search_aliases=[
                "nvfp4 recipe",
                "load mix",
                "recipe file",
                "import recipe",
                "gguf recipe",
                "k-quant",
                "q4_k_m",
                "copy formats",
                "same layers as",
                "activation outliers",
                "mixed precision",
                "fp8",
            ],
            inputs=[
                _source_input(),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="For a GGUF: the model to quantize. Layers of the GGUF that it does "
                    "not have are left out, and the report names them.",
                ),
                RecipeSocket.Input(
                    "recipe",
                    optional=True,
                    tooltip="For a calibration: the recipe to change. It sets which layers to "
                    "quantize, the rounding and the input scales. Without it, 'smart' is used.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    optional=True,
                    tooltip="For a calibration: the one to use, if none is chosen by name.",
                ),
            ],
            outputs=[
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, source: Any) -> bool | str:
        """Report a missing file before the queue starts."""
        problem = _why_not(constant_inputs())
        return refused(problem) if problem else True

    @classmethod
    def fingerprint_inputs(cls, source: Any = None, **others: Any) -> list[float]:
        """Return when the file changed, so that a changed file is read again."""
        choice = source if isinstance(source, dict) else {}
        if choice.get("source") == _FILE:
            return [RECIPES.modified(choice["name"])]
        if choice.get("source") == _CALIBRATION:
            return from_calibration.modified(choice["calibration"])
        return folders.modified(choice.get("gguf_file"), choice.get("model_file"))

    @classmethod
    def execute(
        cls,
        source: dict[str, Any] | None = None,
        model: Any = None,
        recipe: Recipe | None = None,
        statistics: CalibrationStatistics | None = None,
    ) -> io.NodeOutput:
        """Return the recipe and its report."""
        kind = source["source"] if source else None  # ComfyUI turns an unknown choice into None
        if source is None or kind is None:
            raise RecipeError("this workflow uses an unknown source of recipes; choose another one")
        if kind == _FILE:
            made = DerivedRecipe(load_recipe(RECIPES.path(source["name"])), ())
        elif kind == _GGUF:
            made = from_gguf.derived(source, model)
        elif kind == _CHECKPOINT:
            made = from_checkpoint.derived(source)
        else:
            made = from_calibration.derived(source, recipe, statistics)
        text = "\n".join([*made.notes, describe_recipe(made.recipe)])
        return io.NodeOutput(made.recipe, text, ui=shown_text(f"Recipe {made.recipe.name}", text))


def _source_input() -> io.Input:
    return io.DynamicCombo.Input(
        "source",
        options=[
            io.DynamicCombo.Option(_FILE, [saved_input(RECIPES)]),
            io.DynamicCombo.Option(_GGUF, from_gguf.inputs()),
            io.DynamicCombo.Option(_CHECKPOINT, from_checkpoint.inputs()),
            io.DynamicCombo.Option(_CALIBRATION, from_calibration.inputs()),
        ],
        tooltip="Where the recipe comes from. recipe file: Save Recipe or Auto Mix "
        "saved it. GGUF: layers with few bits in the GGUF become NVFP4. checkpoint: "
        "every layer gets the format that it has in the file. calibration: layers "
        "whose inputs do not tolerate rounding get another format.",
    )


def _why_not(inputs: dict[str, Any]) -> str | None:
    """Return which file of the chosen source is missing, or None."""
    kind = inputs.get("source")
    if kind == _FILE:
        valid = RECIPES.check_saved(inputs.get("source.name"))
    elif kind == _CALIBRATION and inputs.get("source.calibration") != from_calibration.CONNECTED:
        valid = CALIBRATIONS.check_saved(inputs.get("source.calibration"))
    else:
        file = inputs.get("source.gguf_file") or inputs.get("source.model_file")
        valid = folders.missing_source(file) or True
    return None if valid is True else str(valid)
