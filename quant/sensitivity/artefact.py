"""The sensitivity of a model: how much each layer loses in each candidate format.

There are two measures, and either may be missing: the error of the layer's own output on captured
inputs, and the shift of the model's output if only that layer is quantized. Values that are missing
or not finite are *unknown* and never count as harmless.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import CalibrationError
from ..files.json_file import read_json
from ..files.stored_data import checked
from ..files.write import write_json
from ..fingerprint import ModelFingerprint
from .stored_sensitivity import StoredSensitivity
from .whole import WholeShift

FORMAT_VERSION = 1
_KIND = "nvfp4_foundry.sensitivity"


@dataclass(frozen=True)
class CandidateErrors:
    """Relative errors (Frobenius norms) of one layer in one format; None means unknown.

    ``weight``: error of the weight. ``w4a16`` and ``w4a4``: errors of the layer's output with
    16-bit and with quantized activations. ``latent_by_sigma``: shift of the model's output if only
    this layer is quantized, ``||v - v_ref|| / ||v_ref||``, by sigma; at sigma 0 it is the shift of
    the sampled latent. ``is_estimated`` means that it was estimated, at least in one sampling, from
    the shifts of layers like this one.

    Values that are not errors (NaN, infinite, negative) become unknown. If that happens at one
    sigma, the shifts at all sigmas become unknown, because an average of the rest would mislead.
    """

    weight: float | None = None
    w4a16: float | None = None
    w4a4: float | None = None
    latent_by_sigma: Mapping[float, float] = field(default_factory=dict)
    is_estimated: bool = False

    def __post_init__(self) -> None:
        """Replace values that are not errors by unknown."""
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
    """One layer: its shape ``(out, in)``, its input, and its errors per format.

    Layers that always receive the same tensor have the same ``input_id`` (None: not observed).
    """

    name: str
    shape: tuple[int, ...]
    input_id: str | None
    candidates: Mapping[str, CandidateErrors]


@dataclass(frozen=True)
class Sensitivity:
    """The sensitivities of a model's layers by name, measured with one rounding.

    ``whole`` are the shifts of mixes that were sampled whole, see `WholeShift`.
    """

    fingerprint: ModelFingerprint
    rounding: str
    layers: Mapping[str, LayerSensitivity]
    whole: tuple[WholeShift, ...] = ()

    @property
    def formats(self) -> tuple[str, ...]:
        """The candidate formats of all layers, in the order of the layer with the most formats."""
        by_number = sorted((la.candidates for la in self.layers.values()), key=len, reverse=True)
        return tuple(dict.fromkeys(name for candidates in by_number for name in candidates))

    @cached_property  # `cost` reads it for every layer
    def has_latents(self) -> bool:
        """Whether the shift of the model's output was measured for any layer."""
        return any(
            candidate.latent is not None
            for layer in self.layers.values()
            for candidate in layer.candidates.values()
        )

    @property
    def is_of_samplings(self) -> bool:
        """Whether the shifts are of the latents of whole samplings, not of single model calls."""
        found = [
            set(candidate.latent_by_sigma)
            for layer in self.layers.values()
            for candidate in layer.candidates.values()
            if candidate.latent_by_sigma
        ]
        return bool(found) and all(sigmas == {0.0} for sigmas in found)

    def cost(self, name: str, format_name: str) -> float | None:
        """Return the squared error that a layer in a format adds to the result; None: unknown.

        If the shifts of the model's output were measured, this is the relative squared shift. If it
        was measured for another format of the layer only, it is scaled by the squared ratio of the
        two output errors. Without shifts, this is the squared W4A4 output error of the layer.
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
        """Return the layers that can take this format but have an unknown `cost` in it."""
        return tuple(
            name
            for name, layer in self.layers.items()
            if format_name in layer.candidates and self.cost(name, format_name) is None
        )

    def with_latents(
        self,
        format_name: str,
        shifts: Mapping[str, Mapping[float, float]],
        estimated: Collection[str] = (),
    ) -> Sensitivity:
        """Return a copy with these latent shifts for one format, which replace all earlier ones.

        ``shifts``: relative shift of the model's output by layer and sigma. ``estimated`` names the
        layers whose shifts are estimates. Raises
        `CalibrationError` for a layer that does not have this candidate format.
        """
        odd = [name for name in shifts if format_name not in self.candidates(name)]
        if odd:
            raise CalibrationError(
                f"the sensitivity was not measured for {odd[0]} in {format_name}; measure it first"
            )
        layers, estimated = {}, frozenset(estimated)
        for name, layer in self.layers.items():
            candidates = dict(layer.candidates)
            if format_name in candidates:
                measured = replace(
                    candidates[format_name],
                    latent_by_sigma=shifts.get(name, {}),
                    is_estimated=name in estimated,
                )
                candidates[format_name] = measured
            layers[name] = replace(layer, candidates=candidates)
        return replace(self, layers=layers)

    def candidates(self, name: str) -> Mapping[str, CandidateErrors]:
        """Return a layer's errors by format; empty for a layer that was not measured."""
        layer = self.layers.get(name)
        return layer.candidates if layer else {}

    def by_input(self, names: Iterable[str]) -> list[list[str]]:
        """Group layers that share an input, in the order of the first layer of each group.

        A layer that was not measured, or not observed, is a group of its own.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for name in names:
            known = self.layers.get(name)
            shared = known.input_id if known else None
            key = ("layer", name) if shared is None else ("input", shared)
            groups.setdefault(key, []).append(name)
        return list(groups.values())

    def require_model(self, fingerprint: ModelFingerprint) -> None:
        """Raise `CalibrationError`, naming the difference, if this is from another model."""
        difference = self.fingerprint.difference(fingerprint)
        if difference is not None:
            raise CalibrationError(
                f"the sensitivity is from a different model: {difference}. Measure it again with "
                "this model"
            )

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data that `from_json` reads back."""
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
                            # pairs, because keys in JSON cannot be numbers
                            "latent_by_sigma": sorted(errors.latent_by_sigma.items()),
                        }
                        for name, errors in layer.candidates.items()
                    },
                }
                for layer in self.layers.values()
            ],
            "whole": [asdict(whole) for whole in self.whole],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Return the sensitivity that `to_json` wrote."""
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
                        is_estimated=errors["is_estimated"],
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
            whole=tuple(WholeShift(**entry) for entry in data.get("whole", ())),
        )


def save_sensitivity(sensitivity: Sensitivity, path: Path) -> None:
    """Write a sensitivity file as JSON. Raises `FileError` if it cannot be written."""
    write_json(path, sensitivity.to_json(), indent=1)


def load_sensitivity(path: Path) -> Sensitivity:
    """Read a sensitivity file.

    Raises `CalibrationError`, naming the file and the problem: it is missing, not a sensitivity
    file, written by a newer version, or damaged.
    """
    try:
        data = read_json(path, endless=True)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the sensitivity: {error}") from error
    except ValueError as error:
        raise CalibrationError(
            f"{path} is not a sensitivity file: {error}; choose a file that nvfp4 sensitivity or "
            "Measure Sensitivity wrote"
        ) from error
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise CalibrationError(
            f"{path} is not a sensitivity file; choose a file that nvfp4 sensitivity or Measure "
            "Sensitivity wrote"
        )
    try:
        version = data.get("version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CalibrationError(
                f"{path} was written by a newer version of NVFP4 Foundry; update the node pack"
            )
        return Sensitivity.from_json(checked(StoredSensitivity, data).model_dump())
    except ValueError as error:
        raise CalibrationError(
            f"{path}: the sensitivity file is damaged ({error}); measure it again"
        ) from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _squared(value: float | None) -> float | None:
    return None if value is None else value * value


def _is_error(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value >= 0
