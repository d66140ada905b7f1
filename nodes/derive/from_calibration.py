"""The node that changes a recipe where a calibration advises against it."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.derive import recipe_from_statistics
from ...quant.formats import FORMATS
from ...quant.planning import Recipe
from ..inputs.sockets import CATEGORY, StatisticsSocket
from .derived import base_input, default_recipe, derived_outputs, derived_result


class RecipeFromCalibration(io.ComfyNode):
    """Change a recipe for layers where the calibration advises against its format."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromCalibration",
            display_name="Recipe From Calibration",
            category=CATEGORY,
            description=(
                "Changes the format of layers where the calibration advises against 4-bit "
                "activations: if rounding their inputs loses too much, if their ranges differ "
                "between prompts, or if they were never observed."
            ),
            search_aliases=["nvfp4 recipe", "activation outliers", "w4a16", "mixed precision"],
            inputs=[
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    tooltip="The calibration, from Calibration Result or Load Calibration.",
                ),
                base_input(),
                io.Float.Input(
                    "max_input_error",
                    default=12.0,
                    min=0.1,
                    max=99.0,
                    step=0.5,
                    tooltip="The largest error of a layer's input when it is rounded, in %. Layers "
                    "above it get the 'careful' format. 9 to 10 is usual for NVFP4.",
                ),
                io.Float.Input(
                    "max_spread",
                    default=4.0,
                    min=1.0,
                    max=1e6,
                    step=0.5,
                    tooltip="The largest factor between the input ranges of different runs. Layers "
                    "above it get the 'careful' format. A good value is the headroom of the "
                    "recipe, which is the room that a static scale leaves.",
                ),
                io.Combo.Input(
                    "careful",
                    options=list(FORMATS),
                    default="nvfp4_w4a16",
                    tooltip="The format for layers above a limit. nvfp4_w4a16 is as small as NVFP4 "
                    "and does not round inputs.",
                ),
                io.Combo.Input(
                    "unseen",
                    options=list(FORMATS),
                    default="keep",
                    tooltip="The format for layers that were not observed, or only partly.",
                ),
            ],
            outputs=derived_outputs(),
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
        """Return the changed recipe and its report."""
        error = max_input_error / 100
        return derived_result(
            recipe_from_statistics(
                statistics, recipe or default_recipe(), error, max_spread, careful, unseen
            )
        )
