"""Collecting activation statistics while the user samples."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import (
    CalibrationStatistics,
    CollectorSettings,
    describe_budget,
    load_statistics,
    merge_all,
    moments_folder,
    save_statistics,
)
from ...quant.planning import take_inventory
from ...quant.reports.calibration import describe_statistics
from ..bridge.model_source import ModelSource
from ..bridge.models import observed_clone
from ..files import decks, folders
from ..files.artefacts import CALIBRATIONS
from ..inputs.sockets import CATEGORY, CalibrationSocket, StatisticsSocket
from .sessions import CalibrationSession, open_session

_CONTINUE, _START_OVER = "continue", "start over"


class CalibrationPrompts(io.ComfyNode):
    """A deck of prompts, given as a list: one queue run samples them all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryCalibrationPrompts",
            display_name="Calibration Prompts",
            category=CATEGORY,
            description=(
                "Gives prompts one after the other to the nodes it is connected to, so that one "
                "queue run samples them all. Prompts like your own calibrate best."
            ),
            search_aliases=["prompt list", "prompt deck", "nvfp4 prompts"],
            inputs=[
                io.DynamicCombo.Input(
                    "deck",
                    options=[
                        *(io.DynamicCombo.Option(f"built-in: {n}", []) for n in decks.deck_names()),
                        io.DynamicCombo.Option(
                            "typed",
                            [
                                io.String.Input(
                                    "text",
                                    multiline=True,
                                    default="",
                                    placeholder="one prompt a line",
                                    tooltip="One prompt a line; lines starting with # are skipped.",
                                )
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "file",
                            [
                                io.Combo.Input(
                                    "name",
                                    options=folders.prompt_files(),
                                    tooltip="A .txt file in ComfyUI's input folder, one prompt "
                                    "a line.",
                                )
                            ],
                        ),
                    ],
                    tooltip="Where the prompts come from.",
                ),
                io.Int.Input(
                    "limit",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="How many prompts of the deck to use, from the top. Four to eight "
                    "different ones usually do.",
                ),
            ],
            outputs=[io.String.Output(display_name="prompts", is_output_list=True)],
        )

    @classmethod
    def fingerprint_inputs(cls, deck: Any = None, limit: int | None = None) -> float:
        """Read again when the file changed."""
        name = deck.get("name") if isinstance(deck, dict) else None
        return folders.prompt_path(name).stat().st_mtime if name else 0.0

    @classmethod
    def execute(cls, limit: int, deck: dict[str, Any] | None = None) -> io.NodeOutput:
        """Read the deck."""
        if deck is None:  # what ComfyUI makes of a choice it does not know
            raise ValueError("this workflow names a deck that is not installed; choose another")
        choice = deck["deck"]
        if choice == "typed":
            prompts = decks.parse_deck(deck["text"], "the typed deck")
        elif choice == "file":
            path = folders.prompt_path(deck["name"])
            prompts = decks.read_deck(path)
        else:
            prompts = decks.built_in_deck(choice.removeprefix("built-in: "))
        return io.NodeOutput(prompts[:limit])


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


class LoadCalibration(io.ComfyNode):
    """A calibration saved earlier."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryLoadCalibration",
            display_name="Load Calibration",
            category=CATEGORY,
            description="Loads statistics that Calibration Result or Merge Calibrations saved.",
            search_aliases=["nvfp4 statistics", "load statistics"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=CALIBRATIONS.names(),
                    tooltip="A file in output/nvfp4_foundry/calibrations.",
                )
            ],
            outputs=[
                StatisticsSocket.Output(display_name="STATISTICS"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Say before the queue starts when the file is gone."""
        return CALIBRATIONS.check_saved(name)

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float:
        """Load again when the file changed."""
        return CALIBRATIONS.modified(name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Load."""
        statistics = load_statistics(CALIBRATIONS.path(name))
        return io.NodeOutput(statistics, describe_statistics(statistics))


class MergeCalibrations(io.ComfyNode):
    """Statistics of one model from several days or machines, added up."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryMergeCalibrations",
            display_name="Merge Calibrations",
            category=CATEGORY,
            description=(
                "Adds up calibrations of the same model. Another model, or the same run twice, is "
                "an error."
            ),
            search_aliases=["nvfp4 statistics", "merge statistics", "combine calibrations"],
            inputs=[
                io.Autogrow.Input(
                    "statistics",
                    template=io.Autogrow.TemplatePrefix(
                        input=StatisticsSocket.Input(
                            "statistics", tooltip="From Calibration Result or Load Calibration."
                        ),
                        prefix="statistics_",
                        min=2,
                    ),
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="Also save the sum under this name; empty: do not.",
                ),
            ],
            outputs=[
                StatisticsSocket.Output(display_name="STATISTICS"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None, statistics: Any = None) -> bool | str:
        """Say before the queue starts when the name is bad."""
        return CALIBRATIONS.check_new(save_as)

    @classmethod
    def execute(cls, statistics: dict[str, CalibrationStatistics], save_as: str) -> io.NodeOutput:
        """Merge."""
        merged = merge_all([value for value in statistics.values() if value is not None])
        if save_as:
            _save_merged(merged, save_as)
        text = describe_statistics(merged)
        return io.NodeOutput(merged, text, ui=ui.PreviewText(text))


def _save_merged(merged: CalibrationStatistics, name: str) -> None:
    """Save, or leave a file alone that holds the very same runs already.

    Raises:
        FileExistsError: the name is taken by other runs.
    """
    path = CALIBRATIONS.path(name)
    if path.exists():
        saved = {run.id for run in load_statistics(path).runs}
        if saved != {run.id for run in merged.runs}:
            raise FileExistsError(f"a calibration named {name} exists; choose another name")
        return
    save_statistics(merged, path)
