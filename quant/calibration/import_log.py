"""Import an activation log as a calibration.

The log gives the amax per call only, without sampled rows and mean squares. So the calibration
gives static scales, but no output errors. Merged with another calibration, it widens the ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np
import torch

from .. import VERSION
from ..errors import CalibrationError
from ..fingerprint import ModelFingerprint
from ..layer_names import describe_unknown
from .activation_log import ActivationLog, LoggedLayer, read_activation_log
from .records import UNKNOWN_BRANCH, LayerStatistics, RunRecord
from .statistics import CalibrationStatistics

# A log may also have layers of a text encoder. Too many unknown layers mean another model.
_MOST_UNKNOWN = 0.1
# A log has no rows, so it must not lower the row capacity of a calibration it is merged with.
_ROWS_PER_LAYER = 2**31 - 1
# Calls that the patch logs per layer by default.
_USUAL_LIMIT = 5
_ID_DIGITS = 32


@dataclass(frozen=True)
class ImportedLog:
    """A calibration from a log, and notes for the user on how it was read."""

    statistics: CalibrationStatistics
    notes: tuple[str, ...]


def import_activation_log(
    path: Path, fingerprint: ModelFingerprint, *, ignore_unknown: bool = False
) -> ImportedLog:
    """Return a log as a calibration of the model with this fingerprint.

    Args:
        path: the log.
        fingerprint: fingerprint of the model that was sampled, which the log does not name.
        ignore_unknown: leave out layers that the model does not have, whatever their number.

    Raises:
        CalibrationError: the log cannot be read, or is from another model: it has layers that the
            model lacks (the message has the nearest names), or inputs of another width.
    """
    log = read_activation_log(path, fingerprint.shapes)
    known = {name: layer for name, layer in log.layers.items() if name in fingerprint.shapes}
    unknown = [name for name in log.layers if name not in known]
    allowed = math.inf if ignore_unknown else _MOST_UNKNOWN * len(log.layers)
    if len(unknown) > allowed or not known:
        raise CalibrationError(
            f"{path} is not from this model: {len(unknown)} of {len(log.layers)} layers are not in "
            f"the model: {describe_unknown(unknown, fingerprint.shapes)}"
        )
    _require_widths(log, known, fingerprint)
    run = _run(log, known)
    statistics = CalibrationStatistics(
        layers=_layers(known, fingerprint),
        fingerprint=fingerprint,
        runs=(run,),
        rows_per_layer=_ROWS_PER_LAYER,
        tool_versions=(f"nvfp4-foundry {VERSION}",),
    )
    return ImportedLog(statistics, tuple(_notes(log, known, unknown, fingerprint)))


def _require_widths(
    log: ActivationLog, layers: Mapping[str, LoggedLayer], fingerprint: ModelFingerprint
) -> None:
    for name, layer in layers.items():
        width = fingerprint.shapes[name][1]
        other = sorted(layer.widths - {width})
        if other:
            raise CalibrationError(
                f"{log.path} is from another model: the inputs of {name} have width {other[0]} in "
                f"the log, but its weight takes {width}"
            )


def _run(log: ActivationLog, layers: Mapping[str, LoggedLayer]) -> RunRecord:
    """Return the log as one run, because it does not say where a run ends.

    The id comes from the log's digest, so that a merge never counts the same log twice.
    """
    written = datetime.fromtimestamp(log.path.stat().st_mtime, timezone.utc)
    return RunRecord(
        id=log.digest[:_ID_DIGITS],
        started=written.isoformat(timespec="seconds"),
        prompts=(),
        calls=int(median(len(layer.amax) for layer in layers.values())),
        settings={
            "imported_from": log.path.name,
            "kind": "activation log",
            "lines": log.lines,
            "bad_lines": log.bad_lines,
            "formats": log.formats,
        },
    )


def _layers(
    logged: Mapping[str, LoggedLayer], fingerprint: ModelFingerprint
) -> dict[str, LayerStatistics]:
    """Return statistics by layer. Layers of one parent with equal inputs (q, k, v) share them."""
    groups: dict[tuple[str, int, bytes, int], list[str]] = {}
    for name in sorted(logged):
        layer = logged[name]
        parent = name.rpartition(".")[0]
        width = fingerprint.shapes[name][1]
        groups.setdefault((parent, width, layer.amax.tobytes(), layer.shapes), []).append(name)
    found: dict[str, LayerStatistics] = {}
    for (_, width, _, _), names in groups.items():
        shared = _statistics(names[0], width, logged[names[0]])
        found.update(dict.fromkeys(names, shared))
    return {name: found[name] for name in sorted(found)}


def _statistics(input_id: str, width: int, layer: LoggedLayer) -> LayerStatistics:
    count = len(layer.amax)
    return LayerStatistics(
        input_id=input_id,
        in_features=width,
        calls=count,
        tokens=layer.tokens,
        tokens_used=0,
        sigma=np.full(count, np.nan, np.float32),
        branch=np.full(count, UNKNOWN_BRANCH, np.int8),
        call_amax=np.array(layer.amax, np.float32),
        run=np.zeros(count, np.int32),
        sum_squares=np.zeros(width, np.float64),
        channel_amax=np.zeros(width, np.float32),
        rows=torch.empty(0, width, dtype=torch.bfloat16),
        priorities=np.empty(0, np.float64),
        row_limit=math.inf,
        row_run=np.empty(0, np.int32),
    )


def _notes(
    log: ActivationLog,
    known: Mapping[str, LoggedLayer],
    unknown: list[str],
    fingerprint: ModelFingerprint,
) -> list[str]:
    notes = [f"{log.path.name}: {log.lines} lines for {len(known)} layers"]
    if unknown:
        left_out = describe_unknown(unknown, fingerprint.shapes)
        notes.append(f"left out, because the model does not have them: {left_out}")
    if log.bad_lines:
        notes.append(
            f"{log.bad_lines} lines cannot be read and were skipped; the first is {log.first_bad}"
        )
    if log.provided:
        notes.append(
            f"{log.provided} lines were skipped: their layers have a static scale, so the log has "
            "no amax for them"
        )
    most = max(len(layer.amax) for layer in known.values())
    if most <= _USUAL_LIMIT:
        notes.append(
            f"warning: no layer has more than {most} calls. By default the patch logs only the "
            f"first {_USUAL_LIMIT} calls, and the largest activations may come later. Set "
            "COMFY_NFP4_LOG_INPUT_SCALE_MAX to -1 and log again"
        )
    return notes
