"""The calibration of one input, loaded on demand and shared by the layers of the input."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch

from ..calibration.records import LayerStatistics
from ..calibration.statistics import CalibrationStatistics, HeldOutRows
from ..rounding import NEED_MOMENTS, GptqRule, Rounding, SecondMoments, get_rounding


class ObservedInput:
    """One distinct input of a model. Layers may share it, such as q, k and v."""

    def __init__(self, statistics: LayerStatistics, held_out: HeldOutRows) -> None:
        """Keep the statistics; second moments are loaded later."""
        self.statistics = statistics
        self.held_out = held_out
        self._rules: dict[str, Rounding] = {}

    @property
    def repeats_itself(self) -> bool:
        """Whether most calls of a run had the same tokens as the call before."""
        return self.statistics.moments is not None and self.statistics.moments.repeats

    @cached_property
    def moments(self) -> SecondMoments | None:
        """Second moments; None if none were collected.

        Raises `CalibrationError` if their file is damaged.
        """
        stored = self.statistics.moments
        return stored.load() if stored is not None else None

    @cached_property
    def means(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """``E[x]`` and ``E[xq]`` [K] over the tokens of the moments, without their matrices.

        None without moments. Raises `CalibrationError` if their file is damaged.
        """
        stored = self.statistics.moments
        return stored.load_means() if stored is not None else None

    def rule(self, rounding: str) -> Rounding:
        """Return a rounding bound to this input. The layers of the input share its results."""
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
        """Start with a calibration; without one, no layer counts as observed."""
        self._statistics = statistics
        self._latest: ObservedInput | None = None

    def of(self, layer: str) -> ObservedInput | None:
        """Return a layer's input; None if it was not observed."""
        known = self._statistics.layers.get(layer) if self._statistics is not None else None
        if known is None or self._statistics is None:
            return None
        if self._latest is None or self._latest.statistics is not known:
            self._latest = ObservedInput(known, self._statistics.held_out_rows(layer))
        return self._latest

    def together(self, layers: Iterable[str]) -> list[str]:
        """Return the layers with those of one input next to each other, otherwise in their order.

        In this order, `of` loads every Hessian once.
        """
        return [name for names in self.by_input(layers) for name in names]

    def by_input(self, layers: Iterable[str]) -> list[list[str]]:
        """Return the layers in groups of one input each, in the order of their first layers."""
        known = self._statistics.layers if self._statistics is not None else {}
        groups: dict[str, list[str]] = {}
        for name in layers:
            # A layer that was not observed is its own group. The prefixes keep names and ids apart.
            key = f"input {known[name].input_id}" if name in known else f"layer {name}"
            groups.setdefault(key, []).append(name)
        return list(groups.values())


def working_bytes(rounding: str, statistics: CalibrationStatistics | None) -> int:
    """Return the bytes that a rounding needs on its device for the widest input with a Hessian.

    0 for roundings that need no second moments, or if there are none.
    """
    rule = get_rounding(rounding)
    if not isinstance(rule, GptqRule) or statistics is None:
        return 0
    widths = [layer.in_features for layer in statistics.inputs.values() if layer.moments]
    return rule.working_bytes(max(widths)) if widths else 0
