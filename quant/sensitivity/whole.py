"""Shifts of a sampled latent with many layers quantized at once, to compare whole mixes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: The quantized layers of a mix with their formats, by name.
Formats = Mapping[str, str]


@dataclass(frozen=True)
class WholeShift:
    """How far a result moves with all of these layers quantized.

    Attributes:
        formats: the quantized layers and their formats. All other layers were exact.
        shift: ``||v - v_ref|| / ||v_ref||`` over the samplings; infinite if it is not finite.
        samplings: how many samplings it was measured in.
    """

    formats: Formats
    shift: float
    samplings: int = 1

    @property
    def key(self) -> str:
        """A digest of the formats."""
        return formats_digest(self.formats)


def formats_digest(formats: Formats) -> str:
    """Return a digest of layers and their formats, in any order."""
    text = json.dumps(sorted(formats.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def comparable(shifts: Iterable[WholeShift]) -> Sequence[WholeShift]:
    """Return the shifts that were measured in the most samplings, the smallest first.

    A mix that was sampled with fewer prompts than another cannot be compared with it.
    """
    known = list(shifts)
    most = max((whole.samplings for whole in known), default=0)
    return sorted((whole for whole in known if whole.samplings == most), key=lambda w: w.shift)


def relative_shift(difference: float, reference: float) -> float:
    """Return the root of two summed squares' ratio; infinite if it is not a finite number."""
    if not 0 < reference < math.inf or not 0 <= difference < math.inf:
        return math.inf
    return math.sqrt(difference / reference)
