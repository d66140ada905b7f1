"""Observe the inputs of Linear layers while a model samples.

Hooks never wait for the device, change a tensor or touch torch's random state. The output is the
same, bit for bit, with and without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..errors import CalibrationError
from ..fingerprint import ModelFingerprint
from .input_group import InputGroup
from .measurement import Measurement, is_measurable, measure
from .merge import merge
from .moment_accumulator import MomentAccumulator
from .moment_schedule import MomentProgress, MomentSchedule, tokens_per_call
from .observed_layers import find_linears
from .records import UNKNOWN_BRANCH
from .reservoir import Reservoir
from .run_log import RunLog
from .settings import CollectorSettings
from .snapshot import build_statistics
from .statistics import CalibrationStatistics


class ActivationCollector:
    """Collect a calibration over any number of runs; `snapshot` returns it.

    Not thread-safe. Use one collector per model.
    """

    def __init__(
        self, settings: CollectorSettings | None = None, never_shared: Collection[str] = ()
    ) -> None:
        """Start empty. Layers in ``never_shared`` are measured alone from the first run on."""
        self.settings = settings or CollectorSettings()
        self._observing = False
        self._base: CalibrationStatistics | None = None
        self.reset()
        self._never_shared |= set(never_shared)

    def reset(self) -> None:
        """Discard everything collected or loaded."""
        if self._observing:
            raise CalibrationError(
                "the collector cannot be reset while it observes a model; let the sampling finish"
            )
        self._base = None
        self._log = RunLog()
        self._rng = np.random.default_rng(self.settings.seed)
        self._rows_per_layer = self.settings.rows_per_layer
        self._groups: dict[str, InputGroup] = {}
        self._joinable: dict[int, InputGroup] = {}
        self._widths: dict[str, int] = {}
        self._unchanged: dict[str, torch.Tensor] = {}
        self._never_shared: set[str] = set()
        self._schedule = MomentSchedule(self.settings)

    @property
    def rows_per_layer(self) -> int:
        """Rows kept per distinct input: the setting, or fewer if the memory budget is too small."""
        return self._rows_per_layer

    @property
    def never_shared(self) -> frozenset[str]:
        """Layers whose shared tensor was changed in place; they are measured alone."""
        return frozenset(self._never_shared)

    @property
    def layers_seen(self) -> int:
        """Number of layers that received an input so far. Never waits for the device."""
        return len(self._groups)

    @property
    def layer_count(self) -> int:
        """Number of layers observed so far, whether or not they received an input."""
        return len(self._widths)

    def new_run(
        self,
        prompts: str | Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> str:
        """Begin a run, to which all further observations belong, and return its id (uuid4 hex).

        ``settings`` must be JSON values. If nobody calls this, the first observation begins a run.
        """
        self._flush_all()
        self._log.begin_run(prompts, settings or {}, run_id)
        self._rng = np.random.default_rng([self.settings.seed, int(self._log.run_id, 16)])
        return self._log.run_id

    def begin_call(
        self, sigma: float | torch.Tensor | None, cond_or_uncond: Sequence[int] | None = None
    ) -> None:
        """Announce a model call, to which the forwards that follow belong.

        Args:
            sigma: a number, or a tensor of any size whose first element counts (it is read later).
            cond_or_uncond: ComfyUI's list, one entry (0 cond, 1 uncond) per equal part of the
                batch. A layer whose first dimension cannot be split that way gets one record of
                unknown branch.
        """
        self._ensure_run()
        self._log.begin_call(sigma, tuple(cond_or_uncond or (UNKNOWN_BRANCH,)))

    @contextmanager
    def observe(
        self,
        root: torch.nn.Module,
        layer_names: Collection[str] | None = None,
        prefix: str = "",
    ) -> Iterator[ActivationCollector]:
        """Hook the Linear layers of a module tree; the hooks are removed however the block ends.

        Layers are named ``prefix`` + their path. With ``layer_names``, only these are hooked. If
        the block raises, the second moments of its run and its last, incomplete call are discarded.
        Raises `CalibrationError` if the collector already observes a model or no layer matches.
        """
        if self._observing:
            raise CalibrationError(
                "the collector already observes a model; let the sampling finish first"
            )
        layers = find_linears(root, layer_names, prefix)
        self._drop_changed()
        self._ensure_run()
        handles = []
        self._observing = True
        self._widths |= {n: int(getattr(m, "in_features", 0)) for n, m in layers.items()}
        earlier = len(self._base.runs) if self._base is not None else 0
        self._schedule.begin_run(earlier + self._log.run_count, self._moment_progress(layers))
        try:
            for name, module in layers.items():
                hook = self._hook(name)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            yield self
        except BaseException:
            for group in set(self._groups.values()):
                group.break_off()
            raise
        finally:
            for handle in handles:
                handle.remove()
            self._observing = False
            self._flush_all()
            self._log.end_call()
            self._finish_moments()

    def snapshot(self, fingerprint: ModelFingerprint) -> CalibrationStatistics:
        """Return everything collected so far, as a copy that later observations never change.

        Includes the calibration that `load_state` added. Reads from the device. Raises
        `CalibrationError` if that calibration is from a different model than ``fingerprint``.
        """
        own = self.own_snapshot(fingerprint)
        return own if self._base is None else merge(self._base, own)

    def own_snapshot(self, fingerprint: ModelFingerprint) -> CalibrationStatistics:
        """Return what this collector observed itself, without what `load_state` added."""
        self._flush_all()
        self._drop_changed()
        return build_statistics(
            self._groups, self._log, fingerprint, self._rows_per_layer, self._never_shared
        )

    def load_state(self, statistics: CalibrationStatistics) -> None:
        """Add to an earlier calibration, so that later snapshots contain it.

        Replaces a calibration loaded before; keeps what this collector observed itself. From now on
        it samples no more rows than a merge with that calibration keeps.
        """
        self._base = statistics
        self._rows_per_layer = min(self._rows_per_layer, statistics.rows_per_layer)
        for group in set(self._groups.values()):
            group.shrink(self._rows_per_layer)

    def _ensure_run(self) -> None:
        if not self._log.has_run:
            self.new_run()

    def _hook(self, name: str) -> Callable[..., None]:
        def observe_input(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
            x = args[0] if args else kwargs.get("input")
            if not is_measurable(x, self._widths[name]):
                return  # quantized, empty or of another width: the coverage report shows it
            # A tensor made in inference mode could not be changed outside of it.
            with torch.inference_mode(False), torch.no_grad():
                self._receive(name, x)

        return observe_input

    def _receive(self, name: str, x: torch.Tensor) -> None:
        """Record one layer's input; measure it unless another layer received the same tensor."""
        self._ensure_run()
        shared = self._find_shared(name, x)
        if shared is not None:
            self._claim(name, x, *shared)
            return
        group = self._groups.get(name)
        if group is None:
            group = self._new_group(name, x)
        elif group.pending is not None:
            group = self._make_room(name, group, group.pending)
        if x.element_size() > group.element_size:
            group.element_size = x.element_size()
            self._fit_budget()
        call, branches = self._log.current_call
        measurement = measure(
            x,
            branches,
            call,
            group.reservoir,
            self.settings.mean_square_tokens,
            self._rng,
            self._moment_tokens(name, group, x.device),
        )
        measurement.claimed.add(name)
        group.pending = measurement
        if group.open_to_join:
            self._joinable[id(x)] = group
        if group.settled:
            group.commit()

    def _moment_tokens(self, name: str, group: InputGroup, device: torch.device) -> int:
        """Return how many tokens of this call go into second moments, and reserve their memory."""
        if group.moments is None and self._schedule.admits(name, group):
            group.moments = MomentAccumulator(group.in_features, device)
        if group.moments is None:
            return 0
        branches = len(self._log.current_call[1])
        return tokens_per_call(group.in_features, branches, self._log.steps)

    def _moment_progress(self, names: Collection[str]) -> dict[str, MomentProgress]:
        """Return the progress of each layer's second moments, by layer name."""
        base = self._base.layers if self._base is not None else {}
        progress = {}
        wanted = self.settings.moments_layers
        for name in names if wanted is None else wanted & set(names):
            group, saved = self._groups.get(name), base.get(name)
            parts = [*(group.moment_parts if group else ())]
            parts += saved.moments.parts if saved and saved.moments else ()
            shared = id(group) if group else saved.input_id if saved else None
            tokens = sum(part.tokens for part in parts)
            progress[name] = MomentProgress(shared, self._widths[name], tokens)
        return progress

    def _finish_moments(self) -> None:
        """Turn the second moments of this run into parts, and free their memory."""
        gathered = {g: g.moments for g in set(self._groups.values()) if g.moments is not None}
        for group in gathered:
            group.moments = None  # first for all groups: a full disk may stop the loop below
        while gathered:
            group, moments = gathered.popitem()
            part = moments.finish(self._log.run_id, self.settings.moments_folder)
            group.moment_parts += [part] if part is not None else []

    def _find_shared(self, name: str, x: torch.Tensor) -> tuple[InputGroup, Measurement] | None:
        """Return the group and pending measurement of this tensor, if the layer may share them."""
        group = self._groups.get(name) or self._joinable.get(id(x))
        if group is None or group.pending is None or name in self._never_shared:
            return None
        pending = group.pending
        member = name in group.members
        if name in pending.claimed or not (member or group.open_to_join):
            return None
        same_call = pending.call == self._log.current_call[0]
        return (group, pending) if same_call and pending.identity.matches(x) else None

    def _claim(self, name: str, x: torch.Tensor, group: InputGroup, pending: Measurement) -> None:
        unchanged = pending.identity.unchanged(x)
        if unchanged is not None:
            earlier = self._unchanged.get(name)
            both = unchanged if earlier is None else unchanged & earlier.to(unchanged.device)
            self._unchanged[name] = both
        group.members.add(name)
        self._groups[name] = group
        pending.claimed.add(name)
        if group.settled:
            group.commit()

    def _make_room(self, name: str, group: InputGroup, pending: Measurement) -> InputGroup:
        """Return the group to measure a tensor for that is not its layer's pending one."""
        if name in pending.claimed:
            self._flush(group)
            return group
        return self._split(group, {name})

    def _split(self, group: InputGroup, leaving: set[str]) -> InputGroup:
        other = group.fork(leaving)
        self._groups.update(dict.fromkeys(leaving, other))
        self._fit_budget()
        if group.settled:
            group.commit()
        return other

    def _flush(self, group: InputGroup) -> None:
        """Commit the pending measurement; members that never received it leave the group first."""
        if group.pending is not None:
            missing = group.members - group.pending.claimed
            if missing:
                self._split(group, missing)
            group.commit()

    def _flush_all(self) -> None:
        # Callers outside of the hooks may have inference mode on.
        with torch.inference_mode(False), torch.no_grad():
            for group in set(self._groups.values()):
                self._flush(group)
        self._joinable.clear()

    def _new_group(self, name: str, x: torch.Tensor) -> InputGroup:
        saved = self._base.layers.get(name) if self._base is not None else None
        reservoir = Reservoir(self._rows_per_layer)
        if saved is not None:
            reservoir = Reservoir(self._rows_per_layer, saved.priorities, saved.row_limit)
        group = InputGroup({name}, x.shape[-1], x.element_size(), reservoir)
        self._groups[name] = group
        self._fit_budget()
        return group

    def _fit_budget(self) -> None:
        """Lower the number of rows of every input if all rows would exceed the memory budget.

        Assumes that the layers not seen yet share inputs as often as those seen. So the number
        falls once or twice, and not with every new layer.
        """
        budget = self.settings.memory_budget_bytes
        groups = set(self._groups.values())
        row_bytes = sum(group.in_features * group.element_size for group in groups)
        if self._rows_per_layer * row_bytes <= budget:
            return
        seen = sum(self._widths[name] for name in self._groups)
        unseen = sum(width for name, width in self._widths.items() if name not in self._groups)
        projected = row_bytes * (seen + unseen) / seen
        self._rows_per_layer = int(budget / projected)
        for group in groups:
            group.shrink(self._rows_per_layer)

    def _drop_changed(self) -> None:
        """Discard layers whose shared tensor was changed in place without the host noticing.

        Their input was not the tensor that was measured. From now on they are measured alone.
        """
        for name, unchanged in self._unchanged.items():
            if not bool(unchanged):
                self._never_shared.add(name)
                self._groups.pop(name).members.discard(name)
        self._unchanged.clear()
