"""Static scales from files of other tools, by layer.

What is read (`read_scales`):

- ``{"layer": input_scale, ...}``: what convert_to_quant reads and writes; keys may be tensor
  names (``layer.input_scale``), and the map may be the value of ``input_scales`` or ``layers``.
- ``{"format": ..., "layers": [{"layer": ..., "scale_max": ..., "amax_max": ...}, ...]}``: the
  summary that convert_nvfp4 makes of a log.
- a quantized safetensors checkpoint, whose ``input_scale`` tensors are taken.

A scale means nothing without its format: the same activations need a scale six times as large in
float8 as in NVFP4. So what is returned is the magnitude that a scale represents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from ...errors import CalibrationError
from ...formats import FORMATS, format_of_marker
from ...layer_names import describe_unknown, name_in_model

#: What scales of a file that does not say are taken to be for.
DEFAULT_FORMAT = "nvfp4"
#: The key under which our own files say what they are; readers look up layers only.
ORIGIN = "_nvfp4_foundry"

_NESTED = ("input_scales", "layers")
_SUFFIX = ".input_scale"


@dataclass(frozen=True)
class StoredScales:
    """Magnitudes that the scales of a file represent, by layer name as written there.

    ``observed``: they are ranges that were measured, not scales that were chosen, so they leave
    no room for larger activations.
    """

    file: str
    amax: Mapping[str, float]
    observed: bool

    def by_model_name(self, known: Collection[str]) -> dict[str, float]:
        """Return the magnitudes by the model's own layer names.

        Raises `CalibrationError` for a layer that is not among ``known``, naming the nearest.
        """
        found = {name_in_model(name, known): amax for name, amax in self.amax.items()}
        unknown = [name for name in found if name not in known]
        if unknown:
            raise CalibrationError(
                f"{self.file} has scales for layers this model does not have: "
                f"{describe_unknown(unknown, known)}"
            )
        return found


def formats_with_scales() -> dict[str, float]:
    """Return the formats whose activations take a static scale, and what divides amax in each."""
    return {f.name: f.activation_divisor for f in FORMATS.values() if f.activation_divisor}


def divisor_of(format_name: str) -> float:
    """Return what divides amax in a format; `CalibrationError` for one without static scales."""
    known = formats_with_scales()
    if format_name not in known:
        raise CalibrationError(
            f"layers in {format_name} take no input_scale; those in {', '.join(known)} do"
        )
    return known[format_name]


def read_scales(path: Path, format_name: str = "") -> StoredScales:
    """Read the static scales in a file.

    Args:
        path: ``.json``, or ``.safetensors`` for a quantized checkpoint.
        format_name: the format its scales are for; empty: as the file says, else NVFP4. Not for
            checkpoints, which know each layer's.

    Raises:
        CalibrationError: unreadable, of another kind, or a scale that is no positive number.
    """
    if path.suffix == ".safetensors":
        return _checked(path, dict(_scales_of_checkpoint(path)), observed=False)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CalibrationError(f"cannot read the input scales {path}: {error}") from error
    except ValueError as error:
        raise CalibrationError(f"input scales {path}: not JSON: {error}") from error
    if not isinstance(data, dict) or not data:
        raise CalibrationError(f"input scales {path}: no map of layers to scales")
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
    """Return the largest amax per layer; a summary of other columns has the largest scale."""
    found = {}
    for row in rows:
        if not isinstance(row, dict) or "layer" not in row:
            raise CalibrationError(f"input scales {path}: an entry of 'layers' names no layer")
        name = str(row["layer"])
        if "amax_max" in row:
            found[name] = _number(path, name, row["amax_max"])
        elif "scale_max" in row:
            found[name] = _number(path, name, row["scale_max"]) * divisor
        else:
            raise CalibrationError(f"input scales {path}: {name} has no amax_max or scale_max")
    return found


def _scales_of_checkpoint(path: Path) -> Iterator[tuple[str, float]]:
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            names = set(file.keys())
            announced = _announced(file.metadata() or {})
            for tensor in sorted(name for name in names if name.endswith(_SUFFIX)):
                layer = tensor.removesuffix(_SUFFIX)
                marker = announced.get(layer)
                if f"{layer}.comfy_quant" in names:
                    stored = file.get_tensor(f"{layer}.comfy_quant")
                    marker = json.loads(bytes(stored.tolist()))
                divisor = _divisor_of_marker(marker)
                if divisor is None:
                    raise CalibrationError(
                        f"{path}: {tensor} belongs to no layer in a known format"
                    )
                yield layer, float(file.get_tensor(tensor).float().reshape(-1)[0]) * divisor
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CalibrationError(f"cannot read the input scales of {path}: {error}") from error


def _announced(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    return json.loads(metadata.get("_quantization_metadata", "{}")).get("layers", {})


def _divisor_of_marker(marker: Any) -> float | None:
    fmt = format_of_marker(marker) if isinstance(marker, dict) else None
    return fmt.activation_divisor if fmt else None


def _number(path: Path, name: object, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CalibrationError(f"input scales {path}: that of {name} is no number: {value!r}")
    return float(value)


def _checked(path: Path, amax: Mapping[str, float], *, observed: bool) -> StoredScales:
    if not amax:
        raise CalibrationError(f"{path} holds no input scales")
    allowed: Callable[[float], bool] = (lambda v: v >= 0) if observed else (lambda v: v > 0)
    for name, value in amax.items():
        if not (math.isfinite(value) and allowed(value)):
            raise CalibrationError(f"{path}: the scale of {name} is not positive and finite")
    return StoredScales(path.name, amax, observed)
