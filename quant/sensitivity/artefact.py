"""The sensitivity artefact: what each layer of a model loses in each candidate format.

Two kinds of evidence, either of which may be missing: the error of the layer's own output on
captured inputs, and how far the model's output moves when only that layer is quantized. What is
not known, or not finite, is *unknown*: never taken for harmless.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import CalibrationError
from ..fingerprint import ModelFingerprint

FORMAT_VERSION = 1
_KIND = "nvfp4_foundry.sensitivity"


@dataclass(frozen=True)
class CandidateErrors:
    """Relative errors (Frobenius norms) of one layer in one format; None: unknown.

    ``weight``: of the weight. ``w4a16`` and ``w4a4``: of the layer's output with 16-bit and with
    quantized activations. ``latent_by_sigma``: how far the model's output moved when only this
    layer was quantized, ``||v - v_ref|| / ||v_ref||``, by sigma; at 0: of the sampled latent.

    Values that are no error (NaN, infinite, negative) become unknown. One such sigma makes all
    of them unknown: an average over the rest would pass for one over all.
    """

    weight: float | None = None
    w4a16: float | None = None
    w4a4: float | None = None
    latent_by_sigma: Mapping[float, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make unknown what is no error."""
        for name in ("weight", "w4a16", "w4a4"):
            if not _is_error(getattr(self, name)):
                object.__setattr__(self, name, None)
        if not all(_is_error(shift) for shift in self.latent_by_sigma.values()):
            object.__setattr__(self, "latent_by_sigma", {})

    @property
    def latent(self) -> float | None:
        """Root mean square over the sigmas of `latent_by_sigma`; None when it is empty."""
        values = list(self.latent_by_sigma.values())
        return math.sqrt(sum(v * v for v in values) / len(values)) if values else None


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer: its shape ``(out, in)``, the input it shares, and its errors per format.

    ``input_id`` is equal for layers that always receive the same tensor (None: not observed).
    """

    name: str
    shape: tuple[int, ...]
    input_id: str | None
    candidates: Mapping[str, CandidateErrors]


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivities of one model's layers by name, measured with one rounding."""

    fingerprint: ModelFingerprint
    rounding: str
    layers: Mapping[str, LayerSensitivity]

    @property
    def formats(self) -> tuple[str, ...]:
        """The candidate formats of any layer, as the layer that can take most of them has them."""
        by_number = sorted((la.candidates for la in self.layers.values()), key=len, reverse=True)
        return tuple(dict.fromkeys(name for candidates in by_number for name in candidates))

    @cached_property  # `cost` asks for every layer
    def has_latents(self) -> bool:
        """Whether the shift of the model's output was measured for any layer."""
        return any(
            candidate.latent is not None
            for layer in self.layers.values()
            for candidate in layer.candidates.values()
        )

    @property
    def is_of_samplings(self) -> bool:
        """Whether the shifts are those of whole samplings' latents, not of single model calls'."""
        found = [
            set(candidate.latent_by_sigma)
            for layer in self.layers.values()
            for candidate in layer.candidates.values()
            if candidate.latent_by_sigma
        ]
        return bool(found) and all(sigmas == {0.0} for sigmas in found)

    def cost(self, name: str, format_name: str) -> float | None:
        """Return the squared error a layer in a format adds to the result; None: unknown.

        The relative squared shift of the model's output where that was measured for this model:
        directly, or for another format of this layer and then scaled by the squared ratio of the
        two output errors. Otherwise the squared W4A4 output error of the layer alone.
        """
        candidate = self.candidates(name).get(format_name)
        if candidate is None:
            return None
        if not self.has_latents:
            return _squared(candidate.w4a4)
        if candidate.latent is not None:
            return _squared(candidate.latent)
        own = _squared(candidate.w4a4)
        for other in self.candidates(name).values():
            reference, shift = _squared(other.w4a4), _squared(other.latent)
            if own is not None and reference and shift is not None:
                return shift * own / reference
        return None

    def unknown(self, format_name: str) -> tuple[str, ...]:
        """Return the layers that have this candidate format and no known `cost` in it."""
        return tuple(
            name
            for name, layer in self.layers.items()
            if format_name in layer.candidates and self.cost(name, format_name) is None
        )

    def with_latents(
        self, format_name: str, shifts: Mapping[str, Mapping[float, float]]
    ) -> Sensitivity:
        """Return a copy in which the latents of one format are these, and no others.

        ``shifts``: relative shift of the model's output by layer and sigma. Raises
        `CalibrationError` for a layer that does not have this candidate format.
        """
        odd = [name for name in shifts if format_name not in self.candidates(name)]
        if odd:
            raise CalibrationError(f"the sensitivity has no {format_name} of {odd[0]}")
        layers = {}
        for name, layer in self.layers.items():
            candidates = dict(layer.candidates)
            if format_name in candidates:
                measured = replace(candidates[format_name], latent_by_sigma=shifts.get(name, {}))
                candidates[format_name] = measured
            layers[name] = replace(layer, candidates=candidates)
        return replace(self, layers=layers)

    def candidates(self, name: str) -> Mapping[str, CandidateErrors]:
        """Return a layer's errors by format; none for a layer that was not measured."""
        layer = self.layers.get(name)
        return layer.candidates if layer else {}

    def require_model(self, fingerprint: ModelFingerprint) -> None:
        """Raise `CalibrationError`, naming the difference, unless this is of that model."""
        difference = self.fingerprint.difference(fingerprint)
        if difference is not None:
            raise CalibrationError(
                f"the sensitivity is of a different model: {difference}. Measure it again from "
                "this model"
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, read back by `from_json`."""
        return {
            "kind": _KIND,
            "version": FORMAT_VERSION,
            "fingerprint": self.fingerprint.to_json(),
            "rounding": self.rounding,
            "layers": [
                {
                    "name": layer.name,
                    "shape": list(layer.shape),
                    "input_id": layer.input_id,
                    "candidates": {
                        name: {
                            **asdict(errors),
                            # JSON has no numbers as keys
                            "latent_by_sigma": sorted(errors.latent_by_sigma.items()),
                        }
                        for name, errors in layer.candidates.items()
                    },
                }
                for layer in self.layers.values()
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Rebuild from `to_json`'s form."""
        layers = [
            LayerSensitivity(
                name=str(entry["name"]),
                shape=tuple(int(n) for n in entry["shape"]),
                input_id=entry["input_id"],
                candidates={
                    str(name): CandidateErrors(
                        weight=_number(errors["weight"]),
                        w4a16=_number(errors["w4a16"]),
                        w4a4=_number(errors["w4a4"]),
                        latent_by_sigma={float(s): float(e) for s, e in errors["latent_by_sigma"]},
                    )
                    for name, errors in entry["candidates"].items()
                },
            )
            for entry in data["layers"]
        ]
        return cls(
            fingerprint=ModelFingerprint.from_json(data["fingerprint"]),
            rounding=str(data["rounding"]),
            layers={layer.name: layer for layer in layers},
        )


def save_sensitivity(sensitivity: Sensitivity, path: Path) -> None:
    """Write a sensitivity as JSON, atomically.

    Raises `CalibrationError` when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(sensitivity.to_json(), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot write the sensitivity: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_sensitivity(path: Path) -> Sensitivity:
    """Read a sensitivity file.

    Raises `CalibrationError` naming the file and what is wrong: missing, no sensitivity file,
    written by a newer version, or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the sensitivity: {error}") from error
    except ValueError as error:
        raise CalibrationError(f"{path}: not a sensitivity file: {error}") from error
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise CalibrationError(f"{path}: not a sensitivity file")
    try:
        if int(data["version"]) > FORMAT_VERSION:
            raise CalibrationError(
                f"{path}: written by a newer version of NVFP4 Foundry; update the node pack"
            )
        return Sensitivity.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CalibrationError(f"{path}: damaged sensitivity file: {error!r}") from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _squared(value: float | None) -> float | None:
    return None if value is None else value * value


def _is_error(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value >= 0
