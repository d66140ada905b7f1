"""The node that loads the model to quantize."""

from __future__ import annotations

from comfy_api.latest import io

from ..bridge.loading import load_source_model
from ..files import folders
from ..foundry_node import FoundryNode
from ..inputs.layout import chosen_layout, layout_input
from ..inputs.sockets import START
from ..reports.errors import refused


def completing_input() -> io.Input:
    """Return the input for a second file that supplies missing tensors."""
    return io.Combo.Input(
        "complete_from",
        options=folders.completing_files(),
        default=folders.NOTHING,
        optional=True,
        tooltip="Only for files that lack tensors, such as WAN GGUFs without a patch embedding: "
        "a second file of the same model that supplies them.",
    )


class LoadSourceModel(FoundryNode):
    """Load any model file as a MODEL to calibrate and quantize."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadSourceModel",
            display_name="Load Source Model",
            category=START,
            description=(
                "Loads the model that you want to quantize: a file, the index or folder of a "
                "sharded model, a GGUF, WAN with diffusers layer names, or a model that another "
                "tool quantized."
            ),
            search_aliases=["nvfp4 load", "load diffusion model", "unet loader", "shards", "gguf"],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.model_files(),
                    tooltip="Any model in diffusion_models or checkpoints. A name that ends in '/' "
                    "is a folder of shards.",
                ),
                completing_input(),
                layout_input(),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def validate_inputs(cls, model_file: str | None) -> bool | str:
        """Report a missing file before the queue starts."""
        missing = folders.missing_source(model_file)
        return refused(missing) if missing else True

    @classmethod
    def fingerprint_inputs(
        cls, model_file: str, complete_from: str | None = None, layout: str | None = None
    ) -> list[float]:
        """Return when the files changed, so that changed files are loaded again."""
        return folders.modified(model_file, complete_from)

    @classmethod
    def execute(
        cls, model_file: str, complete_from: str | None = None, layout: str | None = None
    ) -> io.NodeOutput:
        """Return the MODEL."""
        path, second = folders.source_path(model_file), folders.completing_path(complete_from)
        return io.NodeOutput(load_source_model(path, second, chosen_layout(layout)))
