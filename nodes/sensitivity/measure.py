"""What quantizing each layer costs: its output's error on calibrated inputs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.observed_input import working_bytes
from ...quant.rounding import DEFAULT_ROUNDING, ROUNDINGS
from ...quant.sensitivity.measure import (
    DEFAULT_CANDIDATES,
    INTEGER_CANDIDATES,
    QUANTIZED_FORMATS,
    measure_sensitivity,
)
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device, progress_bar
from ..files.artefacts import SENSITIVITIES
from ..inputs.sockets import CATEGORY, StatisticsSocket
from .result import save_as_input, saved_sensitivity, sensitivity_outputs, sensitivity_result

_CANDIDATES = {
    ", ".join(DEFAULT_CANDIDATES): DEFAULT_CANDIDATES,
    ", ".join(INTEGER_CANDIDATES): INTEGER_CANDIDATES,
    "all quantized formats": QUANTIZED_FORMATS,
    **{name: (name,) for name in QUANTIZED_FORMATS},
}


class MeasureSensitivity(io.ComfyNode):
    """Output errors of every layer in every format, on calibrated inputs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryMeasureSensitivity",
            display_name="Measure Sensitivity",
            category=CATEGORY,
            description=(
                "Measures what each layer loses in each format: the error of its weight, and of "
                "its output on inputs that a calibration has captured. Nothing is sampled."
            ),
            search_aliases=["nvfp4 sensitivity", "layer error", "which layers", "heat map"],
            inputs=[
                io.Model.Input("model", tooltip="The model to measure, not quantized."),
                StatisticsSocket.Input(
                    "statistics",
                    tooltip="From Calibration Result or Load Calibration, of this model.",
                ),
                io.Combo.Input(
                    "formats",
                    options=list(_CANDIDATES),
                    default=", ".join(DEFAULT_CANDIDATES),
                    tooltip="The candidate formats: for Blackwell, for Turing and Ampere, all of "
                    "them (slow), or one.",
                ),
                io.Combo.Input(
                    "rounding",
                    options=list(ROUNDINGS),
                    default=DEFAULT_ROUNDING,
                    tooltip="How weight scales are chosen. Take the one you will quantize with.",
                ),
                save_as_input(),
            ],
            outputs=sensitivity_outputs(),
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None) -> bool | str:
        """Say before the queue starts when the name is bad."""
        return SENSITIVITIES.check_new(save_as)

    @classmethod
    def execute(
        cls,
        model: Any,
        statistics: CalibrationStatistics,
        formats: str,
        rounding: str,
        save_as: str,
    ) -> io.NodeOutput:
        """Measure."""
        with ModelSource(model) as source:
            sensitivity = measure_sensitivity(
                source,
                statistics,
                _CANDIDATES[formats],
                rounding=rounding,
                device=compute_device(working_bytes(rounding, statistics)),
                on_progress=progress_bar(),
            )
        return sensitivity_result(sensitivity, saved_sensitivity(sensitivity, save_as))
