"""Choose the inputs whose second moments a sampling run collects."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import ceil

from .input_group import InputGroup
from .moment_accumulator import moments_bytes
from .records import LayerStatistics
from .settings import CollectorSettings
from .statistics import CalibrationStatistics

# The second of every four runs is left out of all second moments. Its rows then judge, on another
# prompt, the roundings that use them.
_HELD_OUT_EVERY, _HELD_OUT = 4, 2
# The number of steps assumed for a run whose sampler does not tell.
_USUAL_STEPS = 20
_FEWEST_TOKENS = 256
#: Tokens per channel at which a Hessian is reliable.
ENOUGH_TOKENS = 8


def tokens_per_call(in_features: int, branches: int, steps: int | None) -> int:
    """Return how many tokens of one model call go into the second moments of an input.

    A run of ``steps`` steps with both guidance branches then reaches 1.5 times `ENOUGH_TOKENS`, so
    that each input takes one or two files, and sampling in few steps needs no more runs.
    """
    wanted = 1.5 * ENOUGH_TOKENS * in_features / (2 * max(1, steps or _USUAL_STEPS))
    return branches * max(_FEWEST_TOKENS, ceil(wanted))


@dataclass(frozen=True)
class MomentProgress:
    """Progress of one layer's input. Layers with equal ``shared`` share it (None: unknown yet)."""

    shared: Hashable | None
    in_features: int
    tokens: int

    @property
    def per_channel(self) -> float:
        """Tokens collected per channel."""
        return self.tokens / max(1, self.in_features)


class MomentSchedule:
    """Give the budget of every run to the inputs that have the fewest tokens so far."""

    def __init__(self, settings: CollectorSettings) -> None:
        """Start with nothing admitted."""
        self._settings = settings
        # Layer -> the input it shared before. The budget has room for each such input once. A layer
        # that gets its own input in this run needs its own room.
        self._admitted: dict[str, Hashable] = {}
        self._opened: set[Hashable] = set()
        self._undecided: set[str] = set()
        self._left = 0

    def begin_run(self, number: int, progress: Mapping[str, MomentProgress]) -> None:
        """Choose the inputs for run ``number`` (from 1) by the progress of each layer."""
        self._admitted.clear()
        self._opened.clear()
        self._undecided.clear()
        self._left = self._settings.moments_budget_bytes
        if not self._left or number % _HELD_OUT_EVERY == _HELD_OUT:
            return
        waiting = {
            name: state
            for name, state in progress.items()
            if state.per_channel < self._settings.moments_tokens_per_channel
        }
        self._undecided = {name for name, state in waiting.items() if state.shared is None}
        reserved: set[Hashable] = set()
        for name, state in sorted(waiting.items(), key=lambda item: item[1].per_channel):
            if state.shared is None:
                continue
            if state.shared in reserved or self._take(state.in_features):
                self._admitted[name] = state.shared
                reserved.add(state.shared)

    def admits(self, name: str, group: InputGroup) -> bool:
        """Return whether to collect for this layer's input now, and take its room if so.

        Inputs that were unknown when the run began, or that left a shared input, get the rest of
        the budget in the order they appear.
        """
        if not (self._admitted or self._undecided):
            return False
        reserved = {self._admitted[member] for member in group.members & self._admitted.keys()}
        if reserved - self._opened:
            self._opened |= reserved
            return True
        if not reserved and name not in self._undecided:
            return False
        self._undecided -= group.members | {name}
        return self._take(group.in_features)

    def _take(self, in_features: int) -> bool:
        size = moments_bytes(in_features)
        if size > self._left:
            return False
        self._left -= size
        return True


def describe_budget(statistics: CalibrationStatistics, settings: CollectorSettings) -> str:
    """Return how many more runs the Hessians need, in words; empty if none or not collected.

    Names the inputs that the budget has no room for, whatever the number of runs.
    """
    budget, enough = settings.moments_budget_bytes, settings.moments_tokens_per_channel
    if not budget:
        return ""
    waiting = _waiting(statistics, settings)
    sizes = {name: moments_bytes(layer.in_features) for name, layer in waiting.items()}
    too_wide = {name: size for name, size in sizes.items() if size > budget}
    parts = []
    if too_wide:
        needed = max(too_wide.values())
        parts.append(
            f"hessians_mb is too small for the Hessians of {_inputs(len(too_wide))}, such as "
            f"{min(too_wide)}: they need up to {ceil(needed / 2**20)} MB each"
        )
    rest = {name: layer for name, layer in waiting.items() if name not in too_wide}
    prompts = {name for name, layer in rest.items() if layer.moments and layer.moments.repeats}
    runs = {name: _runs_left(layer, enough) for name, layer in rest.items()}
    steady = {name: number for name, number in runs.items() if name not in prompts}
    if steady:
        total = max([*steady.values(), ceil(sum(runs[n] * sizes[n] for n in steady) / budget)])
        parts.append(
            f"the Hessians of {_inputs(len(steady))} need about {_with_held_out(total)} more "
            f"runs to reach {enough:g} tokens per channel"
        )
    if prompts:
        most = max(runs[name] for name in prompts)
        parts.append(
            f"the Hessians of {_inputs(len(prompts))} that depend on the prompt alone, such as "
            f"{min(prompts)}, get few tokens from each prompt and need about "
            f"{_with_held_out(most)} more prompts"
        )
    return "; ".join(parts)


def _waiting(
    statistics: CalibrationStatistics, settings: CollectorSettings
) -> dict[str, LayerStatistics]:
    """Return the statistics of the inputs that have too few tokens, by input."""
    wanted, enough = settings.moments_layers, settings.moments_tokens_per_channel
    return {
        layer.input_id: layer
        for name, layer in statistics.layers.items()
        if (wanted is None or name in wanted)
        and (layer.moments.tokens if layer.moments else 0) < enough * layer.in_features
    }


def _inputs(count: int) -> str:
    return f"{count} input{'s' if count != 1 else ''}"


def _with_held_out(runs: int) -> int:
    return runs + ceil(runs / (_HELD_OUT_EVERY - 1))


def _runs_left(layer: LayerStatistics, tokens_per_channel: float) -> int:
    """Return how many more runs an input needs, if each adds as many tokens as those so far."""
    if layer.moments is None:
        return 1
    missing = tokens_per_channel * layer.in_features - layer.moments.tokens
    return ceil(missing * len(layer.moments.parts) / layer.moments.tokens)
