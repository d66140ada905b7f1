"""Statistics as the JSON of input scales that other converters read.

``layers``: ``{"layer": input_scale}``, for ``convert_to_quant --input-scales``. ``tensors``: the
same by tensor name, ``layer.input_scale``. ``summary``: what was observed per layer, for
``convert_nvfp4 --input-scale-summary-json``, which chooses and multiplies by itself.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import VERSION
from ...errors import CalibrationError
from ..records import LayerStatistics
from ..statistics import CalibrationStatistics
from . import InputScalePolicy, decide_scales
from .read import ORIGIN, divisor_of

FLAVOURS = ("layers", "tensors", "summary")
# The columns of a summary, as the analyzer that invented it names them.
_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class ScaleExport:
    """The JSON to write, how many layers it has, and the layers left out with the reason."""

    data: Mapping[str, Any]
    layers: int
    left_out: Mapping[str, str]


def export_scales(
    statistics: CalibrationStatistics,
    policy: InputScalePolicy,
    *,
    flavour: str = "layers",
    format_name: str = "nvfp4",
    prefix: str = "",
) -> ScaleExport:
    """Return the static scales of every observed layer as other converters read them.

    Args:
        statistics: where they come from.
        policy: what they represent; a summary ignores it, it holds what was seen.
        flavour: one of `FLAVOURS`.
        format_name: the format the scales are for: amax / 2688 for NVFP4, amax / 448 for float8.
        prefix: put before every name, as the other converter's source has it.

    Raises:
        CalibrationError: a format without static scales, an unknown flavour, or no layer that
            gets a scale.
    """
    if flavour not in FLAVOURS:
        raise CalibrationError(f"unknown kind of JSON {flavour!r}; known: {', '.join(FLAVOURS)}")
    divisor = divisor_of(format_name)
    decisions = decide_scales(policy, statistics, statistics.layers)
    scales = {n: s for n, d in decisions.items() if (s := d.scale_for(divisor)) is not None}
    if not scales:
        reason = next((d.reason for d in decisions.values()), "nothing was observed")
        raise CalibrationError(f"no layer gets a static scale ({reason}): there is none to export")
    left_out = {name: d.reason for name, d in decisions.items() if name not in scales}
    if flavour == "summary":
        data = _summary(statistics, list(scales), format_name, divisor, prefix)
    else:
        suffix = ".input_scale" if flavour == "tensors" else ""
        origin = {
            "tool": f"nvfp4-foundry {VERSION}",
            "format": format_name,
            "policy": str(policy),
            "runs": len(statistics.runs),
        }
        # last: a reader that shows an example takes the first
        data = {**{f"{prefix}{n}{suffix}": s for n, s in scales.items()}, ORIGIN: origin}
    return ScaleExport(data, len(scales), left_out)


def write_scales(export: ScaleExport, path: Path) -> None:
    """Write an export, atomically; `CalibrationError` when that is not possible."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(export.data, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot write the input scales: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _summary(
    statistics: CalibrationStatistics,
    names: list[str],
    format_name: str,
    divisor: float,
    prefix: str,
) -> dict[str, Any]:
    rows = [_row(f"{prefix}{name}", statistics.layers[name], divisor) for name in names]
    return {
        "format": format_name,
        "mode": "dynamic",
        "percentiles": list(_PERCENTILES),
        "layers": rows,
    }


def _row(name: str, layer: LayerStatistics, divisor: float) -> dict[str, Any]:
    amax = layer.call_amax[np.isfinite(layer.call_amax)].astype(np.float64)
    row: dict[str, Any] = {"layer": name, "count": int(amax.size)}
    for what, values in (("scale", amax / divisor), ("amax", amax)):
        row[f"{what}_min"], row[f"{what}_max"] = float(values.min()), float(values.max())
        row[f"{what}_mean"], row[f"{what}_std"] = float(values.mean()), float(values.std())
        for percent in _PERCENTILES:
            key = f"{what}_p{percent:g}".replace(".", "_")
            row[key] = float(np.percentile(values, percent))
    return row
