"""Calibrations in progress: one per name, kept over queue runs and on disk over restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    delete_moments,
    load_statistics,
    moments_folder,
    save_statistics,
)
from ...quant.errors import CalibrationError
from ...quant.fingerprint import ModelFingerprint


class CalibrationSession:
    """A named calibration of one model, gathering while its observed MODEL samples."""

    def __init__(
        self, name: str, path: Path, fingerprint: ModelFingerprint, settings: CollectorSettings
    ):
        self.name = name
        self.fingerprint = fingerprint
        self._path = path
        self._collector = ActivationCollector(settings)
        self._prompts: tuple[str, ...] = ()
        self._samplings = 0
        self._on_disk = False
        self._unread = 0

    @property
    def has_news(self) -> bool:
        """Whether anything was sampled since the last `finish`."""
        return self._unread > 0

    @property
    def was_deleted(self) -> bool:
        """Whether the user removed the saved file meanwhile: the way to forget a calibration."""
        return self._on_disk and not self._path.exists()

    @property
    def settings(self) -> CollectorSettings:
        """Return the collector's settings."""
        return self._collector.settings

    def continue_from_disk(self) -> None:
        """Go on from what an earlier ComfyUI process saved under this name.

        Raises:
            CalibrationError: the file is damaged, or of another model.
        """
        if not self._path.exists():
            return
        try:
            saved = load_statistics(self._path)
            saved.require_model(self.fingerprint, f"calibration {self.name!r}")
        except CalibrationError as error:
            raise CalibrationError(
                f"{error}. Give this model's calibration another name, or set 'accumulate' to "
                "'start over' (the old file is kept under a new name)"
            ) from error
        if saved.fingerprint.drift(self.fingerprint):
            # Runs of a model and of the same with a LoRA mix; they count as the first one's, so
            # that quantizing the other is warned of.
            self.fingerprint = saved.fingerprint
        self._collector.load_state(saved)
        self._on_disk = True

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """Record what the coming samplings are prompted with, in their order."""
        self._prompts = tuple(prompts)
        self._samplings = 0

    @contextmanager
    def observe(self, diffusion_model: torch.nn.Module, settings: dict[str, Any]) -> Iterator[None]:
        """Observe one sampling run."""
        if self.was_deleted:
            self._collector.reset()
            self._on_disk = False
            delete_moments(self._path)
        prompt = ()
        if self._prompts:
            prompt = (self._prompts[self._samplings % len(self._prompts)],)
        self._samplings += 1
        self._unread += 1
        self._collector.new_run(prompt, settings)
        try:
            with self._collector.observe(diffusion_model):
                yield
        except BaseException:
            self._samplings = 0  # an interrupted deck starts again from its first prompt
            raise

    def begin_call(self, sigma: Any, cond_or_uncond: Any) -> None:
        """Announce a model call."""
        self._collector.begin_call(sigma, cond_or_uncond)

    def finish(self) -> CalibrationStatistics:
        """Return an immutable copy of everything gathered, after saving it to disk.

        Raises:
            CalibrationError: nothing was sampled with the observed MODEL, or the file of this
                name holds runs of another session, which saving would lose.
        """
        statistics = self._collector.snapshot(self.fingerprint)
        if not statistics.layers:
            raise CalibrationError(
                f"calibration {self.name!r} has seen no sampling: connect the MODEL output of "
                "Calibrate to the sampler whose LATENT comes here (another Calibrate after it "
                "replaces it)"
            )
        self._require_own_file(statistics)
        save_statistics(statistics, self._path)
        self._on_disk = True
        self._unread = 0
        return statistics

    def _require_own_file(self, statistics: CalibrationStatistics) -> None:
        """Refuse to replace a file with runs that are not among ours."""
        if not self._path.exists():
            return
        saved = load_statistics(self._path)
        other_model = saved.fingerprint.difference(self.fingerprint)
        foreign = {run.id for run in saved.runs} - {run.id for run in statistics.runs}
        if other_model or foreign:
            raise CalibrationError(
                f"calibration {self.name!r} was saved by another Calibrate node or another "
                f"ComfyUI meanwhile ({other_model or f'{len(foreign)} other runs'}). Give each "
                "Calibrate node a name of its own; nothing was overwritten"
            )

    def set_aside(self) -> None:
        """Keep the saved file under a dated name, so that starting over loses nothing."""
        if self._path.exists():
            stamp = time.strftime("%Y%m%d-%H%M%S")
            aside = self._path.with_name(f"{self._path.stem}.{stamp}.safetensors")
            self._path.rename(aside)
            if moments_folder(self._path).exists():
                moments_folder(self._path).rename(moments_folder(aside))


_SESSIONS: dict[Path, CalibrationSession] = {}


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
        CalibrationError: continuing, and what is gathered or saved is of another model.
    """
    running = _SESSIONS.get(path)
    difference = running.fingerprint.difference(fingerprint) if running is not None else None
    if running is not None and difference and running.has_news and not start_over:
        raise CalibrationError(
            f"calibration {name!r} is gathering for a different model ({difference}). Give this "
            "model's calibration another name, or set 'accumulate' to 'start over'"
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
        return running
    else:
        if running is not None and difference is None and running.has_news:
            running.finish()  # the settings changed: what it gathered goes on from disk
        session = CalibrationSession(name, path, fingerprint, settings)
        session.continue_from_disk()
    _SESSIONS[path] = session
    return session
