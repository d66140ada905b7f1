"""Running calibrations: one per name, kept between queue runs and saved on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from ...quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    RunAccumulator,
    RunRecord,
    assess_convergence,
    delete_moments,
    load_statistics,
    moments_folder,
    save_statistics,
)
from ...quant.errors import CalibrationError, FoundryError, Remedy
from ...quant.fingerprint import ModelFingerprint
from ...quant.text import printable
from ..files.names import free_name
from .live import LiveCalibration

_REMEDY = (
    "Give this model's calibration another name, or set 'accumulate' to 'start over', which keeps "
    "the old file under a new name"
)


class CalibrationSession:
    """A named calibration of one model, which grows while its observed MODEL samples.

    Every sampling is a run of its own, see `RunAccumulator`. A deck of prompts that is cancelled
    keeps the runs that had finished. If it is queued again, ComfyUI samples it from its first
    prompt; samplings that are the same as finished ones then do not count twice.
    """

    def __init__(
        self, name: str, path: Path, fingerprint: ModelFingerprint, settings: CollectorSettings
    ):
        self.name = name
        #: Whether the next `finish` takes in the interrupted runs.
        self.takes_in_interrupted = False
        self._path = path
        self._runs = RunAccumulator(settings, fingerprint)
        self._collector: ActivationCollector | None = None
        self._live = LiveCalibration(name, lambda detail: None)
        self._prompts: tuple[str, ...] = ()
        # Digests of the samplings of the present deck, and of those that a cancelled deck finished.
        self._deck: list[str] = []
        self._finished_before: list[str] = []
        self._on_disk = False
        self._unread = 0

    @property
    def fingerprint(self) -> ModelFingerprint:
        """The fingerprint of the model."""
        return self._runs.fingerprint

    @property
    def has_news(self) -> bool:
        """Whether a sampling has finished since the last `finish`."""
        return self._unread > 0

    @property
    def knows_more_than_files(self) -> bool:
        """Whether it holds unsaved or interrupted runs, or its place in a deck."""
        return self.has_news or bool(self._deck or self._finished_before or self.left_out)

    @property
    def was_deleted(self) -> bool:
        """Whether the user deleted the saved file, which discards the calibration."""
        return self._on_disk and not self._path.exists()

    @property
    def settings(self) -> CollectorSettings:
        """Return the collector's settings."""
        return self._runs.settings

    @property
    def left_out(self) -> tuple[RunRecord, ...]:
        """The interrupted runs that are kept aside."""
        return self._runs.interrupted.runs if self._runs.interrupted is not None else ()

    def continue_from_disk(self) -> None:
        """Continue from the file that an earlier ComfyUI process saved under this name.

        Raises:
            CalibrationError: the file is damaged or belongs to another model.
        """
        if self._path.exists():
            saved = self._load(self._path)
            if saved.fingerprint.drift(self.fingerprint):
                # Runs with and without a LoRA may be mixed. They count as runs of the first model,
                # so that quantizing the other one gives a warning.
                self._runs.fingerprint = saved.fingerprint
            self._runs.finished = saved
            self._on_disk = True
        if _aside(self._path).exists():
            self._runs.interrupted = self._load(_aside(self._path))

    def _load(self, path: Path) -> CalibrationStatistics:
        try:
            saved = load_statistics(path)
        except CalibrationError as error:
            remedy = _other_name(self._path)
            raise CalibrationError(f"{error}. {_REMEDY}", remedy=remedy) from error
        try:
            saved.require_model(self.fingerprint, f"calibration {self.name!r}", _REMEDY)
        except CalibrationError as error:
            error.remedy = _other_name(self._path)
            raise
        return saved

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """Set the prompts of the next samplings, in their order."""
        self._prompts = tuple(prompts)
        self._deck.clear()

    def show_with(self, send: Callable[[dict[str, Any]], None]) -> None:
        """Send what `LiveCalibration` shows to this function."""
        self._live = LiveCalibration(self.name, send)

    @contextmanager
    def observe(
        self, diffusion_model: torch.nn.Module, settings: dict[str, Any], sampling: str = ""
    ) -> Iterator[None]:
        """Observe one sampling run; ``sampling`` is a digest that tells it from others."""
        self._forget_if_deleted()
        number = len(self._deck)
        prompt = self._prompts[number : number + 1]
        counts = not sampling or sampling not in self._finished_before
        self._live.begin("".join(prompt), number, len(self._prompts), settings.get("steps") or 0)
        try:
            with self._runs.observe(
                diffusion_model, prompt, settings, counts=counts
            ) as self._collector:
                yield
        except BaseException:
            # ComfyUI samples a cancelled deck again from its first prompt.
            self._finished_before += self._deck
            self._deck.clear()
            self._end_run(finished=False)
            self._save_what_finished()
            raise
        if counts:
            self._unread += 1
        else:
            self._finished_before.remove(sampling)
        self._deck.append(sampling)
        self._end_run(finished=True)
        if len(self._deck) >= len(self._prompts):
            self._deck.clear()
            self._finished_before.clear()

    def begin_call(self, sigma: Any, cond_or_uncond: Any) -> None:
        """Tell the collector that a model call begins."""
        if self._collector is not None:
            self._collector.begin_call(sigma, cond_or_uncond)
            self._live.call(self._collector)

    def end_step(self, done: int) -> None:
        """Tell that so many steps of the sampling are done."""
        self._live.step(done)

    def _end_run(self, *, finished: bool) -> None:
        collector, self._collector = self._collector, None
        changes = assess_convergence(self._runs.statistics())
        self._live.end(collector, finished=finished, runs=changes, left=len(self.left_out))

    def _forget_if_deleted(self) -> None:
        if self.was_deleted:
            self._runs.reset()
            self._on_disk = False
            self._finished_before.clear()
            _aside(self._path).unlink(missing_ok=True)
            delete_moments(self._path)

    def finish(self) -> CalibrationStatistics:
        """Save everything collected so far and return it as an immutable copy.

        Raises:
            CalibrationError: nothing was sampled with the observed MODEL, or the file of this
                name holds runs of another session, which would be lost.
        """
        if self.takes_in_interrupted:
            self._runs.take_in()
        statistics = self._runs.statistics()
        if not statistics.layers:
            raise CalibrationError(
                f"calibration {self.name!r} has seen no sampling: connect the MODEL output of "
                "Calibrate to the sampler, and the LATENT of that sampler to this node. If there "
                "is a second Calibrate node after the first, only the second one observes"
            )
        self._save(statistics)
        self._unread = 0
        return statistics

    def _save(self, statistics: CalibrationStatistics) -> None:
        """Save the finished runs, and the interrupted ones beside them."""
        self._require_own_file(statistics)
        if statistics.layers:
            save_statistics(statistics, self._path)
            self._on_disk = True
        if self._runs.interrupted is not None:
            save_statistics(self._runs.interrupted, _aside(self._path))
        else:
            _aside(self._path).unlink(missing_ok=True)

    def _save_what_finished(self) -> None:
        """Save after a cancel, so that a restart loses nothing. Never raises."""
        try:
            self._save(self._runs.statistics())
        except (FoundryError, OSError) as error:  # `finish` will say it again
            logging.warning(
                "NVFP4 Foundry: the calibration could not be saved: %s", printable(str(error))
            )

    def _require_own_file(self, statistics: CalibrationStatistics) -> None:
        """Refuse to replace a file that holds runs of another session."""
        if not self._path.exists():
            return
        saved = load_statistics(self._path)
        other_model = saved.fingerprint.difference(self.fingerprint)
        foreign = {run.id for run in saved.runs} - {run.id for run in statistics.runs}
        if other_model or foreign:
            raise CalibrationError(
                f"another Calibrate node or another ComfyUI has saved calibration {self.name!r} "
                f"in the meantime ({other_model or f'{len(foreign)} other runs'}). Give each "
                "Calibrate node a name of its own; nothing was overwritten"
            )

    def set_aside(self) -> None:
        """Rename the saved files to a dated name, so that starting over loses nothing."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        dated = self._path.with_name(f"{self._path.stem}.{stamp}.safetensors")
        for name in (lambda path: path, _aside, moments_folder):
            if name(self._path).exists():
                name(self._path).rename(name(dated))


def _aside(path: Path) -> Path:
    """Return the file of the interrupted runs of a calibration; it is not listed as one."""
    return path.with_name(f"{path.stem}.interrupted")


def _other_name(path: Path) -> Remedy:
    """Return the remedy to calibrate under a name that is free."""
    name = free_name(path).stem
    return Remedy(f"Calibrate under the name {name}", "name", name)


# A session lives as long as a MODEL that it observes. Sampled rows of a large model may take a
# gigabyte, so of the others only the newest is kept, and those that know more than their files.
_SESSIONS: WeakValueDictionary[Path, CalibrationSession] = WeakValueDictionary()
_KEPT: list[CalibrationSession] = []


def open_session(
    name: str,
    path: Path,
    fingerprint: ModelFingerprint,
    settings: CollectorSettings,
    *,
    start_over: bool,
) -> CalibrationSession:
    """Return the session of this name: the running one, one continued from disk, or a new one.

    Raises:
        CalibrationError: the running or saved calibration to continue belongs to another model.
    """
    running = _SESSIONS.get(path)
    difference = running.fingerprint.difference(fingerprint) if running is not None else None
    if running is not None and difference and running.has_news and not start_over:
        raise CalibrationError(
            f"calibration {name!r} is in use for a different model ({difference}). Give this "
            "model's calibration another name, or set 'accumulate' to 'start over'",
            remedy=_other_name(path),
        )
    if start_over:
        session = CalibrationSession(name, path, fingerprint, settings)
        session.set_aside()
    elif (
        running is not None
        and difference is None
        and running.settings == settings
        and not running.was_deleted
    ):
        session = running
    else:
        if running is not None and difference is None and running.has_news:
            running.finish()  # the settings changed: the new session continues from disk
        session = CalibrationSession(name, path, fingerprint, settings)
        session.continue_from_disk()
    _SESSIONS[path] = session
    _keep(session)
    return session


def _keep(newest: CalibrationSession) -> None:
    """Keep the newest session, and the present ones that know more than their files."""
    others = (session for session in _SESSIONS.values() if session is not newest)
    _KEPT[:] = [newest, *(session for session in others if session.knows_more_than_files)]
