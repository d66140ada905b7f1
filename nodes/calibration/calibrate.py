"""The node that records activations while the user samples."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CollectorSettings, moments_folder
from ...quant.planning import take_inventory
from ..bridge.model_source import ModelSource
from ..bridge.models import observed_clone
from ..bridge.progress import send_live
from ..files.artefacts import CALIBRATIONS
from ..foundry_node import FoundryNode
from ..inputs.sockets import CALIBRATE, CalibrationSocket
from ..reports.errors import refused_if_invalid
from .sessions import open_session

_CONTINUE, _START_OVER = "continue", "start over"
_LEAVE_OUT, _TAKE_IN = "leave out", "take in"


class Calibrate(FoundryNode):
    """Return an observed MODEL, which records its activations while it samples."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCalibrate",
            display_name="Calibrate",
            category=CALIBRATE,
            description=(
                "Returns the model with observers that record the inputs of every layer while you "
                "sample. The pictures do not change. Calibration Result collects what they record."
            ),
            search_aliases=[
                "nvfp4 calibrate",
                "calibration",
                "activation statistics",
                "input_scale",
                "observe",
                "calibrate nvfp4",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to observe."),
                io.String.Input(
                    "name",
                    default="calibration",
                    tooltip="The name to save the calibration under. Runs add up under this name, "
                    "even after a restart. Use one name per model: the high-noise and the "
                    "low-noise expert of WAN 2.2 need two names.",
                ),
                io.Combo.Input(
                    "accumulate",
                    options=[_CONTINUE, _START_OVER],
                    default=_CONTINUE,
                    tooltip="'continue' adds to the saved calibration. 'start over' keeps the old "
                    "file under a dated name and begins again each time this node runs.",
                ),
                *_memory_inputs(),
                io.String.Input(
                    "prompts",
                    optional=True,
                    force_input=True,
                    tooltip="The list from Calibration Prompts. It is recorded with the "
                    "calibration.",
                ),
                io.Combo.Input(
                    "interrupted_runs",
                    options=[_LEAVE_OUT, _TAKE_IN],
                    default=_LEAVE_OUT,
                    optional=True,
                    advanced=True,
                    tooltip="What to do with samplings that were cancelled or failed. They saw the "
                    "first steps only. 'leave out' keeps them aside. 'take in' adds them to the "
                    "calibration when Calibration Result runs next.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                CalibrationSocket.Output(display_name="SESSION"),
            ],
            is_input_list=True,  # the whole deck of prompts comes in one call
        )

    @classmethod
    def validate_inputs(cls, name: Any) -> bool | str:
        """Report a name that cannot be a file name before the queue starts."""
        return refused_if_invalid(CALIBRATIONS.check_new(name, optional=False))

    @classmethod
    def execute(
        cls,
        model: list[Any],
        name: list[str],
        accumulate: list[str],
        rows_per_layer: list[int],
        memory_budget_mb: list[int],
        hessians_mb: list[int] | None = None,
        prompts: list[str] | None = None,
        interrupted_runs: list[str] | None = None,
    ) -> io.NodeOutput:
        """Return an observed clone of the model and its calibration session."""
        if len(model) != 1:
            raise ValueError(f"Calibrate observes one MODEL, but it got a list of {len(model)}")
        with ModelSource(model[0]) as source:
            fingerprint = source.fingerprint()
            layers = take_inventory(source).of_kind("linear")
        path = CALIBRATIONS.path(name[0])
        session = open_session(
            name[0].strip(),
            path,
            fingerprint,
            CollectorSettings(
                rows_per_layer=rows_per_layer[0],
                memory_budget_bytes=memory_budget_mb[0] * 2**20,
                moments_budget_bytes=(hessians_mb or [0])[0] * 2**20,
                # Layers outside the blocks are small and rarely quantized.
                moments_layers=frozenset(layer.name for layer in layers if layer.block),
                moments_folder=moments_folder(path),
            ),
            start_over=accumulate[0] == _START_OVER,
        )
        session.set_prompts(prompts or ())
        session.takes_in_interrupted = (interrupted_runs or [_LEAVE_OUT])[0] == _TAKE_IN
        session.show_with(partial(send_live, str(cls.hidden.unique_id), "calibration"))
        return io.NodeOutput(observed_clone(model[0], session), session)


def _memory_inputs() -> list[io.Input]:
    """Return the inputs for how much to record."""
    return [
        io.Int.Input(
            "rows_per_layer",
            default=256,
            min=0,
            max=8192,
            advanced=True,
            tooltip="How many input rows to keep per layer. They are used to measure "
            "output errors.",
        ),
        io.Int.Input(
            "memory_budget_mb",
            default=512,
            min=16,
            max=65536,
            advanced=True,
            tooltip="The memory limit for all kept rows together, in MB, on the device "
            "that runs the model. If it is too small, every layer keeps fewer rows.",
        ),
        io.Int.Input(
            "hessians_mb",
            optional=True,
            default=0,
            min=0,
            max=262144,
            advanced=True,
            tooltip="The memory for collecting Hessians, in MB, on the device that runs "
            "the model. The roundings gptq and gptaq need Hessians; 0 collects none. Each "
            "sampling run collects as many as fit and keeps them on disk, and the next run "
            "collects others. The report says how many are done. For WAN 2.2 5B, 8000 and "
            "eight prompts are enough.",
        ),
    ]
