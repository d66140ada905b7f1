"""A recipe from the bits that the maker of a GGUF gave each layer."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.derive import GgufMapping, recipe_from_gguf
from ...quant.formats import FORMATS
from ...quant.planning import take_inventory
from ...quant.reports.mix import describe_recipe
from ..bridge.model_source import ModelSource
from ..files import folders
from ..inputs.sockets import CATEGORY, RecipeSocket


class RecipeFromGguf(io.ComfyNode):
    """The layer choices of a GGUF as a recipe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromGguf",
            display_name="Recipe From GGUF",
            category=CATEGORY,
            description=(
                "Takes a GGUF of your model as a map of what is sensitive: layers its maker gave "
                "few bits become NVFP4, layers with more bits a wider format. Its weights are not "
                "used."
            ),
            search_aliases=["gguf recipe", "k-quant", "mixed precision", "nvfp4 recipe"],
            inputs=[
                io.Combo.Input(
                    "gguf_file",
                    options=folders.gguf_files(),
                    tooltip="A GGUF in a model folder, of this model or of another of its "
                    "architecture.",
                ),
                io.Int.Input(
                    "bits_limit",
                    default=4,
                    min=1,
                    max=8,
                    tooltip="Types of up to so many bits become nvfp4: with 4, Q4_K, Q4_0, "
                    "IQ4_XS and smaller ones.",
                ),
                io.Combo.Input(
                    "higher",
                    options=list(FORMATS),
                    default="float8_e4m3fn",
                    tooltip="What quantized types of more bits become, such as Q5_K, Q6_K and "
                    "Q8_0.",
                ),
                io.Int.Input(
                    "edge_blocks",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How many blocks at each end are stored in edge_format instead, where "
                    "the GGUF quantizes them.",
                ),
                io.Combo.Input(
                    "edge_format",
                    options=list(FORMATS),
                    default="bf16",
                    tooltip="What those blocks are stored in.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model to quantize. Layers of the GGUF that it does not have are "
                    "left out and named.",
                ),
            ],
            outputs=[
                RecipeSocket.Output(display_name="RECIPE"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, gguf_file: str | None) -> bool | str:
        """Say before the queue starts when the file is gone."""
        return folders.missing_source(gguf_file) or True

    @classmethod
    def fingerprint_inputs(cls, gguf_file: str, **others: Any) -> list[float]:
        """Read again when the file changed."""
        return folders.modified(gguf_file)

    @classmethod
    def execute(
        cls,
        gguf_file: str,
        bits_limit: int,
        higher: str,
        edge_blocks: int,
        edge_format: str,
        model: Any = None,
    ) -> io.NodeOutput:
        """Make the recipe."""
        target = None
        if model is not None:
            with ModelSource(model) as source:
                target = take_inventory(source)
        made = recipe_from_gguf(
            folders.source_path(gguf_file),
            GgufMapping(bits_limit, higher, edge_blocks, edge_format),
            target,
        )
        text = "\n".join([*(f"note: {n}" for n in made.notes), describe_recipe(made.recipe)])
        return io.NodeOutput(made.recipe, text, ui=ui.PreviewText(text))
