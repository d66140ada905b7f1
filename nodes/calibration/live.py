"""What a calibration shows while its observed MODEL samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...quant.calibration import ActivationCollector, Convergence
from ...quant.progress import Throttle

_SECONDS = 0.5


class LiveCalibration:
    """The state of a running calibration, sent at most twice per second and at each end of a run.

    The detail that is sent has ``name``; ``state`` (``sampling``, ``done`` or ``interrupted``);
    ``prompts_done`` of ``prompts`` (0 without a list of prompts) and the present ``prompt``;
    ``steps_done`` of ``steps``; ``layers_seen`` of ``layers``; and of the runs that have ended:
    ``runs``, ``left_out``, ``growing`` layers, ``verdict`` in words.

    Everything is known to the host while the model runs: nothing waits for the device.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing to show; ``send`` takes the detail."""
        self._send = send
        self._throttle = Throttle(_SECONDS, clock)
        self._detail: dict[str, Any] = {"name": name}

    def begin(self, prompt: str, number: int, prompts: int, steps: int) -> None:
        """Begin a sampling, the ``number``-th (from 0) of ``prompts``."""
        self._detail |= {"state": "sampling", "prompt": prompt}
        self._detail |= {"prompts_done": number, "prompts": prompts}
        self._detail |= {"steps_done": 0, "steps": steps, "layers_seen": 0, "layers": 0}

    def step(self, done: int) -> None:
        """Record that so many steps of the sampling are done."""
        self._detail["steps_done"] = done
        self._show()

    def call(self, collector: ActivationCollector) -> None:
        """Record that the model is called; ``collector`` tells which layers it has seen."""
        self._see(collector)
        self._show()

    def end(
        self, collector: ActivationCollector | None, *, finished: bool, runs: Convergence, left: int
    ) -> None:
        """End a sampling; ``left`` is the number of interrupted runs that are left out."""
        if collector is not None:
            self._see(collector)
        self._detail["state"] = "done" if finished else "interrupted"
        if finished:
            self._detail["prompts_done"] += 1
        self._detail |= {"runs": runs.runs, "left_out": left}
        self._detail |= {"growing": len(runs.growing), "verdict": runs.describe()}
        self._show(force=True)

    def _see(self, collector: ActivationCollector) -> None:
        self._detail["layers_seen"] = collector.layers_seen
        self._detail["layers"] = collector.layer_count

    def _show(self, *, force: bool = False) -> None:
        if self._throttle.ready(force=force):
            self._send(dict(self._detail))
