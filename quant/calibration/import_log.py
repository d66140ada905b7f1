"""An activation log becomes statistics of a model: amax per call, and nothing that was not logged.

There are no sampled rows and no mean squares: static scales come from such statistics, output
errors do not. Merged with a calibration they widen its ranges.
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

# Layers of a text encoder may be in the same log; more than a few others mean another model.
_MOST_UNKNOWN = 0.1
# A log bounds no row sample, and merging takes the smallest bound.
_ROWS_PER_LAYER = 2**31 - 1
# What the patch logs per layer unless told otherwise.
_USUAL_LIMIT = 5
_ID_DIGITS = 32


@dataclass(frozen=True)
class ImportedLog:
    """Statistics from a log, and what a user should know of how it was read."""

    statistics: CalibrationStatistics
    notes: tuple[str, ...]


def import_activation_log(
    path: Path, fingerprint: ModelFingerprint, *, ignore_unknown: bool = False
) -> ImportedLog:
    """Read a log as statistics of the model with this fingerprint.

    Args:
        path: the log.
        fingerprint: of the model that was sampled; a log does not say which it was.
        ignore_unknown: leave out layers the model does not have, however many.

    Raises:
        CalibrationError: the log cannot be read, or is of another model: layers it does not have
            (the nearest are named) or inputs of another width.
    """
    log = read_activation_log(path, fingerprint.shapes)
    known = {name: layer for name, layer in log.layers.items() if name in fingerprint.shapes}
    unknown = [name for name in log.layers if name not in known]
    allowed = math.inf if ignore_unknown else _MOST_UNKNOWN * len(log.layers)
    if len(unknown) > allowed or not known:
        raise CalibrationError(
            f"{path}: {len(unknown)} of {len(log.layers)} layers are not in the model: "
            f"{describe_unknown(unknown, fingerprint.shapes)}"
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
                f"{log.path} is of another model: the inputs of {name} are {other[0]} wide there, "
                f"its weight takes {width}"
            )


def _run(log: ActivationLog, layers: Mapping[str, LoggedLayer]) -> RunRecord:
    """Return the one run a log is taken for: it does not say where one ends.

    Its id is the log's own, so that the same log is never counted twice in a merge.
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
    """Return statistics by layer; those of one parent with equal inputs share them, as q, k, v."""
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
    notes = [f"{log.path.name}: {log.lines} lines of {len(known)} layers"]
    if unknown:
        left_out = describe_unknown(unknown, fingerprint.shapes)
        notes.append(f"left out, not in the model: {left_out}")
    if log.bad_lines:
        notes.append(f"{log.bad_lines} lines make no sense and were skipped, first {log.first_bad}")
    if log.provided:
        notes.append(f"{log.provided} lines are of layers with a static scale and say nothing")
    most = max(len(layer.amax) for layer in known.values())
    if most <= _USUAL_LIMIT:
        notes.append(
            f"warning: no layer has more than {most} calls. The patch logs the first "
            f"{_USUAL_LIMIT} unless COMFY_NFP4_LOG_INPUT_SCALE_MAX is -1, and the largest "
            "activations may come later"
        )
    return notes
