"""Read the static scales of layers from files of other tools.

`read_scales` reads:

- ``{"layer": input_scale, ...}``, which convert_to_quant reads and writes. Keys may be tensor
  names (``layer.input_scale``), and the map may be the value of ``input_scales`` or ``layers``.
- ``{"format": ..., "layers": [{"layer": ..., "scale_max": ..., "amax_max": ...}, ...]}``, the
  summary that convert_nvfp4 makes from a log.
- a quantized safetensors checkpoint with ``input_scale`` tensors.

A scale has no meaning without its format: the same activations need a scale six times as large in
float8 as in NVFP4. So the functions return the magnitude that a scale represents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CalibrationError, CheckpointError, SourceError
from ...files.json_file import read_json
from ...formats import FORMATS, format_of_marker
from ...formats.nvfp4 import PRE_QUANT_SCALE
from ...layer_names import describe_unknown, name_in_model
from ...sources.safetensors_file import SafetensorsFile
from ...sources.stored_layers import announced_markers, read_marker

#: The format of the scales in a file that does not name it.
DEFAULT_FORMAT = "nvfp4"
#: The key under which our own files describe themselves; other readers look up layers only.
ORIGIN = "_nvfp4_foundry"

_NESTED = ("input_scales", "layers")
_SUFFIX = ".input_scale"


@dataclass(frozen=True)
class StoredScales:
    """The magnitudes that the scales of a file represent, by the layer names in the file.

    ``observed``: they are measured ranges, not chosen scales, so they have no headroom for larger
    activations.
    """

    file: str
    amax: Mapping[str, float]
    observed: bool

    def by_model_name(self, known: Collection[str]) -> dict[str, float]:
        """Return the magnitudes by the model's own layer names.

        Raises `CalibrationError` for a layer that is not in ``known``, with the nearest names.
        """
        found = {name_in_model(name, known): amax for name, amax in self.amax.items()}
        unknown = [name for name in found if name not in known]
        if unknown:
            raise CalibrationError(
                f"{self.file} has input scales for layers that this model does not have: "
                f"{describe_unknown(unknown, known)}"
            )
        return found


def formats_with_scales() -> dict[str, float]:
    """Return the formats that take a static scale, each with the divisor of its amax."""
    return {f.name: f.activation_divisor for f in FORMATS.values() if f.activation_divisor}


def divisor_of(format_name: str) -> float:
    """Return the number that divides amax in a format.

    Raises `CalibrationError` for a format without static scales.
    """
    known = formats_with_scales()
    if format_name not in known:
        raise CalibrationError(
            f"{format_name} layers take no input_scale; choose one of {', '.join(known)}"
        )
    return known[format_name]


def read_scales(path: Path, format_name: str = "") -> StoredScales:
    """Read the static scales in a file.

    Args:
        path: ``.json``, or ``.safetensors`` for a quantized checkpoint.
        format_name: the format of its scales; empty: the one the file names, else NVFP4. Ignored
            for checkpoints, which store the format of each layer.

    Raises:
        CalibrationError: the file cannot be read, is not a file of scales, or has a scale that is
            not a positive number.
    """
    if path.suffix == ".safetensors":
        return _checked(path, dict(_scales_of_checkpoint(path)), observed=False)
    try:
        data: Any = read_json(path, unique_names=True)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the input scales: {error}") from error
    except ValueError as error:
        raise CalibrationError(
            f"{path} is not JSON: {error}; input scales need a .json or .safetensors file"
        ) from error
    if not isinstance(data, dict) or not data:
        raise CalibrationError(f"{path}: the file does not map layers to input scales")
    named = format_name or str(_origin(data).get("format") or data.get("format") or DEFAULT_FORMAT)
    divisor = divisor_of(named)
    if isinstance(data.get("layers"), list):
        return _checked(path, _summary(path, data["layers"], divisor), observed=True)
    scales = next((data[k] for k in _NESTED if isinstance(data.get(k), dict)), data)
    amax = {
        str(name): _number(path, name, scale) * divisor
        for name, scale in scales.items()
        if name != ORIGIN
    }
    return _checked(path, amax, observed=False)


def _origin(data: Mapping[str, Any]) -> Mapping[str, Any]:
    origin = data.get(ORIGIN)
    return origin if isinstance(origin, dict) else {}


def _summary(path: Path, rows: list[Any], divisor: float) -> dict[str, float]:
    """Return the largest amax per layer, computed from the largest scale if there is no amax."""
    found = {}
    for row in rows:
        if not isinstance(row, dict) or "layer" not in row:
            raise CalibrationError(f"{path}: an entry of 'layers' has no 'layer'")
        name = str(row["layer"])
        if "amax_max" in row:
            found[name] = _number(path, name, row["amax_max"])
        elif "scale_max" in row:
            found[name] = _number(path, name, row["scale_max"]) * divisor
        else:
            raise CalibrationError(f"{path}: {name} has no amax_max and no scale_max")
    return found


def _scales_of_checkpoint(path: Path) -> Iterator[tuple[str, float]]:
    try:
        with SafetensorsFile(path) as file:
            announced = announced_markers(file, lenient=True)
            for tensor in sorted(name for name in file.tensors if name.endswith(_SUFFIX)):
                layer = tensor.removesuffix(_SUFFIX)
                if f"{layer}.{PRE_QUANT_SCALE}" in file.tensors:
                    continue  # the scale is for the input times these factors
                marker = read_marker(file, layer, lenient=True) or announced.get(layer)
                divisor = _divisor_of_marker(marker)
                if divisor is None:
                    raise CalibrationError(
                        f"{path}: {tensor} does not belong to a layer in a known format"
                    )
                if not file.info(tensor).nbytes:
                    raise CalibrationError(f"{path}: {tensor} is empty")
                yield layer, float(file.load(tensor).float().reshape(-1)[0]) * divisor
    except (OSError, SourceError, CheckpointError) as error:
        raise CalibrationError(f"{path}: cannot read the input scales: {error}") from error


def _divisor_of_marker(marker: Any) -> float | None:
    fmt = format_of_marker(marker) if isinstance(marker, dict) else None
    return fmt.activation_divisor if fmt else None


def _number(path: Path, name: object, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CalibrationError(f"{path}: the input scale of {name} is not a number: {value!r}")
    return float(value)


def _checked(path: Path, amax: Mapping[str, float], *, observed: bool) -> StoredScales:
    if not amax:
        raise CalibrationError(f"{path} has no input scales; choose a file that has some")
    allowed: Callable[[float], bool] = (lambda v: v >= 0) if observed else (lambda v: v > 0)
    for name, value in amax.items():
        if not (math.isfinite(value) and allowed(value)):
            raise CalibrationError(
                f"{path}: the input scale of {name} is {value}, not a positive finite number"
            )
    return StoredScales(path.name, amax, observed)
