"""Add up sampling runs to a calibration, each observed apart, so that a broken one can be left out.

Every run has a fresh `ActivationCollector` and is merged when it ends. The result is that of one
collector over all runs, with two exceptions: sums of squares are added run by run and may differ in
the last bits of their float64, and for Hessians a call is compared with the call before in its own
run only, so that the first call of a run always counts as new. A run
that raises an exception (the user cancels, the GPU runs out of memory) saw only the first steps.
It is kept aside, marked, and is in no statistics until `take_in`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..fingerprint import ModelFingerprint
from .collector import ActivationCollector
from .merge import merge
from .settings import CollectorSettings
from .statistics import CalibrationStatistics


class RunAccumulator:
    """The finished runs of one model, and the interrupted ones beside them. Not thread-safe."""

    def __init__(self, settings: CollectorSettings, fingerprint: ModelFingerprint) -> None:
        """Start without a run."""
        self.settings = settings
        self.fingerprint = fingerprint
        #: The finished runs; None before the first one.
        self.finished: CalibrationStatistics | None = None
        #: The interrupted runs; None if there are none.
        self.interrupted: CalibrationStatistics | None = None
        # Layers that shared a tensor which was changed in place are measured alone from then on.
        self._never_shared: frozenset[str] = frozenset()

    def reset(self) -> None:
        """Discard all runs."""
        self.finished = self.interrupted = None
        self._never_shared = frozenset()

    @contextmanager
    def observe(
        self,
        root: torch.nn.Module,
        prompts: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        *,
        counts: bool = True,
        run_id: str | None = None,
    ) -> Iterator[ActivationCollector]:
        """Observe one run with a fresh collector; add it when the block ends, however it ends.

        A run that does not count is observed and dropped. Raises as `ActivationCollector.observe`
        and `merge` do.
        """
        collector = ActivationCollector(self.settings, self._never_shared)
        if self.finished is not None:
            collector.load_state(self.finished)
        collector.new_run(prompts, settings, run_id)
        if not counts:
            yield collector
            return
        try:
            with collector.observe(root):
                yield collector
        except BaseException:
            self._keep_aside(collector)
            raise
        self.finished = collector.snapshot(self.fingerprint)
        self._never_shared = collector.never_shared

    def take_in(self) -> None:
        """Add the interrupted runs to the finished ones; they stay marked."""
        if self.interrupted is not None:
            self.finished = _joined(self.finished, self.interrupted)
            self.interrupted = None

    def statistics(self) -> CalibrationStatistics:
        """Return the finished runs; empty statistics if there are none."""
        if self.finished is not None:
            return self.finished
        return ActivationCollector(self.settings).snapshot(self.fingerprint)

    def _keep_aside(self, collector: ActivationCollector) -> None:
        """Keep an interrupted run, unless nothing was observed. Never raises."""
        try:
            run = collector.own_snapshot(self.fingerprint)
            if not run.layers:
                return
            run = replace(run, runs=tuple(replace(r, interrupted=True) for r in run.runs))
            self.interrupted = _joined(self.interrupted, run)
        except Exception as error:  # the exception that interrupted the run must not be replaced
            logging.warning("NVFP4 Foundry: the interrupted run could not be kept: %s", error)


def _joined(
    earlier: CalibrationStatistics | None, run: CalibrationStatistics
) -> CalibrationStatistics:
    return run if earlier is None else merge(earlier, run)
