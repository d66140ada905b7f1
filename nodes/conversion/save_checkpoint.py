"""The node that saves a quantized checkpoint."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.reports.view import conversion_view
from ..foundry_node import FoundryNode
from ..inputs.sockets import START, CheckpointSocket
from ..inputs.target import Target, card_input, target_inputs, why_not_target
from ..reports.saved import check_saved
from ..reports.shown import shown
from .promise import PromisedCheckpoint

_NODE = "NVFP4FoundrySaveCheckpoint"
_AS_BEFORE = "this checkpoint was saved before, and its file has not changed since"


class SaveCheckpoint(FoundryNode):
    """Save a quantized checkpoint in ComfyUI's folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id=_NODE,
            display_name="Save NVFP4 Checkpoint",
            category=START,
            description=(
                "Saves a quantized checkpoint that stock ComfyUI loads with Load Diffusion Model. "
                "A text encoder loads with Load CLIP. The file appears complete or not at all, and "
                "is read back and verified."
            ),
            search_aliases=[
                "save nvfp4",
                "save fp8",
                "export checkpoint",
                "save diffusion model",
                "save model",
                "model card",
            ],
            inputs=[
                CheckpointSocket.Input("checkpoint", tooltip="From Quantize Model to NVFP4."),
                *target_inputs(),
                card_input(),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, file_name: str | None) -> bool | str:
        """Report an invalid target before the queue starts."""
        return why_not_target(file_name)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        """Return how often the saved file was deleted, so that it is saved again."""
        return Target.of(_NODE, inputs).times_lost()

    @classmethod
    def execute(
        cls,
        checkpoint: PromisedCheckpoint,
        file_name: str,
        folder: str,
        if_exists: str,
        model_card: bool = False,
    ) -> io.NodeOutput:
        """Write the checkpoint and return its path."""
        target = Target(_NODE, file_name, folder, if_exists)
        earlier = next((s for s in checkpoint.saved_before() if target.holds(s.path)), None)
        if earlier is not None:
            path, report, lines = earlier.path, earlier.report, [_AS_BEFORE]
        else:
            path, overwrite = target.resolve(checkpoint.plan.bytes_after, checkpoint.source)
            report, lines = checkpoint.write(path, overwrite=overwrite), []
            target.written(path)
        lines += check_saved(path, model_card=model_card)
        view = conversion_view(report, checkpoint.statistics, lines)
        return io.NodeOutput(str(path), ui=shown(view, saved=[path]))
