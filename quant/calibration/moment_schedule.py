"""Which inputs' second moments are gathered in which sampling run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import ceil

from .input_group import InputGroup
from .moments import moments_bytes
from .records import LayerStatistics
from .settings import CollectorSettings
from .statistics import CalibrationStatistics

# The second of every four runs is left out of all second moments: its rows then judge, on another
# prompt, whether what was made with them holds.
_HELD_OUT_EVERY, _HELD_OUT = 4, 2
# A run is taken to have so many steps where the sampler does not say.
_USUAL_STEPS = 20
_FEWEST_TOKENS = 256
#: Tokens for each channel from which a Hessian is worth trusting.
ENOUGH_TOKENS = 8


def tokens_per_call(in_features: int, branches: int, steps: int | None) -> int:
    """Return how many tokens of one model call go into the second moments of an input.

    So many that a run of ``steps`` with both guidance branches reaches `ENOUGH_TOKENS` and a half
    more: each input then takes one or two files, and few-step sampling needs no more runs.
    """
    wanted = 1.5 * ENOUGH_TOKENS * in_features / (2 * max(1, steps or _USUAL_STEPS))
    return branches * max(_FEWEST_TOKENS, ceil(wanted))


@dataclass(frozen=True)
class MomentProgress:
    """How far an input is: its layers have equal ``shared`` (None: not known yet)."""

    shared: Hashable | None
    in_features: int
    tokens: int

    @property
    def per_channel(self) -> float:
        """Tokens gathered for each channel."""
        return self.tokens / max(1, self.in_features)


class MomentSchedule:
    """Gives the budget of every run to the inputs that have the fewest tokens so far."""

    def __init__(self, settings: CollectorSettings) -> None:
        """Start with nothing admitted."""
        self._settings = settings
        # Layer -> what it was thought to share. Room is kept for that once: a layer that gets an
        # input of its own in this run needs room of its own.
        self._admitted: dict[str, Hashable] = {}
        self._opened: set[Hashable] = set()
        self._undecided: set[str] = set()
        self._left = 0

    def begin_run(self, number: int, progress: Mapping[str, MomentProgress]) -> None:
        """Choose for run ``number`` (from 1), given the progress of each layer."""
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
        """Whether to gather for this layer's input now; counts it against the budget if so.

        An input that was not known when the run began, or parted from one that was, gets what is
        left, first come first served.
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
    """Say how many more runs the Hessians take at this budget; empty when none or not collected.

    Names the inputs that the budget has no room for, however many runs there are.
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
            f"no room for the Hessians of {len(too_wide)} inputs, such as {min(too_wide)}: they "
            f"take up to {ceil(needed / 2**20)} MB each"
        )
    rest = {name: layer for name, layer in waiting.items() if name not in too_wide}
    prompts = {name for name, layer in rest.items() if layer.moments and layer.moments.repeats}
    runs = {name: _runs_left(layer, enough) for name, layer in rest.items()}
    steady = {name: number for name, number in runs.items() if name not in prompts}
    if steady:
        total = max([*steady.values(), ceil(sum(runs[n] * sizes[n] for n in steady) / budget)])
        parts.append(
            f"about {_with_held_out(total)} more runs until the Hessians of {len(steady)} inputs "
            f"have {enough:g} tokens a channel"
        )
    if prompts:
        most = max(runs[name] for name in prompts)
        parts.append(
            f"Hessians of {len(prompts)} inputs that are the prompt's, such as {min(prompts)}, get "
            f"few tokens from each: about {_with_held_out(most)} more prompts, if you have them"
        )
    return "; ".join(parts)


def _waiting(
    statistics: CalibrationStatistics, settings: CollectorSettings
) -> dict[str, LayerStatistics]:
    """Return the inputs that have too few tokens, each with one of its layers."""
    wanted, enough = settings.moments_layers, settings.moments_tokens_per_channel
    return {
        layer.input_id: layer
        for name, layer in statistics.layers.items()
        if (wanted is None or name in wanted)
        and (layer.moments.tokens if layer.moments else 0) < enough * layer.in_features
    }


def _with_held_out(runs: int) -> int:
    return runs + ceil(runs / (_HELD_OUT_EVERY - 1))


def _runs_left(layer: LayerStatistics, tokens_per_channel: float) -> int:
    """Return how many more runs an input takes at the tokens it got from a run so far."""
    if layer.moments is None:
        return 1
    missing = tokens_per_channel * layer.in_features - layer.moments.tokens
    return ceil(missing * len(layer.moments.parts) / layer.moments.tokens)
