"""The record of each layer in a checkpoint's header: errors, reasons, and what was observed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

# The columns of numbers that are compared with the file later keep more digits.
_DIGITS = {"weight_error": 5}
_USUAL_DIGITS = 4


class Measured(Protocol):
    """A layer with errors; see `LayerRecord`."""

    @property
    def weight_error(self) -> float | None: ...
    @property
    def output_error_w4a16(self) -> float | None: ...
    @property
    def max_rule_weight_error(self) -> float | None: ...
    @property
    def max_rule_output_error(self) -> float | None: ...
    @property
    def weight_norm(self) -> float | None: ...
    @property
    def output_norm(self) -> float | None: ...


@dataclass(frozen=True)
class LayerRecord:
    """What was known about a layer when its file was written; None or empty: not known.

    ``reason`` is why the layer has its format. ``weight_error`` is the error of the weight, and
    ``output_error_w4a16`` and ``output_error_w4a4`` are errors of its output on sampled inputs.
    ``max_rule_weight_error`` and ``max_rule_output_error`` are estimates for the plain max rule.
    ``weight_norm`` and ``output_norm`` weigh the layers when errors are added up.
    ``activation_amax``, ``activation_spread`` and ``calls`` are of the calibration.
    """

    reason: str = ""
    rounding: str = ""
    rounding_reason: str = ""
    bias: str = ""
    input_scale_reason: str = ""
    weight_error: float | None = None
    output_error_w4a16: float | None = None
    output_error_w4a4: float | None = None
    max_rule_weight_error: float | None = None
    max_rule_output_error: float | None = None
    weight_norm: float | None = None
    output_norm: float | None = None
    activation_amax: float | None = None
    activation_spread: float | None = None
    calls: int = 0

    @property
    def remarks(self) -> str:
        """The reasons of rounding, bias and input scale, in words."""
        parts = [self.rounding_reason, self.input_scale_reason]
        parts += [f"bias {self.bias}"] if self.bias else []
        return "; ".join(part for part in parts if part)


TEXTS = tuple(f.name for f in fields(LayerRecord) if f.default == "")
NUMBERS = tuple(f.name for f in fields(LayerRecord) if f.default is None)
#: Texts that are known only once a layer is encoded.
GAINS = ("rounding_reason", "bias")
_COUNTS = ("calls",)


def write_records(
    records: Mapping[str, LayerRecord], longest_gain: int | None = None
) -> dict[str, Any]:
    """Return records by layer name as columns, JSON-serialisable, without empty columns.

    Texts are stored once, with an index for each layer. ``longest_gain`` cuts the `GAINS`.
    """
    columns: dict[str, Any] = {"name": list(records)}
    for name in TEXTS:
        cut = longest_gain if name in GAINS else None
        texts = [getattr(record, name)[:cut] for record in records.values()]
        if any(texts):
            index: dict[str, int] = {}
            at = [index.setdefault(text, len(index)) for text in texts]
            columns[name] = {"of": list(index), "at": at}
    for name in NUMBERS:
        digits = _DIGITS.get(name, _USUAL_DIGITS)
        values = [_short(getattr(record, name), digits) for record in records.values()]
        if any(value is not None for value in values):
            columns[name] = values
    for name in _COUNTS:
        counts = [getattr(record, name) for record in records.values()]
        if any(counts):
            columns[name] = counts
    return columns


def read_records(provenance: Mapping[str, Any]) -> dict[str, LayerRecord]:
    """Return the records by layer name that a file's provenance holds.

    Older files hold only the errors of the weights. Whatever cannot be read is left out: the header
    is untrusted. Once a file was rescaled, what depends on its input scales is no longer known.
    """
    columns = provenance.get("layers")
    if not isinstance(columns, dict):
        errors = provenance.get("errors")
        errors = errors if isinstance(errors, dict) else {}
        known = {name: _number(error) for name, error in errors.items()}
        return {name: LayerRecord(weight_error=error) for name, error in known.items()}
    names = _list(columns.get("name"))
    if not all(isinstance(name, str) for name in names):
        return {}
    stale = ("input_scale_reason", "output_error_w4a4") if provenance.get("rescaled") else ()
    values: list[dict[str, Any]] = [{} for _ in names]
    for field in (*TEXTS, *NUMBERS, *_COUNTS):
        column = columns.get(field) if field not in stale else None
        read = _texts(column) if field in TEXTS else [_number(v) for v in _list(column)]
        if len(read) != len(names):
            continue
        for entry, value in zip(values, read, strict=True):
            entry[field] = int(value or 0) if field in _COUNTS else value
    return {name: LayerRecord(**entry) for name, entry in zip(names, values, strict=True)}


@dataclass(frozen=True)
class OverallError:
    """The error of several layers together, beside the plain max rule's.

    Both are roots of summed squares, relative to the layers' norms. ``of_outputs``: of outputs with
    16-bit inputs; otherwise of weights.
    """

    error: float
    max_rule: float
    of_outputs: bool
    layers: int

    @property
    def what(self) -> str:
        """What the error is of, in words."""
        if self.of_outputs:
            return f"outputs of {self.layers} layers, 16-bit inputs"
        return f"weights of {self.layers} layers"


def overall_error(layers: Iterable[Measured]) -> OverallError | None:
    """Return the error of the outputs of layers together; None if nothing was measured.

    If the outputs of most of them were not measured, it is the error of the weights.
    """
    found = list(layers)
    weights = _known((la.weight_error, la.max_rule_weight_error, la.weight_norm) for la in found)
    outputs = _known(
        (la.output_error_w4a16, la.max_rule_output_error, la.output_norm) for la in found
    )
    known = outputs if 2 * len(outputs) >= len(weights) else weights
    if not known:
        return None
    total = math.hypot(*(norm for _, _, norm in known))
    own = math.hypot(*(error * norm for error, _, norm in known))
    plain = math.hypot(*(error * norm for _, error, norm in known))
    return OverallError(own / total, plain / total, known is outputs, len(known))


def _known(
    rows: Iterable[tuple[float | None, float | None, float | None]],
) -> list[tuple[float, float, float]]:
    return [
        (own, plain, norm)
        for own, plain, norm in rows
        if own is not None and plain is not None and norm
    ]


def _short(value: float | None, digits: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits - 1}e}")


def _texts(column: Any) -> Sequence[str]:
    """Return the texts of a coded column; empty if it is damaged."""
    if not isinstance(column, dict):
        return []
    of, at = _list(column.get("of")), _list(column.get("at"))
    if not all(isinstance(text, str) for text in of):
        return []
    valid = all(isinstance(index, int) and 0 <= index < len(of) for index in at)
    return [of[index] for index in at] if valid else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
