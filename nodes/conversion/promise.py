"""A checkpoint that is made when it is saved, with one layer in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...quant.calibration import CalibrationStatistics
from ...quant.checkpoint.copy import copy_checkpoint
from ...quant.conversion.convert import (
    QuantizedModel,
    convert,
    quantize_to_memory,
    report_conversion,
    save_model,
)
from ...quant.conversion.job import ConversionJob, prepare_job
from ...quant.conversion.observed_input import working_bytes
from ...quant.conversion.report import ConversionReport
from ...quant.errors import SourceError
from ...quant.planning import Plan
from ...quant.sources import AppliedLora, open_tensors
from ..bridge.model_or_clip import is_clip, opened
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device
from ..bridge.progress import progress_bar
from ..calibration.fitting import offering_one_that_fits
from ..files.written import FileState, state_of


@dataclass(frozen=True)
class _Identity:
    """What decides the bytes of a checkpoint.

    ComfyUI gives the weights of a MODEL another ``patches_uuid`` whenever they change.
    """

    weights: object
    files: tuple[tuple[Path, FileState | None], ...]
    plan: Plan
    runs: tuple[object, ...]


@dataclass(frozen=True)
class SavedCheckpoint:
    """A file that a promise was saved to, and the report on it."""

    path: Path
    report: ConversionReport


@dataclass(frozen=True, eq=False)
class PromisedCheckpoint:
    """All that a checkpoint is made from: the weights of a MODEL or CLIP, a plan, a calibration.

    Attributes:
        model: a clone of the MODEL or CLIP, with the LoRAs that it had then.
        plan: the plan made from it.
        statistics: its calibration, if there is one.
        loras: the LoRA files that are known to be applied.
        source: the description of its source.
        identity: tells whether two promises make the same file.
        made: the checkpoint itself, if the graph needed it in memory anyway.
    """

    model: Any
    plan: Plan
    statistics: CalibrationStatistics | None
    loras: tuple[AppliedLora, ...]
    source: str
    identity: _Identity
    made: QuantizedModel | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        source: ModelSource,
        plan: Plan,
        statistics: CalibrationStatistics | None,
        loras: tuple[AppliedLora, ...],
    ) -> PromisedCheckpoint:
        """Return the promise for a MODEL or CLIP; ``source`` is its weights, opened."""
        patcher = model.patcher if is_clip(model) else model
        identity = _Identity(
            weights=patcher.patches_uuid,
            files=tuple((path, state_of(path)) for path in source.paths),
            plan=plan,
            runs=statistics.runs if statistics is not None else (),
        )
        # nodes that run later may change the patches of the MODEL itself
        clone = model.clone()
        return cls(clone, plan, statistics, loras, source.description, identity)

    def in_memory(self, source: ModelSource) -> QuantizedModel:
        """Return the checkpoint in memory; ``source`` is the weights of the MODEL, opened.

        A file that holds the checkpoint already is read, rather than encoding it again.

        Raises:
            FoundryError: as `convert`.
        """
        earlier = next(iter(self.saved_before()), None)
        if earlier is None:
            return quantize_to_memory(source, self.plan, **self._settings())
        with open_tensors(earlier.path) as file:
            tensors = {name: file.load(name) for name in file.tensors}
            file.require_unchanged()
            return QuantizedModel(tensors, dict(file.metadata), replace(earlier.report, target=""))

    def report(self, source: ModelSource) -> ConversionReport:
        """Encode every layer for the report alone; ``source`` is its weights, opened.

        Raises:
            FoundryError: as `convert`.
        """
        return report_conversion(source, self.plan, **self._settings())

    def job(self, source: ModelSource) -> ConversionJob:
        """Check that source, plan and calibration belong together; return what will be done.

        Raises:
            FoundryError: as `prepare_job`.
        """
        return prepare_job(source, self.plan, self.statistics, "cpu")

    def write(self, path: Path, *, overwrite: bool) -> ConversionReport:
        """Write the checkpoint and return the report; the file appears complete or not at all.

        Raises:
            SourceError: a file of the source changed since the promise was made.
            FoundryError: as `convert`.
        """
        earlier = next((saved for saved in self.saved_before() if saved.path != path), None)
        if self.made is not None:
            save_model(self.made, path, overwrite=overwrite, on_progress=progress_bar())
            report = replace(self.made.report, target=path.name)
        elif earlier is not None:
            copy_checkpoint(earlier.path, path, overwrite=overwrite, on_progress=progress_bar())
            report = replace(earlier.report, target=path.name)
        else:
            report = self._converted(path, overwrite)
        _remember(self.identity, SavedCheckpoint(path, report))
        return report

    def saved_before(self) -> list[SavedCheckpoint]:
        """Return the files that hold this checkpoint, unchanged since they were written."""
        return [
            saved
            for saved, identity, state in _SAVED
            if identity == self.identity and state_of(saved.path) == state is not None
        ]

    def _converted(self, path: Path, overwrite: bool) -> ConversionReport:
        """Read, encode and write layer after layer."""
        self._require_files()
        source = opened(self.model, self.loras, plan=self.plan)
        with source, offering_one_that_fits(source):
            return convert(source, self.plan, path, overwrite=overwrite, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {
            "statistics": self.statistics,
            "device": compute_device(working_bytes(self.plan.recipe.rounding, self.statistics)),
            "on_progress": progress_bar(),
        }

    def _require_files(self) -> None:
        for path, state in self.identity.files:
            if state_of(path) != state:
                raise SourceError(
                    f"{path} was changed or deleted after the model was quantized in this "
                    "workflow; load the model again (Load Source Model does so by itself when you "
                    "queue) and quantize it again"
                )


# The newest come last. A report has a few hundred bytes for each layer.
_MOST_SAVED = 8
_SAVED: list[tuple[SavedCheckpoint, _Identity, FileState | None]] = []


def _remember(identity: _Identity, saved: SavedCheckpoint) -> None:
    _SAVED.append((saved, identity, state_of(saved.path)))
    del _SAVED[:-_MOST_SAVED]
