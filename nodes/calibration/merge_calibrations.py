"""The node that merges calibrations of one model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics, load_statistics, merge_all, save_statistics
from ...quant.reports.view import calibration_view
from ..files.artefacts import CALIBRATIONS
from ..foundry_node import FoundryNode
from ..inputs.sockets import INTEROP, StatisticsSocket
from ..reports.errors import refused_if_invalid
from ..reports.shown import shown


class MergeCalibrations(FoundryNode):
    """Add up calibrations of one model from several days or machines."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryMergeCalibrations",
            display_name="Merge Calibrations",
            category=INTEROP,
            description=(
                "Adds up calibrations of the same model. Calibrations of different models, or "
                "ones that contain the same run twice, cannot be merged."
            ),
            search_aliases=["nvfp4 calibration", "combine calibrations", "add calibrations"],
            inputs=[
                io.Autogrow.Input(
                    "statistics",
                    template=io.Autogrow.TemplatePrefix(
                        input=StatisticsSocket.Input(
                            "statistics",
                            display_name="calibration",
                            tooltip="A calibration, from Calibration Result or Load Calibration.",
                        ),
                        prefix="statistics_",
                        min=2,
                    ),
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="Also save the merged calibration under this name. Leave it empty to "
                    "skip saving.",
                ),
            ],
            outputs=[
                StatisticsSocket.Output(display_name="CALIBRATION"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None, *, statistics: Any = None) -> bool | str:
        """Report an invalid name before the queue starts."""
        return refused_if_invalid(CALIBRATIONS.check_new(save_as))

    @classmethod
    def fingerprint_inputs(cls, save_as: str = "", **others: Any) -> int:
        """Return how often the saved file was deleted, so that it is saved again."""
        return CALIBRATIONS.times_lost(save_as)

    @classmethod
    def execute(cls, statistics: dict[str, CalibrationStatistics], save_as: str) -> io.NodeOutput:
        """Return the merged calibration and its report."""
        merged = merge_all([value for value in statistics.values() if value is not None])
        if save_as:
            _save_merged(merged, save_as)
        view = calibration_view(merged)
        return io.NodeOutput(merged, view.text, ui=shown(view))


def _save_merged(merged: CalibrationStatistics, name: str) -> None:
    """Save a merged calibration, unless a file of this name already holds the same runs.

    Raises:
        FileExistsError: a file of this name holds other runs.
    """
    path = CALIBRATIONS.path(name)
    if path.exists():
        saved = {run.id for run in load_statistics(path).runs}
        if saved != {run.id for run in merged.runs}:
            raise FileExistsError(f"a calibration named {name} already exists; choose another name")
        return
    save_statistics(merged, path)
    CALIBRATIONS.remember(name, path)
