"""The node that makes a recipe from the formats of a quantized file."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.derive import recipe_from_checkpoint
from ...quant.sources import open_source
from ..files import folders
from ..inputs.sockets import CATEGORY
from .derived import derived_outputs, derived_result


class RecipeFromCheckpoint(io.ComfyNode):
    """Make a recipe from the formats of a quantized file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromCheckpoint",
            display_name="Recipe From Checkpoint",
            category=CATEGORY,
            description=(
                "Gives every layer the format that it has in an existing quantized file from this "
                "or another tool. The weights of the file are not used."
            ),
            search_aliases=["nvfp4 recipe", "copy formats", "same layers as", "fp8"],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.quantized_files(),
                    tooltip="A quantized checkpoint of your model, or of a finetune of it.",
                )
            ],
            outputs=derived_outputs(),
        )

    @classmethod
    def validate_inputs(cls, model_file: str | None) -> bool | str:
        """Report a missing file before the queue starts."""
        return folders.missing_source(model_file) or True

    @classmethod
    def fingerprint_inputs(cls, model_file: str) -> list[float]:
        """Return when the file changed, so that a changed file is read again."""
        return folders.modified(model_file)

    @classmethod
    def execute(cls, model_file: str) -> io.NodeOutput:
        """Return the recipe and its report."""
        path = folders.source_path(model_file)
        with open_source(path) as checkpoint:
            return derived_result(recipe_from_checkpoint(checkpoint, path.stem))
