"""Export the input scales of a calibration as JSON for other converters.

``layers``: ``{"layer": input_scale}``, for ``convert_to_quant --input-scales``. ``tensors``: the
same by tensor name, ``layer.input_scale``. ``summary``: the values observed per layer, for
``convert_nvfp4 --input-scale-summary-json``, which chooses the scales itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import VERSION
from ...errors import CalibrationError
from ...files.write import write_json
from ..records import LayerStatistics
from ..statistics import CalibrationStatistics
from . import InputScalePolicy, decide_scales
from .read import ORIGIN, divisor_of

FLAVOURS = ("layers", "tensors", "summary")
# The percentiles of a summary, which convert_nvfp4 reads by these names.
_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class ScaleExport:
    """The JSON to write, its number of layers, and the layers left out, each with a reason."""

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
    """Return the static scales of all observed layers in a form that other converters read.

    Args:
        statistics: the calibration.
        policy: how the scales are chosen; a summary holds the observed values and ignores it.
        flavour: one of `FLAVOURS`.
        format_name: the format of the scales: amax / 2688 for NVFP4, amax / 448 for float8.
        prefix: put before every name, if the other converter's source has such a prefix.

    Raises:
        CalibrationError: the format takes no static scales, the flavour is unknown, or no layer
            gets a scale.
    """
    if flavour not in FLAVOURS:
        raise CalibrationError(f"unknown JSON layout {flavour!r}; known: {', '.join(FLAVOURS)}")
    divisor = divisor_of(format_name)
    decisions = decide_scales(policy, statistics, statistics.layers)
    scales = {n: s for n, d in decisions.items() if (s := d.scale_for(divisor)) is not None}
    if not scales:
        reason = next((d.reason for d in decisions.values()), "nothing was observed")
        raise CalibrationError(
            f"there are no input scales to export: no layer gets a static scale ({reason})"
        )
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
        # ORIGIN comes last, because readers show the first entry as an example.
        data = {**{f"{prefix}{n}{suffix}": s for n, s in scales.items()}, ORIGIN: origin}
    return ScaleExport(data, len(scales), left_out)


def write_scales(export: ScaleExport, path: Path) -> None:
    """Write an export as JSON. Raises `FileError` if it cannot be written."""
    write_json(path, export.data, indent=2)


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
