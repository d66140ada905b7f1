"""The node that saves a quantized checkpoint."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui

from ...quant.conversion.convert import QuantizedModel, save_model
from ...quant.reports.conversion import conversion_headline
from ..bridge.models import progress_bar
from ..inputs.sockets import CATEGORY, CheckpointSocket
from ..inputs.target import resolve_target, target_inputs, validate_target


class SaveCheckpoint(io.ComfyNode):
    """Save a quantized checkpoint in ComfyUI's folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundrySaveCheckpoint",
            display_name="Save NVFP4 Checkpoint",
            category=CATEGORY,
            description=(
                "Saves a quantized checkpoint that stock ComfyUI loads with Load Diffusion Model. "
                "A text encoder loads with Load CLIP. The file appears complete or not at all."
            ),
            search_aliases=[
                "save nvfp4",
                "save fp8",
                "export checkpoint",
                "save diffusion model",
                "save model",
            ],
            inputs=[
                CheckpointSocket.Input(
                    "checkpoint", tooltip="From Quantize or Quantize Text Encoder."
                ),
                *target_inputs(),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, file_name: str | None, folder: str | None, if_exists: str | None
    ) -> bool | str:
        """Report an invalid target before the queue starts."""
        return validate_target(file_name, folder, if_exists)

    @classmethod
    def execute(
        cls, checkpoint: QuantizedModel, file_name: str, folder: str, if_exists: str
    ) -> io.NodeOutput:
        """Write the checkpoint and return its path."""
        size = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        path, overwrite = resolve_target(file_name, folder, if_exists, size)
        save_model(checkpoint, path, overwrite=overwrite, on_progress=progress_bar())
        report = replace(checkpoint.report, target=path.name)
        text = f"saved {path}\n\n{conversion_headline(report)}"
        return io.NodeOutput(str(path), ui=ui.PreviewText(text))
