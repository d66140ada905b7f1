"""The node with what a probe measured, or with a sensitivity that was saved."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.errors import CalibrationError
from ...quant.sensitivity.artefact import Sensitivity, load_sensitivity
from ...quant.text import shorten
from ..bridge.probed_model import ProbeSession
from ..files.artefacts import SENSITIVITIES
from ..foundry_node import FoundryNode
from ..inputs.save_as import save_as_input
from ..inputs.sockets import MEASURE, ProbeSocket
from ..prompts.validation import constant_inputs
from ..reports.errors import refused_if_invalid
from .result import saved_sensitivity, sensitivity_outputs, sensitivity_result

_CONNECTED = "the connected probe"


class ProbeResult(FoundryNode):
    """Add what a probe measured to the sensitivity, or load a saved sensitivity."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryProbeResult",
            display_name="Probe Result",
            category=MEASURE,
            description=(
                "Waits until sampling is done, then adds what Probe Latent Shift measured to the "
                "sensitivity: how far the latent moved with each layer quantized. Or loads a "
                "sensitivity that was saved before."
            ),
            search_aliases=[
                "nvfp4 probe",
                "sensitivity result",
                "load sensitivity",
                "latent error",
                "heat map",
                "layer map",
            ],
            inputs=[
                ProbeSocket.Input("probe", optional=True, tooltip="From Probe Latent Shift."),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The sampler's output for the probed model. It makes this node wait "
                    "for the sampling, and run again after each new sampling.",
                ),
                save_as_input("sensitivity", "the input 'source' of this node"),
                io.Combo.Input(
                    "source",
                    options=[_CONNECTED, *SENSITIVITIES.names()],
                    default=_CONNECTED,
                    optional=True,
                    tooltip="The connected probe, or a saved sensitivity in "
                    f"output/nvfp4_foundry/{SENSITIVITIES.folder}. A saved one needs no probe.",
                ),
            ],
            outputs=sensitivity_outputs(),
            is_input_list=True,  # all latents of a deck of prompts belong to one result
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: Any) -> bool | str:
        """Report an invalid name or a missing file before the queue starts."""
        source = constant_inputs().get("source", _CONNECTED)
        if source != _CONNECTED:
            return refused_if_invalid(SENSITIVITIES.check_saved(source))
        return refused_if_invalid(SENSITIVITIES.check_new(save_as))

    @classmethod
    def fingerprint_inputs(
        cls, save_as: Any = "", source: Any = _CONNECTED, **others: Any
    ) -> list[float]:
        """Return when the chosen file changed, and how often the saved file was deleted."""
        name = source[0] if isinstance(source, list) else source
        changed = [] if name == _CONNECTED else [SENSITIVITIES.modified(name)]
        return [*changed, SENSITIVITIES.times_lost(save_as)]

    @classmethod
    def execute(
        cls,
        save_as: list[str],
        probe: list[ProbeSession] | None = None,
        latent: list[Any] | None = None,
        source: list[str] | None = None,
    ) -> io.NodeOutput:
        """Return the sensitivity, its report and its heat map."""
        name = source[0] if source else _CONNECTED
        if name != _CONNECTED:
            sensitivity, notes = load_sensitivity(SENSITIVITIES.path(name)), [f"loaded {name}"]
        elif probe and latent:
            sensitivity, notes = _measured(probe[0])
        else:
            raise CalibrationError(
                "connect PROBE from Probe Latent Shift and the LATENT of the sampler, or choose a "
                "saved sensitivity as the source"
            )
        return sensitivity_result(
            sensitivity, [*notes, *saved_sensitivity(sensitivity, save_as[0])]
        )


def _measured(session: ProbeSession) -> tuple[Sensitivity, list[str]]:
    """Return what a probe measured so far, and notes."""
    probe = session.probe
    calls = f"{probe.calls} sampling{'s' * (probe.calls != 1)}"
    notes = [f"{calls} probed: {', '.join(map(str, probe.measured))} of {probe.runs} units"]
    if min(probe.measured, default=probe.runs) < probe.runs:
        notes.append("the shifts of the other units are estimated from those of similar units")
    if probe.unreached:
        notes.append(
            "warning: the model did not run these layers while it was probed, so they stay "
            "unknown. Turn off nodes that skip or cache steps: "
            f"{shorten(probe.unreached)}"
        )
    return probe.result(), notes
