"""Loading the model to quantize."""

from __future__ import annotations

from comfy_api.latest import io

from . import bridge, folders
from .sockets import CATEGORY


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
                "Loads the 16- or 32-bit model you want to quantize: a single file, the index of "
                "a sharded model, or a folder of shards."
            ),
            search_aliases=["nvfp4 load", "load diffusion model", "unet loader", "shards"],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.model_files(),
                    tooltip="Any model in diffusion_models or checkpoints. Names ending in '/' "
                    "are folders of shards.",
                )
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def validate_inputs(cls, model_file: str | None) -> bool | str:
        """Say before the queue starts when the file is gone."""
        return folders.missing_source(model_file) or True

    @classmethod
    def fingerprint_inputs(cls, model_file: str) -> float:
        """Load again when the file changed."""
        return folders.source_path(model_file).stat().st_mtime

    @classmethod
    def execute(cls, model_file: str) -> io.NodeOutput:
        """Load."""
        return io.NodeOutput(bridge.load_source_model(folders.source_path(model_file)))
