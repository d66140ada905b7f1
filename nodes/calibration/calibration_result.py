"""The node that collects what a calibration recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ...quant.calibration import RunRecord, describe_budget
from ...quant.reports.view import calibration_view
from ..foundry_node import FoundryNode
from ..inputs.sockets import CALIBRATE, CalibrationSocket, StatisticsSocket
from ..reports.shown import shown
from .sessions import CalibrationSession


class CalibrationResult(FoundryNode):
    """Return what the observers recorded as an immutable calibration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCalibrationResult",
            display_name="Calibration Result",
            category=CALIBRATE,
            description=(
                "Waits until sampling is done, then collects what Calibrate recorded, saves the "
                "calibration in ComfyUI's output folder and reports every layer."
            ),
            search_aliases=["nvfp4 calibration", "save calibration", "activation report"],
            inputs=[
                CalibrationSocket.Input(
                    "calibration", display_name="session", tooltip="From Calibrate."
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="The sampler's output for the observed model. It makes this node wait "
                    "for the sampling, and run again after each new sampling.",
                ),
            ],
            outputs=[
                StatisticsSocket.Output(display_name="CALIBRATION"),
                io.Latent.Output(display_name="latent", is_output_list=True),
                io.String.Output(display_name="report"),
            ],
            is_input_list=True,  # all latents of a deck of prompts belong to one calibration
            is_output_node=True,
        )

    @classmethod
    def execute(cls, calibration: list[CalibrationSession], latent: list[Any]) -> io.NodeOutput:
        """Save and report the calibration."""
        has_news = calibration[0].has_news
        statistics = calibration[0].finish()
        budget = describe_budget(statistics, calibration[0].settings)
        notes = [*_describe_left_out(calibration[0].left_out), *([budget] if budget else [])]
        if not has_news:
            notes.insert(
                0,
                "warning: nothing was sampled with Calibrate's MODEL since the last result. Check "
                "that this MODEL is connected to the sampler",
            )
        view = calibration_view(statistics, notes)
        return io.NodeOutput(statistics, latent, view.text, ui=shown(view))


def _describe_left_out(runs: Sequence[RunRecord]) -> list[str]:
    """Return a line that names the interrupted runs that are left out, if there are any."""
    if not runs:
        return []
    one = len(runs) == 1
    which = ", ".join(f"{run.id[:8]} after {run.calls} calls" for run in runs[-3:])
    return [
        f"{len(runs)} interrupted run{'' if one else 's'} left out ({'' if one else 'the latest: '}"
        f"{which}). To add {'it' if one else 'them'}, set interrupted_runs of Calibrate to 'take "
        "in' and queue again"
    ]
