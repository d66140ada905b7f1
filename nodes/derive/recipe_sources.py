"""Recipes that begin elsewhere: with a checkpoint or a measurement."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...quant.calibration import CalibrationStatistics
from ...quant.derive import (
    DerivedRecipe,
    recipe_from_checkpoint,
    recipe_from_sensitivity,
    recipe_from_statistics,
)
from ...quant.formats import FORMATS
from ...quant.planning import Recipe, get_preset
from ...quant.reports.mix import describe_recipe
from ...quant.sensitivity.artefact import Sensitivity
from ...quant.sources import open_source
from ..files import folders
from ..inputs.sockets import CATEGORY, RecipeSocket, SensitivitySocket, StatisticsSocket


class RecipeFromCheckpoint(io.ComfyNode):
    """The layer choices of a quantized file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromCheckpoint",
            display_name="Recipe From Checkpoint",
            category=CATEGORY,
            description=(
                "Gives every layer the format it has in an existing quantized file, of this or "
                "another tool. Its weights are not used."
            ),
            search_aliases=["nvfp4 recipe", "mirror checkpoint", "same layers as"],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.quantized_files(),
                    tooltip="A quantized checkpoint of your model or a finetune of it.",
                )
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, model_file: str | None) -> bool | str:
        """Say before the queue starts when the file is gone."""
        return folders.missing_source(model_file) or True

    @classmethod
    def fingerprint_inputs(cls, model_file: str) -> list[float]:
        """Look again when the file changed."""
        return folders.modified(model_file)

    @classmethod
    def execute(cls, model_file: str) -> io.NodeOutput:
        """Read the formats."""
        path = folders.source_path(model_file)
        with open_source(path) as checkpoint:
            return _result(recipe_from_checkpoint(checkpoint, path.stem))


class RecipeFromCalibration(io.ComfyNode):
    """A recipe, but other formats where calibration advises against its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromCalibration",
            display_name="Recipe From Calibration",
            category=CATEGORY,
            description=(
                "Changes a recipe where the calibration advises against 4-bit activations: inputs "
                "that lose too much when they are rounded, ranges that differ between prompts, and "
                "layers that were never observed."
            ),
            search_aliases=["nvfp4 recipe", "activation outliers", "w4a16"],
            inputs=[
                StatisticsSocket.Input(
                    "statistics", tooltip="From Calibration Result or Load Calibration."
                ),
                _base_input(),
                io.Float.Input(
                    "max_input_error",
                    default=12.0,
                    min=0.1,
                    max=99.0,
                    step=0.5,
                    tooltip="In %. Layers whose sampled inputs lose more than this by rounding "
                    "get the careful format. 9 to 10 is usual for NVFP4.",
                ),
                io.Float.Input(
                    "max_spread",
                    default=4.0,
                    min=1.0,
                    max=1e6,
                    step=0.5,
                    tooltip="Layers whose largest input differs by more than this factor between "
                    "runs get the careful format. A static scale leaves room for the headroom.",
                ),
                io.Combo.Input(
                    "careful",
                    options=list(FORMATS),
                    default="nvfp4_w4a16",
                    tooltip="The format of those layers. nvfp4_w4a16 is as small and does not "
                    "round inputs.",
                ),
                io.Combo.Input(
                    "unseen",
                    options=list(FORMATS),
                    default="keep",
                    tooltip="The format of layers that were not observed, or in part only.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        statistics: CalibrationStatistics,
        max_input_error: float,
        max_spread: float,
        careful: str,
        unseen: str,
        recipe: Recipe | None = None,
    ) -> io.NodeOutput:
        """Compare with the limits."""
        error = max_input_error / 100
        return _result(
            recipe_from_statistics(
                statistics, recipe or _usual(), error, max_spread, careful, unseen
            )
        )


class RecipeFromSensitivity(io.ComfyNode):
    """The cheapest format of each layer within a limit on its measured error."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromSensitivity",
            display_name="Recipe From Sensitivity",
            category=CATEGORY,
            description=(
                "Gives each layer that a recipe quantizes the smallest format whose measured "
                "error is within a limit. For a size or an error of the whole model take Auto Mix."
            ),
            search_aliases=["nvfp4 recipe", "error threshold", "sensitive layers"],
            inputs=[
                SensitivitySocket.Input(
                    "sensitivity",
                    tooltip="From Measure Sensitivity, Probe Result or Load Sensitivity.",
                ),
                _base_input(),
                io.Float.Input(
                    "max_error",
                    default=8.0,
                    min=0.1,
                    max=99.0,
                    step=0.5,
                    tooltip="In %: the largest error of a layer's output, inputs rounded too.",
                ),
                io.String.Input(
                    "formats",
                    default="",
                    placeholder="nvfp4, float8_e4m3fn",
                    tooltip="To choose from, separated by commas. Empty: all that were measured.",
                ),
                io.Combo.Input(
                    "otherwise",
                    options=list(FORMATS),
                    default="keep",
                    tooltip="The format where none keeps the limit, or the error is not known.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        sensitivity: Sensitivity,
        max_error: float,
        formats: str,
        otherwise: str,
        recipe: Recipe | None = None,
    ) -> io.NodeOutput:
        """Compare with the limit."""
        names = [name.strip() for name in formats.split(",") if name.strip()]
        return _result(
            recipe_from_sensitivity(
                sensitivity, recipe or _usual(), max_error / 100, names, otherwise
            )
        )


def _base_input() -> io.Input:
    return RecipeSocket.Input(
        "recipe",
        optional=True,
        tooltip="Says which layers are quantized at all, and the numbers. Without one it is the "
        "preset 'smart'.",
    )


def _usual() -> Recipe:
    return get_preset("smart").build()


def _outputs() -> list[io.Output]:
    return [
        RecipeSocket.Output(display_name="RECIPE"),
        io.String.Output(display_name="report"),
    ]


def _result(derived: DerivedRecipe) -> io.NodeOutput:
    text = "\n".join([*derived.notes, describe_recipe(derived.recipe)])
    return io.NodeOutput(derived.recipe, text, ui=ui.PreviewText(text))
