"""Collecting activation statistics while the user samples."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import CollectorSettings, describe_budget, moments_folder
from ...quant.planning import take_inventory
from ...quant.reports.calibration import describe_statistics
from ..bridge.model_source import ModelSource
from ..bridge.models import observed_clone
from ..files.artefacts import CALIBRATIONS
from ..inputs.sockets import CATEGORY, CalibrationSocket, StatisticsSocket
from .sessions import CalibrationSession, open_session

_CONTINUE, _START_OVER = "continue", "start over"


class Calibrate(io.ComfyNode):
    """MODEL in, observed MODEL out: sampling with it collects statistics."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCalibrate",
            display_name="Calibrate",
            category=CATEGORY,
            description=(
                "Gives back the model with observers that record what every layer receives while "
                "you sample. The pictures do not change. Read the result with Calibration Result."
            ),
            search_aliases=["nvfp4 calibrate", "activation statistics", "input_scale", "observe"],
            inputs=[
                io.Model.Input("model", tooltip="The model to observe."),
                io.String.Input(
                    "name",
                    default="calibration",
                    tooltip="Runs add up under this name, also after a restart. Use one name per "
                    "model: the high- and the low-noise expert need two.",
                ),
                io.Combo.Input(
                    "accumulate",
                    options=[_CONTINUE, _START_OVER],
                    default=_CONTINUE,
                    tooltip="'start over' keeps the old file under a dated name and begins anew "
                    "each time this node runs.",
                ),
                io.Int.Input(
                    "rows_per_layer",
                    default=256,
                    min=0,
                    max=8192,
                    advanced=True,
                    tooltip="Activation rows sampled per layer, for measuring output errors.",
                ),
                io.Int.Input(
                    "memory_budget_mb",
                    default=512,
                    min=16,
                    max=65536,
                    advanced=True,
                    tooltip="Limit of all sampled rows together, in MB of the memory the model "
                    "runs in. Layers get equally fewer rows when it is too small.",
                ),
                io.Int.Input(
                    "hessians_mb",
                    optional=True,
                    default=0,
                    min=0,
                    max=262144,
                    tooltip="Memory, in MB where the model runs, for collecting Hessians: the "
                    "roundings gptq and gptaq need them. 0: do not collect. As many layers as fit "
                    "are collected in one sampling run, others in the next, and kept on disk; the "
                    "report says how many are done. 8000 and eight prompts do for WAN 2.2 5B.",
                ),
                io.String.Input(
                    "prompts",
                    optional=True,
                    force_input=True,
                    tooltip="The list from Calibration Prompts, to be recorded with the result.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                CalibrationSocket.Output(display_name="CALIBRATION"),
            ],
            is_input_list=True,  # the whole deck of prompts comes in one call
        )

    @classmethod
    def validate_inputs(cls, name: Any) -> bool | str:
        """Say before the queue starts when the name is no file name."""
        return CALIBRATIONS.check_new(name, optional=False)

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
    ) -> io.NodeOutput:
        """Wrap a clone of the model."""
        if len(model) != 1:
            raise ValueError(f"Calibrate observes one MODEL, it got a list of {len(model)}")
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
                # What is outside of the blocks is rarely quantized, and small.
                moments_layers=frozenset(layer.name for layer in layers if layer.block),
                moments_folder=moments_folder(path),
            ),
            start_over=accumulate[0] == _START_OVER,
        )
        session.set_prompts(prompts or ())
        return io.NodeOutput(observed_clone(model[0], session), session)


class CalibrationResult(io.ComfyNode):
    """What the observed model saw, as an immutable snapshot."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCalibrationResult",
            display_name="Calibration Result",
            category=CATEGORY,
            description=(
                "Takes the statistics once the latents are sampled, saves them in ComfyUI's "
                "output folder, and reports every layer."
            ),
            search_aliases=["nvfp4 statistics", "calibration report", "activation report"],
            inputs=[
                CalibrationSocket.Input("calibration", tooltip="From Calibrate."),
                io.Latent.Input(
                    "latent",
                    tooltip="What the sampler made with the observed model. It makes this node "
                    "wait for the sampling, and run again when there is a new one.",
                ),
            ],
            outputs=[
                StatisticsSocket.Output(display_name="STATISTICS"),
                io.Latent.Output(display_name="latent", is_output_list=True),
                io.String.Output(display_name="report"),
            ],
            is_input_list=True,  # all latents of a deck of prompts belong to one snapshot
            is_output_node=True,
        )

    @classmethod
    def execute(cls, calibration: list[CalibrationSession], latent: list[Any]) -> io.NodeOutput:
        """Take the snapshot."""
        has_news = calibration[0].has_news
        statistics = calibration[0].finish()
        text = describe_statistics(statistics)
        budget = describe_budget(statistics, calibration[0].settings)
        text = f"{budget}\n\n{text}" if budget else text
        if not has_news:
            text = (
                "warning: nothing was sampled with Calibrate's MODEL since the last result; "
                f"is it connected to the sampler?\n\n{text}"
            )
        return io.NodeOutput(statistics, latent, text, ui=ui.PreviewText(text))
