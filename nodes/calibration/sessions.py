"""Running calibrations: one per name, kept between queue runs and saved on disk."""

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

_REMEDY = (
    "Give this model's calibration another name, or set 'accumulate' to 'start over', which keeps "
    "the old file under a new name"
)


class CalibrationSession:
    """A named calibration of one model, which grows while its observed MODEL samples."""

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
        """Whether the user deleted the saved file, which discards the calibration."""
        return self._on_disk and not self._path.exists()

    @property
    def settings(self) -> CollectorSettings:
        """Return the collector's settings."""
        return self._collector.settings

    def continue_from_disk(self) -> None:
        """Continue from the file that an earlier ComfyUI process saved under this name.

        Raises:
            CalibrationError: the file is damaged or belongs to another model.
        """
        if not self._path.exists():
            return
        try:
            saved = load_statistics(self._path)
        except CalibrationError as error:
            raise CalibrationError(f"{error}. {_REMEDY}") from error
        saved.require_model(self.fingerprint, f"calibration {self.name!r}", _REMEDY)
        if saved.fingerprint.drift(self.fingerprint):
            # Runs with and without a LoRA may be mixed. They count as runs of the first model, so
            # that quantizing the other one gives a warning.
            self.fingerprint = saved.fingerprint
        self._collector.load_state(saved)
        self._on_disk = True

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """Set the prompts of the next samplings, in their order."""
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
        """Tell the collector that a model call begins."""
        self._collector.begin_call(sigma, cond_or_uncond)

    def finish(self) -> CalibrationStatistics:
        """Save everything collected so far and return it as an immutable copy.

        Raises:
            CalibrationError: nothing was sampled with the observed MODEL, or the file of this
                name holds runs of another session, which would be lost.
        """
        statistics = self._collector.snapshot(self.fingerprint)
        if not statistics.layers:
            raise CalibrationError(
                f"calibration {self.name!r} has seen no sampling: connect the MODEL output of "
                "Calibrate to the sampler, and the LATENT of that sampler to this node. If there "
                "is a second Calibrate node after the first, only the second one observes"
            )
        self._require_own_file(statistics)
        save_statistics(statistics, self._path)
        self._on_disk = True
        self._unread = 0
        return statistics

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
        """Rename the saved file to a dated name, so that starting over loses nothing."""
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
        CalibrationError: the running or saved calibration to continue belongs to another model.
    """
    running = _SESSIONS.get(path)
    difference = running.fingerprint.difference(fingerprint) if running is not None else None
    if running is not None and difference and running.has_news and not start_over:
        raise CalibrationError(
            f"calibration {name!r} is in use for a different model ({difference}). Give this "
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
            running.finish()  # the settings changed: the new session continues from disk
        session = CalibrationSession(name, path, fingerprint, settings)
        session.continue_from_disk()
    _SESSIONS[path] = session
    return session
