"""The node that shows what a model file contains."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.checkpoint import inspect_checkpoint
from ...quant.reports.view import checkpoint_view
from ..files import folders
from ..foundry_node import FoundryNode
from ..inputs.sockets import FILES
from ..reports.errors import refused
from ..reports.shown import shown


class InspectCheckpoint(FoundryNode):
    """Show the layers, formats, sizes and scales of a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryInspectCheckpoint",
            display_name="Inspect Checkpoint",
            category=FILES,
            description=(
                "Shows what a model file contains: layers, formats, sizes, input scales, and how "
                "the file was made. Reads headers only."
            ),
            search_aliases=[
                "nvfp4 inspect",
                "checkpoint info",
                "layer formats",
                "model info",
                "metadata",
                "fp8",
            ],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.source_files(),
                    tooltip="Any model in diffusion_models, checkpoints or text_encoders.",
                )
            ],
            outputs=[io.String.Output(display_name="report")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_file: str | None) -> bool | str:
        """Report a missing file before the queue starts."""
        missing = folders.missing_source(model_file)
        return refused(missing) if missing else True

    @classmethod
    def fingerprint_inputs(cls, model_file: str) -> list[float]:
        """Return when the file changed, so that a changed file is read again."""
        return folders.modified(model_file)

    @classmethod
    def execute(cls, model_file: str) -> io.NodeOutput:
        """Return the report."""
        view = checkpoint_view(inspect_checkpoint(folders.source_path(model_file)))
        return io.NodeOutput(view.text, ui=shown(view))
