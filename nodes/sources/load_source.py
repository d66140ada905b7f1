"""Loading the model to quantize."""

from __future__ import annotations

from comfy_api.latest import io

from ..bridge.loading import load_source_model
from ..files import folders
from ..inputs.sockets import CATEGORY


def completing_input() -> io.Input:
    """Return the input for a file to take tensors from that the model lacks."""
    return io.Combo.Input(
        "complete_from",
        options=folders.completing_files(),
        default=folders.NOTHING,
        optional=True,
        tooltip="Only for files that lack tensors, such as WAN GGUFs without patch embedding: a "
        "file of the same model to take them from.",
    )


class LoadSourceModel(io.ComfyNode):
    """Load any model file as a MODEL to calibrate and quantize."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadModel",
            display_name="Load Source Model",
            category=CATEGORY,
            description=(
                "Loads the model you want to quantize: a file, the index or folder of a sharded "
                "model, a GGUF, WAN with the names of diffusers, or a model that other tools "
                "quantized."
            ),
            search_aliases=["nvfp4 load", "load diffusion model", "unet loader", "shards", "gguf"],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.model_files(),
                    tooltip="Any model in diffusion_models or checkpoints. Names ending in '/' "
                    "are folders of shards.",
                ),
                completing_input(),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def validate_inputs(
        cls, model_file: str | None, complete_from: str | None = None
    ) -> bool | str:
        """Say before the queue starts when a file is gone."""
        missing = folders.missing_source(model_file) or folders.missing_source(complete_from)
        return missing or True

    @classmethod
    def fingerprint_inputs(cls, model_file: str, complete_from: str | None = None) -> list[float]:
        """Load again when a file changed."""
        return folders.modified(model_file, complete_from)

    @classmethod
    def execute(cls, model_file: str, complete_from: str | None = None) -> io.NodeOutput:
        """Load."""
        path, second = folders.source_path(model_file), folders.completing_path(complete_from)
        return io.NodeOutput(load_source_model(path, second))
