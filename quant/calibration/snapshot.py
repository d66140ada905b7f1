"""Turn a collector's running totals into an immutable calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ..fingerprint import ModelFingerprint
from .input_group import InputGroup
from .moments import InputMoments
from .records import LayerStatistics, order_runs
from .run_log import RunLog
from .statistics import CalibrationStatistics


def build_statistics(
    groups: Mapping[str, InputGroup],
    log: RunLog,
    fingerprint: ModelFingerprint,
    rows_per_layer: int,
    changed_layers: Iterable[str],
) -> CalibrationStatistics:
    """Return copies of the totals of all groups (layer name -> group), read from their devices."""
    runs = order_runs(log.runs)
    position = {run.id: index for index, run in enumerate(runs)}
    call_run, call_sigma = log.call_table()
    canonical = np.array([position[run.id] for run in log.runs], dtype=np.int32)
    call_run = canonical[call_run] if call_run.size else call_run
    built = {
        group: _build_layer(group, call_run, call_sigma)
        for group in dict.fromkeys(groups.values())
        if group.calls
    }
    layers = {name: built[groups[name]] for name in sorted(groups) if groups[name] in built}
    return CalibrationStatistics(
        layers=layers,
        fingerprint=fingerprint,
        runs=runs,
        rows_per_layer=rows_per_layer,
        tool_versions=(_tool_version(),),
        changed_layers=tuple(sorted(set(changed_layers) - set(layers))),
    )


def _build_layer(
    group: InputGroup, call_run: np.ndarray, call_sigma: np.ndarray
) -> LayerStatistics:
    amax, sum_squares, channel_amax = group.host_totals()
    call, branch, used = (np.array(column, np.int64) for column in zip(*group.records, strict=True))
    rows, priorities, row_call = group.reservoir.to_host(group.in_features)
    order = np.argsort(call_run[call], kind="stable")
    return LayerStatistics(
        input_id=min(group.members),
        in_features=group.in_features,
        calls=group.calls,
        tokens=group.tokens,
        tokens_used=int(used[np.isfinite(amax)].sum()),
        sigma=call_sigma[call][order],
        branch=branch[order].astype(np.int8),
        call_amax=amax[order],
        run=call_run[call][order],
        sum_squares=sum_squares,
        channel_amax=channel_amax,
        rows=rows,
        priorities=priorities,
        row_limit=group.reservoir.limit,
        row_run=call_run[row_call],
        moments=InputMoments(tuple(group.moment_parts)) if group.moment_parts else None,
    )


def _tool_version() -> str:
    try:
        return version("nvfp4-foundry")
    except PackageNotFoundError:
        # ComfyUI loads the folder without installing the package.
        return "unknown"
