"""The node that measures how far quantizing a part of a model moves what it samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.observed_input import working_bytes
from ...quant.derive import MOST_RIVALS, rival_mixes
from ...quant.errors import PlanError
from ...quant.planning import Inventory, Plan, take_inventory
from ...quant.sensitivity.artefact import Sensitivity
from ...quant.sensitivity.probe import LatentProbe
from ...quant.sensitivity.probe_order import STOP_BELOW
from ...quant.sensitivity.probe_units import ProbeUnit
from ...quant.sensitivity.whole import Formats
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device
from ..bridge.probed_model import ProbeSession, probed_clone
from ..bridge.progress import progress_bar, show_text
from ..calibration.fitting import offering_one_that_fits
from ..files.artefacts import PROBES
from ..foundry_node import FoundryNode
from ..inputs.sockets import (
    MEASURE,
    PlanSocket,
    ProbeSocket,
    SensitivitySocket,
    StatisticsSocket,
)
from ..reports.errors import refused

_UNITS: dict[str, ProbeUnit] = {"each input": "input", "each layer": "layer"}
# Older workflows may have this. Blocks were too coarse for a mix.
_FORMER_UNIT, _INSTEAD = "each block", "each input"
# When the probe ends: the gain that is worth no more runs.
_EXTENTS = {"as needed": STOP_BELOW, "every unit": 0.0}
# The format that a mix keeps its most sensitive layers in.
UNQUANTIZED = "bf16"
_PROBED = {
    "nvfp4, float8_e4m3fn": ("nvfp4", "float8_e4m3fn"),
    "nvfp4": ("nvfp4",),
    "nvfp4_w4a16, float8_e4m3fn": ("nvfp4_w4a16", "float8_e4m3fn"),
    "convrot_w4a4, int8_convrot": ("convrot_w4a4", "int8_convrot"),
    "asym_w4a8_int8, int8_convrot": ("asym_w4a8_int8", "int8_convrot"),
}


class ProbeLatentShift(FoundryNode):
    """Return a probed MODEL, which measures while it samples how far its latents move."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryProbeLatentShift",
            display_name="Probe Latent Shift",
            category=MEASURE,
            description=(
                "Returns the model with a probe. Before each sampling, the probe samples "
                "repeatedly in a few steps, each time with only the layers of one input quantized, "
                "and measures how far the latent moves. It begins with the inputs that matter most "
                "to a mix, ends when the others matter little, and estimates those. It says first "
                "how long it takes at most. You can interrupt it: it goes on where it was if you "
                "queue it again. Your own samples do not change. Probe Result collects what the "
                "probe measures."
            ),
            search_aliases=[
                "nvfp4 probe",
                "sensitivity",
                "latent error",
                "layer importance",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The unquantized model to probe."),
                SensitivitySocket.Input(
                    "sensitivity",
                    tooltip="The sensitivity of this model. It lists the layers, and the probe "
                    "adds to it.",
                ),
                io.Combo.Input(
                    "unit",
                    options=list(_UNITS),
                    default="each input",
                    tooltip="What to quantize at a time. The model runs once more per unit, format "
                    "and step. each input: all layers that receive the same tensor, such as q, k "
                    "and v; the best for Auto Mix. each layer: one layer alone.",
                ),
                _sigmas_input(),
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    optional=True,
                    tooltip="The calibration of this model, for static input scales and weighted "
                    "rounding. Without it, the scales are computed at run time.",
                ),
                _formats_input(),
                _plan_input(),
                _extent_input(),
                _minutes_input(),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                ProbeSocket.Output(display_name="PROBE"),
            ],
        )

    @classmethod
    def validate_inputs(cls, unit: Any, extent: Any = None) -> bool | str:
        """Accept the values of older workflows too; a link brings None here."""
        if unit not in (None, _FORMER_UNIT, *_UNITS):
            return refused(f"unit is {unit!r}; choose one of {', '.join(_UNITS)}")
        if extent not in (None, *_EXTENTS):
            return refused(f"extent is {extent!r}; choose one of {', '.join(_EXTENTS)}")
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        sensitivity: Sensitivity,
        unit: str,
        sigmas: int,
        statistics: CalibrationStatistics | None = None,
        formats: str = next(iter(_PROBED)),
        plan: Plan | None = None,
        extent: str = next(iter(_EXTENTS)),
        minutes: float = 0.0,
    ) -> io.NodeOutput:
        """Encode the layers and return a probed clone of the model."""
        known = sensitivity.formats
        probed = [name for name in _PROBED[formats] if name in known] or _PROBED[formats][:1]
        with ModelSource(model) as source, offering_one_that_fits(source):
            probe = LatentProbe(
                source,
                sensitivity,
                formats=probed,
                unit=_UNITS[_INSTEAD if unit == _FORMER_UNIT else unit],
                plan=plan,
                stop_below=_EXTENTS[extent],
                statistics=statistics,
                device=compute_device(working_bytes(sensitivity.rounding, statistics)),
                on_progress=progress_bar(),
            )
            inventory = take_inventory(source) if plan else None
        folder, node = PROBES.root(), str(cls.hidden.unique_id or "")
        session = ProbeSession(probe, sigmas, folder, node, minutes)
        count = 1 + probe.runs
        if plan is not None and inventory is not None:
            rivals, most = _rivals(plan, inventory, probed), 2 + MOST_RIVALS
            session = replace(session, rivals=rivals, most_rivals=most)
            count += most
        show_text(f"ready: at most {count} short samplings will come before each sampling")
        return io.NodeOutput(probed_clone(model, session), session)


def _rivals(
    plan: Plan, inventory: Inventory, probed: Sequence[str]
) -> Callable[[Sensitivity], Sequence[Formats]]:
    """Return what finds the mixes to sample whole; none if there is nothing to mix."""

    def find(sensitivity: Sensitivity) -> Sequence[Formats]:
        try:
            return rival_mixes(plan, inventory, sensitivity, formats=(*probed, UNQUANTIZED))
        except PlanError:
            return ()

    return find


def _sigmas_input() -> io.Input:
    return io.Int.Input(
        "sigmas",
        default=3,
        min=1,
        max=100,
        tooltip="How many steps a short sampling has. They are spread evenly over the "
        "sampler's steps. Three are enough for a mix; two can mislead.",
    )


def _plan_input() -> io.Input:
    return PlanSocket.Input(
        "plan",
        optional=True,
        tooltip="The plan that you give to Auto Mix. Then the probe leaves out layers that the "
        "plan does not quantize. It also samples this plan, the best mix of its size, and up to 6 "
        "mixes near it, each with all of its layers quantized. Auto Mix takes the one that moves "
        "the latent least, so its mix is never worse than the plan.",
    )


def _extent_input() -> io.Input:
    return io.Combo.Input(
        "extent",
        options=list(_EXTENTS),
        default=next(iter(_EXTENTS)),
        optional=True,
        tooltip="as needed: begins with the units that matter most to a mix, and ends when the "
        "others would lower its error by no more than 2 or 3%. Their shifts are estimated from "
        "those of similar units. every unit: measures all of them, in three to five times the "
        "time.",
    )


def _minutes_input() -> io.Input:
    return io.Float.Input(
        "minutes",
        default=0.0,
        min=0.0,
        max=10_000.0,
        step=1.0,
        optional=True,
        tooltip="Ends the probe of each sampling after this time, and estimates what is left. 0: "
        "no limit. Queue it again with more minutes to go on. Mixes that are sampled whole come "
        "after it.",
    )


def _formats_input() -> io.Input:
    return io.Combo.Input(
        "formats",
        options=list(_PROBED),
        default=next(iter(_PROBED)),
        optional=True,
        tooltip="The formats to quantize to, if the sensitivity includes them. nvfp4 alone takes "
        "half the time and a third of the memory, and float8 is estimated. nvfp4_w4a16, "
        "float8_e4m3fn: for GPUs before Blackwell, which multiply NVFP4 in 16 bits. convrot_w4a4, "
        "int8_convrot: for Turing and Ampere. asym_w4a8_int8, int8_convrot: for Ampere and newer, "
        "with ComfyUI 0.33.",
    )
