"""A recipe from the formats of a quantized file."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.derive import recipe_from_checkpoint
from ...quant.sources import open_source
from ..files import folders
from ..inputs.sockets import CATEGORY
from .derived import derived_outputs, derived_result


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
            outputs=derived_outputs(),
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
            return derived_result(recipe_from_checkpoint(checkpoint, path.stem))
