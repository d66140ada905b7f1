"""What a probe found, over all its results: the shifts of units, and those of whole mixes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from ..errors import CalibrationError
from .artefact import Sensitivity
from .probe_record import ProbeRun, UnitShift
from .probe_units import UnitsByFormat
from .whole import Formats, WholeShift, formats_digest, relative_shift


@dataclass(frozen=True)
class ProbedResult:
    """The shifts of one model call or sampling. Those of the ``estimated`` runs are estimates."""

    sigma: float
    shifts: Mapping[ProbeRun, UnitShift]
    estimated: frozenset[ProbeRun] = frozenset()


class Findings:
    """Collects shifts, and adds them to a sensitivity."""

    def __init__(self, sensitivity: Sensitivity, units: UnitsByFormat) -> None:
        """Begin with nothing found."""
        self._sensitivity, self._units = sensitivity, units
        self._probed: dict[str, ProbedResult] = {}
        self._whole: dict[tuple[str, str], tuple[Formats, UnitShift]] = {}

    @property
    def calls(self) -> int:
        """Number of results probed so far: model calls, or samplings."""
        return len(self._probed)

    @property
    def measured(self) -> tuple[int, ...]:
        """How many runs each result took, also those before an interruption."""
        return tuple(len(p.shifts) - len(p.estimated) for p in self._probed.values())

    @property
    def unreached(self) -> tuple[str, ...]:
        """Layers that a probed result did not run, so their shifts are unknown."""
        shifts = [shift for probed in self._probed.values() for shift in probed.shifts.values()]
        return tuple(sorted({name for shift in shifts for name in shift.unreached}))

    def add(self, probed: ProbedResult, key: str | None) -> None:
        """Add a result as the latest. One with the key of an earlier one replaces it."""
        key = key or f"call {self.calls + 1}"
        self._probed.pop(key, None)
        self._probed[key] = probed

    def add_whole(self, formats: Formats, shift: UnitShift, key: str | None) -> None:
        """Add the shift of a whole mix in the result with this key."""
        digest = formats_digest(formats)
        earlier = sum(known == digest for _, known in self._whole)
        self._whole[key or f"call {earlier + 1}", digest] = (formats, shift)

    def sensitivity(self) -> Sensitivity:
        """Return the sensitivity with the shifts of the probed formats, and of whole mixes.

        The shift stays unknown for layers that a probed call did not run, and if the output was not
        finite. Raises `CalibrationError` if no call was probed.
        """
        if not self._probed:
            raise CalibrationError("no model call was probed: sample with the probed model first")
        result, unreached, totals = self._sensitivity, set(self.unreached), self._totals()
        guessed = {run for probed in self._probed.values() for run in probed.estimated}
        for format_name, units in self._units.items():
            shifts: dict[str, dict[float, float]] = {}
            estimated: list[str] = []
            for unit, names in units.items():
                run = (format_name, unit)
                if not all(run in at_sigma for at_sigma in totals.values()):
                    continue
                reached = [name for name in names if name not in unreached]
                for name, share in self._shares(reached, format_name).items():
                    shifts[name] = {
                        sigma: math.sqrt(share * at_sigma[run].square)
                        for sigma, at_sigma in sorted(totals.items())
                    }
                estimated += reached if run in guessed else []
            result = result.with_latents(format_name, shifts, estimated)
        return replace(result, whole=tuple(self._whole_shifts()))

    def _totals(self) -> dict[float, dict[ProbeRun, UnitShift]]:
        """Return the squares of each run, summed over the results at each sigma."""
        totals: dict[float, dict[ProbeRun, UnitShift]] = {}
        for probed in self._probed.values():
            at_sigma = totals.setdefault(probed.sigma, {})
            for run, shift in probed.shifts.items():
                so_far = at_sigma.get(run, UnitShift(0.0, 0.0))
                at_sigma[run] = UnitShift(
                    so_far.difference + shift.difference, so_far.reference + shift.reference
                )
        return totals

    def _whole_shifts(self) -> Iterator[WholeShift]:
        """Yield the shift of each mix over all samplings with it."""
        by_digest: dict[str, list[tuple[Formats, UnitShift]]] = {}
        for (_, digest), found in self._whole.items():
            by_digest.setdefault(digest, []).append(found)
        for found in by_digest.values():
            shifts = [shift for _, shift in found]
            total = relative_shift(
                math.fsum(s.difference for s in shifts), math.fsum(s.reference for s in shifts)
            )
            if math.isfinite(total):
                yield WholeShift(found[0][0], total, len(found))

    def _shares(self, names: Collection[str], format_name: str) -> dict[str, float]:
        """Return each layer's share of its unit's squared shift. The shares add up to one.

        The shares are proportional to the squared output errors. An unknown error counts as the
        mean of the known ones.
        """
        errors = {n: self._sensitivity.candidates(n)[format_name].w4a4 for n in names}
        known = [error**2 for error in errors.values() if error is not None]
        mean = sum(known) / len(known) if any(known) else 1.0
        weights = {
            name: error**2 if error is not None and any(known) else mean
            for name, error in errors.items()
        }
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}
