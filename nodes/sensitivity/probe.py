"""What quantizing each layer costs by the result of a sampling, or of single model calls."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.observed_input import working_bytes
from ...quant.sensitivity.artefact import Sensitivity
from ...quant.sensitivity.probe import LatentProbe, ProbeUnit
from ...quant.sensitivity.schedule import ProbeSchedule
from ...quant.text import shorten
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device, progress_bar
from ..bridge.probed_model import ProbeSession, probed_clone
from ..files.artefacts import SENSITIVITIES
from ..inputs.sockets import CATEGORY, ProbeSocket, SensitivitySocket, StatisticsSocket
from .result import save_as_input, saved_sensitivity, sensitivity_outputs, sensitivity_result

_UNITS: dict[str, ProbeUnit] = {
    "each input": "input",
    "each layer": "layer",
    "each block": "block",
}
_PROBED = {
    "nvfp4, float8_e4m3fn": ("nvfp4", "float8_e4m3fn"),
    "nvfp4": ("nvfp4",),
    "convrot_w4a4, int8_convrot": ("convrot_w4a4", "int8_convrot"),
}
_SAMPLINGS, _CALLS = "short samplings", "single steps"


class ProbeModel(io.ComfyNode):
    """MODEL in, probed MODEL out: sampling with it measures how far its output moves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryProbeModel",
            display_name="Probe Latent Shift",
            category=CATEGORY,
            description=(
                "Gives back the model with a probe that, before each sampling, samples in a few "
                "steps with the layers of one input or block at a time quantized and measures how "
                "far the latent moves. Slow; the samples do not change. Read the result with "
                "Probe Result."
            ),
            search_aliases=["nvfp4 probe", "sensitivity", "latent error", "layer importance"],
            inputs=[
                io.Model.Input("model", tooltip="The model to probe, not quantized."),
                SensitivitySocket.Input(
                    "sensitivity", tooltip="Of this model: says which layers, and is added to."
                ),
                io.Combo.Input(
                    "unit",
                    options=list(_UNITS),
                    default="each input",
                    tooltip="The model runs once more per unit, format and step. each input: "
                    "layers that receive the same tensor, such as q, k and v, together; the best "
                    "for Auto Mix. Blocks are several times faster, but their shift is shared "
                    "among their layers by the layers' output errors, which is too coarse for it.",
                ),
                io.Int.Input(
                    "sigmas",
                    default=4,
                    min=1,
                    max=100,
                    tooltip="How many steps a short sampling has, or how many single steps of each "
                    "sampling to probe; spread evenly over the sampler's own.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    optional=True,
                    tooltip="Of this model, for static input scales and rounding. Without them "
                    "scales are the runtime's own.",
                ),
                io.Combo.Input(
                    "measure",
                    options=[_SAMPLINGS, _CALLS],
                    default=_SAMPLINGS,
                    optional=True,
                    tooltip="short samplings: how far the sampled latent moves, guidance and all; "
                    "the best for Auto Mix. single steps: how far the denoised latent of one model "
                    "call moves, which misses what adds up from step to step.",
                ),
                io.Combo.Input(
                    "formats",
                    options=list(_PROBED),
                    default=next(iter(_PROBED)),
                    optional=True,
                    tooltip="What to quantize to; of the formats the sensitivity has. nvfp4 alone "
                    "takes half the time and a third of the memory, and guesses float8 from it. "
                    "convrot_w4a4, int8_convrot: for Turing and Ampere.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                ProbeSocket.Output(display_name="PROBE"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        sensitivity: Sensitivity,
        unit: str,
        sigmas: int,
        statistics: CalibrationStatistics | None = None,
        measure: str = _SAMPLINGS,
        formats: str = next(iter(_PROBED)),
    ) -> io.NodeOutput:
        """Encode the layers and wrap a clone of the model."""
        known = sensitivity.formats
        probed = [name for name in _PROBED[formats] if name in known] or _PROBED[formats][:1]
        with ModelSource(model) as source:
            probe = LatentProbe(
                source,
                sensitivity,
                formats=probed,
                unit=_UNITS[unit],
                statistics=statistics,
                device=compute_device(working_bytes(sensitivity.rounding, statistics)),
                on_progress=progress_bar(),
            )
        session = ProbeSession(probe, ProbeSchedule(sigmas), measure == _SAMPLINGS)
        return io.NodeOutput(probed_clone(model, session), session)


class ProbeResult(io.ComfyNode):
    """The sensitivity with what the probe has measured so far."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryProbeResult",
            display_name="Probe Result",
            category=CATEGORY,
            description=(
                "Adds to a sensitivity how far the latent moved with each layer "
                "quantized, once the latents are sampled."
            ),
            search_aliases=["nvfp4 probe", "sensitivity result", "latent error"],
            inputs=[
                ProbeSocket.Input("probe", tooltip="From Probe Latent Shift."),
                io.Latent.Input(
                    "latent",
                    tooltip="What the sampler made with the probed model. It makes this node "
                    "wait for the sampling, and run again when there is a new one.",
                ),
                save_as_input(),
            ],
            outputs=sensitivity_outputs(),
            is_input_list=True,  # all latents of a deck of prompts belong to one result
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: Any) -> bool | str:
        """Say before the queue starts when the name is bad."""
        return SENSITIVITIES.check_new(save_as)

    @classmethod
    def execute(
        cls, probe: list[ProbeSession], latent: list[Any], save_as: list[str]
    ) -> io.NodeOutput:
        """Read the probe."""
        measured = probe[0].probe
        sensitivity = measured.result()
        what = "samplings" if probe[0].whole_samplings else "model calls"
        notes = [f"{measured.calls} {what} probed, {measured.runs} runs each"]
        if measured.unreached:
            notes.append(
                "warning: the model did not run these when it was probed, so they stay unknown "
                f"(nodes that cache steps must be off): {shorten(measured.unreached)}"
            )
        return sensitivity_result(
            sensitivity, [*notes, *saved_sensitivity(sensitivity, save_as[0])]
        )
