"""The node that measures the error of each layer in each format on calibrated inputs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.observed_input import working_bytes
from ...quant.rounding import DEFAULT_ROUNDING, ROUNDINGS
from ...quant.sensitivity.measure import (
    DEFAULT_CANDIDATES,
    INTEGER_CANDIDATES,
    NEWER_CANDIDATES,
    QUANTIZED_FORMATS,
    measure_sensitivity,
)
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device
from ..bridge.progress import progress_bar
from ..calibration.fitting import offering_one_that_fits
from ..files.artefacts import SENSITIVITIES
from ..foundry_node import FoundryNode
from ..inputs.save_as import save_as_input
from ..inputs.sockets import MEASURE, StatisticsSocket
from ..reports.errors import refused_if_invalid
from .result import saved_sensitivity, sensitivity_outputs, sensitivity_result

_CANDIDATES = {
    ", ".join(DEFAULT_CANDIDATES): DEFAULT_CANDIDATES,
    ", ".join(INTEGER_CANDIDATES): INTEGER_CANDIDATES,
    ", ".join(NEWER_CANDIDATES): NEWER_CANDIDATES,
    "all quantized formats": QUANTIZED_FORMATS,
    **{name: (name,) for name in QUANTIZED_FORMATS},
}


class MeasureSensitivity(FoundryNode):
    """Measure how much each layer loses in each format, on calibrated inputs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryMeasureSensitivity",
            display_name="Measure Sensitivity",
            category=MEASURE,
            description=(
                "Measures how much each layer loses in each format: the error of its weight, and "
                "the error of its output on inputs that a calibration recorded. It does not sample."
            ),
            search_aliases=[
                "nvfp4 sensitivity",
                "layer error",
                "quantization error",
                "which layers",
                "heat map",
                "layer map",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The unquantized model to measure."),
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    tooltip="The calibration of this model, from Calibration Result or Load "
                    "Calibration.",
                ),
                io.Combo.Input(
                    "formats",
                    options=list(_CANDIDATES),
                    default=", ".join(DEFAULT_CANDIDATES),
                    tooltip="The formats to measure: those for Blackwell, those for Turing and "
                    "Ampere, those for Ampere and newer with ComfyUI 0.33, all of them (slow), or "
                    "one.",
                ),
                io.Combo.Input(
                    "rounding",
                    options=list(ROUNDINGS),
                    default=DEFAULT_ROUNDING,
                    tooltip="How to round the weights. Choose the rounding that you will quantize "
                    "with.",
                ),
                save_as_input("sensitivity", "Probe Result"),
            ],
            outputs=sensitivity_outputs(),
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None) -> bool | str:
        """Report an invalid name before the queue starts."""
        return refused_if_invalid(SENSITIVITIES.check_new(save_as))

    @classmethod
    def fingerprint_inputs(cls, save_as: str = "", **others: Any) -> int:
        """Return how often the saved file was deleted, so that it is saved again."""
        return SENSITIVITIES.times_lost(save_as)

    @classmethod
    def execute(
        cls,
        model: Any,
        statistics: CalibrationStatistics,
        formats: str,
        rounding: str,
        save_as: str,
    ) -> io.NodeOutput:
        """Return the sensitivity, its report and its heat map."""
        with ModelSource(model) as source, offering_one_that_fits(source):
            sensitivity = measure_sensitivity(
                source,
                statistics,
                _CANDIDATES[formats],
                rounding=rounding,
                device=compute_device(working_bytes(rounding, statistics)),
                on_progress=progress_bar(),
            )
        return sensitivity_result(sensitivity, saved_sensitivity(sensitivity, save_as))
