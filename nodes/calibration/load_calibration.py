"""The node that loads a saved calibration."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.calibration import load_statistics
from ...quant.reports.view import calibration_view
from ..files.artefacts import CALIBRATIONS
from ..foundry_node import FoundryNode
from ..inputs.saved import saved_input
from ..inputs.sockets import CALIBRATE, StatisticsSocket
from ..reports.errors import refused_if_invalid
from ..reports.shown import shown


class LoadCalibration(FoundryNode):
    """Load a saved calibration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadCalibration",
            display_name="Load Calibration",
            category=CALIBRATE,
            description="Loads a calibration that Calibration Result or Merge Calibrations saved.",
            search_aliases=["nvfp4 calibration", "activation statistics", "input_scale"],
            inputs=[
                saved_input(CALIBRATIONS),
            ],
            outputs=[
                StatisticsSocket.Output(display_name="CALIBRATION"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Report a missing file before the queue starts."""
        return refused_if_invalid(CALIBRATIONS.check_saved(name))

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float:
        """Return when the file changed, so that a changed file is loaded again."""
        return CALIBRATIONS.modified(name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Return the calibration and its report."""
        statistics = load_statistics(CALIBRATIONS.path(name))
        view = calibration_view(statistics)
        return io.NodeOutput(statistics, view.text, ui=shown(view))
