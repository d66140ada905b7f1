"""The node that makes a recipe from the bits a GGUF gives each layer."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.derive import GgufMapping, recipe_from_gguf
from ...quant.formats import FORMATS
from ...quant.planning import take_inventory
from ...quant.reports.mix import describe_recipe
from ..bridge.model_source import ModelSource
from ..files import folders
from ..inputs.sockets import CATEGORY
from .derived import derived_outputs


class RecipeFromGguf(io.ComfyNode):
    """Make a recipe from the types of the layers in a GGUF."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryRecipeFromGguf",
            display_name="Recipe From GGUF",
            category=CATEGORY,
            description=(
                "Uses a GGUF of your model as a map of sensitive layers: layers with few bits in "
                "the GGUF become NVFP4, layers with more bits get a wider format. The weights of "
                "the GGUF are not used."
            ),
            search_aliases=["gguf recipe", "k-quant", "q4_k_m", "mixed precision", "nvfp4 recipe"],
            inputs=[
                io.Combo.Input(
                    "gguf_file",
                    options=folders.gguf_files(),
                    tooltip="A GGUF of this model, or of another model of the same architecture.",
                ),
                io.Int.Input(
                    "bits_limit",
                    default=4,
                    min=1,
                    max=8,
                    tooltip="Quantized types with up to this many bits become nvfp4. 4 means Q4_K, "
                    "Q4_0, IQ4_XS and smaller types.",
                ),
                io.Combo.Input(
                    "higher",
                    options=list(FORMATS),
                    default="float8_e4m3fn",
                    tooltip="The format for quantized types with more bits, such as Q5_K, Q6_K and "
                    "Q8_0.",
                ),
                io.Int.Input(
                    "edge_blocks",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How many blocks at each end get edge_format instead. This applies to "
                    "layers that the GGUF quantizes.",
                ),
                io.Combo.Input(
                    "edge_format",
                    options=list(FORMATS),
                    default="bf16",
                    tooltip="The format for those blocks.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model to quantize. Layers of the GGUF that it does not have are "
                    "left out, and the report names them.",
                ),
            ],
            outputs=derived_outputs(),
        )

    @classmethod
    def validate_inputs(cls, gguf_file: str | None) -> bool | str:
        """Report a missing file before the queue starts."""
        return folders.missing_source(gguf_file) or True

    @classmethod
    def fingerprint_inputs(cls, gguf_file: str, **others: Any) -> list[float]:
        """Return when the file changed, so that a changed file is read again."""
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
        """Return the recipe and its report."""
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
