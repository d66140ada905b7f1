"""Merge calibrations of one model from several runs, days or machines.

Merging is associative and commutative. Records, rows and amax are exact; sums of squares are
float64 and differ by rounding only.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import numpy as np
import torch

from ..errors import CalibrationError
from ..fingerprint import ModelFingerprint
from .moments import InputMoments
from .records import LayerStatistics, RunRecord, order_runs
from .reservoir import keep_lowest
from .statistics import CalibrationStatistics


def merge(a: CalibrationStatistics, b: CalibrationStatistics) -> CalibrationStatistics:
    """Return two calibrations merged; see `merge_all`."""
    return merge_all([a, b])


def merge_all(parts: Iterable[CalibrationStatistics]) -> CalibrationStatistics:
    """Return all calibrations merged; the parts are not changed.

    The row capacity becomes the smallest capacity of any part: rows that a smaller sample left out
    are lost, and more rows from the other parts would make the sample uneven. Layers share an input
    in the result only if they share it in every part.

    Raises `CalibrationError` if there are no parts, if they are from different models (naming the
    difference), or if two parts contain the same run, which would count twice.
    """
    items = list(parts)
    if not items:
        raise CalibrationError("there is no calibration to merge; give at least one")
    for other in items[1:]:
        items[0].require_model(
            other.fingerprint,
            "one of the calibrations to merge",
            remedy="Merge calibrations of one model only",
        )
    runs = _join_runs(items)
    capacity = min(item.rows_per_layer for item in items)
    layers: dict[str, LayerStatistics] = {}
    for names in _shared_inputs(items):
        sources = [(item, item.layers[names[0]]) for item in items if names[0] in item.layers]
        merged = _merge_layer(names[0], sources, runs, capacity)
        layers.update(dict.fromkeys(names, merged))
    changed = {name for item in items for name in item.changed_layers} - set(layers)
    return CalibrationStatistics(
        layers={name: layers[name] for name in sorted(layers)},
        fingerprint=min((item.fingerprint for item in items), key=_fingerprint_text),
        runs=runs,
        rows_per_layer=capacity,
        tool_versions=tuple(sorted({v for item in items for v in item.tool_versions})),
        changed_layers=tuple(sorted(changed)),
    )


def _join_runs(items: Sequence[CalibrationStatistics]) -> tuple[RunRecord, ...]:
    runs = order_runs(run for item in items for run in item.runs)
    for run_id, count in Counter(run.id for run in runs).items():
        if count > 1:
            raise CalibrationError(
                f"run {run_id} is in more than one of the calibrations and would count twice; "
                "merge each run once"
            )
    return runs


def _shared_inputs(items: Sequence[CalibrationStatistics]) -> list[list[str]]:
    """Return the layer names in sorted groups that share their input in every part."""
    groups: dict[tuple[str | None, ...], list[str]] = defaultdict(list)
    for name in sorted({name for item in items for name in item.layers}):
        key = tuple(i.layers[name].input_id if name in i.layers else None for i in items)
        groups[key].append(name)
    return list(groups.values())


def _merge_layer(
    input_id: str,
    sources: Sequence[tuple[CalibrationStatistics, LayerStatistics]],
    runs: tuple[RunRecord, ...],
    capacity: int,
) -> LayerStatistics:
    parts = [layer for _, layer in sources]
    widths = {layer.in_features for layer in parts}
    if len(widths) > 1:
        raise CalibrationError(
            f"the calibrations have different input widths for {input_id}: {sorted(widths)}; merge "
            "calibrations of one model only"
        )
    position = {run.id: index for index, run in enumerate(runs)}
    run = np.concatenate([_renumber(layer.run, item, position) for item, layer in sources])
    order = np.argsort(run, kind="stable")
    rows, priorities, limit, order_of_rows = _merge_rows(parts, capacity)
    row_run = np.concatenate([_renumber(layer.row_run, item, position) for item, layer in sources])
    return LayerStatistics(
        input_id=input_id,
        in_features=parts[0].in_features,
        calls=sum(p.calls for p in parts),
        tokens=sum(p.tokens for p in parts),
        tokens_used=sum(p.tokens_used for p in parts),
        sigma=np.concatenate([p.sigma for p in parts])[order],
        branch=np.concatenate([p.branch for p in parts])[order],
        call_amax=np.concatenate([p.call_amax for p in parts])[order],
        run=run[order],
        sum_squares=reduce(np.add, (p.sum_squares for p in parts)),
        channel_amax=reduce(np.maximum, (p.channel_amax for p in parts)),
        rows=rows,
        priorities=priorities,
        row_limit=limit,
        row_run=row_run[order_of_rows],
        moments=_merge_moments(parts),
    )


def _renumber(
    run: np.ndarray, item: CalibrationStatistics, position: Mapping[str, int]
) -> np.ndarray:
    """Return indices into the runs of one part as indices into all runs; -1 stays -1."""
    table = np.array([*(position[r.id] for r in item.runs), -1], np.int32)
    return table[run]


def _merge_moments(parts: Sequence[LayerStatistics]) -> InputMoments | None:
    pieces = {p.id: p for layer in parts if layer.moments for p in layer.moments.parts}
    return InputMoments(tuple(pieces[name] for name in sorted(pieces))) if pieces else None


def _merge_rows(
    parts: Sequence[LayerStatistics], capacity: int
) -> tuple[torch.Tensor, np.ndarray, float, np.ndarray]:
    """Return the rows with the lowest priorities of all parts, below the lowest limit of any part.

    Also returns their priorities, the limit, and their positions in the concatenated rows.
    """
    dtype = reduce(torch.promote_types, (p.rows.dtype for p in parts))
    joint = np.concatenate([p.priorities for p in parts])
    keep, limit = keep_lowest(joint, min(p.row_limit for p in parts), capacity)
    order = np.argsort(joint, kind="stable")
    order = order[keep[order]]
    rows = torch.cat([p.rows.to(dtype) for p in parts])[torch.from_numpy(order)]
    return rows, joint[order], limit, order


def _fingerprint_text(fingerprint: ModelFingerprint) -> str:
    return json.dumps(fingerprint.to_json(), sort_keys=True)
