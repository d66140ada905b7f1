"""A recipe, but other formats where calibration advises against its own."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.derive import recipe_from_statistics
from ...quant.formats import FORMATS
from ...quant.planning import Recipe
from ..inputs.sockets import CATEGORY, StatisticsSocket
from .derived import base_input, default_recipe, derived_outputs, derived_result


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
                base_input(),
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
        """Compare with the limits."""
        error = max_input_error / 100
        return derived_result(
            recipe_from_statistics(
                statistics, recipe or default_recipe(), error, max_spread, careful, unseen
            )
        )
