"""What calibration knows of one input, loaded when it is asked for and shared by its layers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch

from ..calibration.records import LayerStatistics
from ..calibration.statistics import CalibrationStatistics, HeldOutRows
from ..rounding import NEED_MOMENTS, GptqRule, Rounding, SecondMoments, get_rounding


class ObservedInput:
    """One distinct input of a model; q, k and v have the same."""

    def __init__(self, statistics: LayerStatistics, held_out: HeldOutRows) -> None:
        """Load nothing yet."""
        self.statistics = statistics
        self.held_out = held_out
        self._rules: dict[str, Rounding] = {}

    @property
    def repeats_itself(self) -> bool:
        """Whether most calls of a run brought the very tokens of the call before."""
        return self.statistics.moments is not None and self.statistics.moments.repeats

    @cached_property
    def moments(self) -> SecondMoments | None:
        """Second moments, None when none were gathered.

        Raises `CalibrationError` when their file is damaged.
        """
        stored = self.statistics.moments
        return stored.load() if stored is not None else None

    @cached_property
    def means(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """``E[x]`` and ``E[xq]`` [K] for tokens of the moments, whose matrices are not loaded.

        None without moments. Raises `CalibrationError` when their file is damaged.
        """
        stored = self.statistics.moments
        return stored.load_means() if stored is not None else None

    def rule(self, rounding: str) -> Rounding:
        """Return a rounding bound to this input; what it works out is shared by the layers."""
        targeted = self._rules.get("gptaq")
        if rounding == "gptq" and rounding not in self._rules and isinstance(targeted, GptqRule):
            self._rules[rounding] = targeted.untargeted()
        if rounding not in self._rules:
            mean_square = torch.from_numpy(self.statistics.mean_square)
            moments = self.moments if rounding in NEED_MOMENTS else None
            self._rules[rounding] = get_rounding(rounding).for_input(mean_square, moments)
        return self._rules[rounding]


class ObservedInputs:
    """The inputs of a model's layers, one in memory at a time."""

    def __init__(self, statistics: CalibrationStatistics | None) -> None:
        """Without statistics nothing was observed."""
        self._statistics = statistics
        self._latest: ObservedInput | None = None

    def of(self, layer: str) -> ObservedInput | None:
        """Return a layer's input, None when it was not observed."""
        known = self._statistics.layers.get(layer) if self._statistics is not None else None
        if known is None or self._statistics is None:
            return None
        if self._latest is None or self._latest.statistics is not known:
            self._latest = ObservedInput(known, self._statistics.held_out_rows(layer))
        return self._latest

    def together(self, layers: Iterable[str]) -> list[str]:
        """Return layers with those of one input behind each other, else in their order.

        Taken in this order, `of` loads and works out every Hessian once.
        """
        known = self._statistics.layers if self._statistics is not None else {}
        groups: dict[str, list[str]] = {}
        for name in layers:
            # a layer that was not observed is a group of its own; names are no input ids of others
            key = f"input {known[name].input_id}" if name in known else f"layer {name}"
            groups.setdefault(key, []).append(name)
        return [name for names in groups.values() for name in names]


def working_bytes(rounding: str, statistics: CalibrationStatistics | None) -> int:
    """Return what a rounding needs on its device beside a layer: six matrices of the widest input.

    0 for roundings that need no second moments, or where there are none.
    """
    if rounding not in NEED_MOMENTS or statistics is None:
        return 0
    widths = [layer.in_features for layer in statistics.inputs.values() if layer.moments]
    return 6 * 4 * max(widths, default=0) ** 2
