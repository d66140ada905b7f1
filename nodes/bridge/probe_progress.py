"""What the sampler and the probe's node show while a probe runs."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils

from ...quant.progress import RemainingTime, Throttle, format_seconds, numbered, progress_line
from ...quant.sensitivity.probe import LatentProbe
from ...quant.sensitivity.probe_record import ProbeRun
from .progress import LIVE_SECONDS, TEXT_SECONDS, send_live, show_text


class ProbeProgress:
    """Shows one probe: the bar of the sampler, a line in both nodes, and the live event.

    The detail of the event has ``state`` (``probing``, ``done`` or ``interrupted``), ``unit`` of
    ``units``, the ``format`` and ``name`` of the unit that runs, ``steps`` of each short sampling,
    how many units were ``known`` from an interrupted probe, and ``seconds_left`` (None: unknown).
    With ``at_most``, the probe may end before all units have run.
    """

    def __init__(
        self, probe: LatentProbe, node: str, steps: int, mixes: int = 0, *, at_most: bool = False
    ) -> None:
        """Tell how many samplings will run before the first of them.

        ``mixes`` are sampled whole after the units, at most. With ``at_most``, units may be left.
        """
        self._probe, self._node = probe, node
        self._bar = comfy.utils.ProgressBar(probe.runs)
        self._remaining: RemainingTime | None = None
        self._text, self._event = Throttle(TEXT_SECONDS), Throttle(LIVE_SECONDS)
        self._detail: dict[str, Any] = {
            "state": "probing", "unit": 0, "units": probe.runs, "format": "", "name": "",
            "steps": steps, "known": 0, "seconds_left": None, "at_most": at_most,
        }  # fmt: skip
        self._most, self._samplings = "at most " if at_most or mixes else "", probe.runs + mixes
        text = f"{self._most}{1 + self._samplings} short samplings of {_steps(steps)} come first"
        show_text(f"probe: {text}", node)
        self._send()

    def begin(self, seconds: float, calls: int) -> None:
        """Show what the probe costs, from the time and the model calls of the first sampling."""
        count = self._samplings
        text = f"{self._most}{count} samplings, {count * calls} model calls"
        show_text(f"probe: {text}, {format_seconds(count * seconds)}", self._node)

    def advance(self, done: int, total: int, run: ProbeRun) -> None:
        """Show that ``done`` units are known and this one begins; stop if the user cancels."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._remaining is None:
            self._remaining = RemainingTime(done=done)
            self._detail["known"] = done
        self._bar.update_absolute(done, total)
        left = self._remaining.update(done, total)
        if self._text.ready():
            text = numbered("unit", done + 1, total, f"{run[1]} in {run[0]}")
            if self._detail["at_most"]:
                text = text.replace(" of ", " of at most ", 1)
            show_text(progress_line(text, left), self._node)
        self._detail["format"], self._detail["name"] = run
        self._detail |= {"unit": done + 1, "seconds_left": left}
        if self._event.ready():
            self._send()

    def advance_mix(self, done: int, total: int, text: str) -> None:
        """Show that ``done`` mixes are known and the next begins; stop if the user cancels."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._text.ready():
            show_text(text, self._node)

    def finish(self) -> None:
        """Show that the probe is complete; the sampling itself follows."""
        known, units = self._probe.measured[-1], self._detail["units"]
        self._detail["unit"] = known
        rest = f", {units - known} estimated" if known < units else ""
        show_text(f"probe complete: {known} of {units} units{rest}", self._node)
        self._end("done")

    def interrupt(self) -> None:
        """Show that the probe was interrupted and goes on if it is queued again."""
        unit, units = self._detail["unit"], self._detail["units"]
        show_text(
            f"probe interrupted in unit {unit} of {units}; queue again to go on there", self._node
        )
        self._end("interrupted")

    def _end(self, state: str) -> None:
        self._detail |= {"state": state, "seconds_left": None}
        self._send()

    def _send(self) -> None:
        send_live(self._node, "probe", self._detail)


def _steps(count: int) -> str:
    return f"{count} step{'s' if count != 1 else ''}"
