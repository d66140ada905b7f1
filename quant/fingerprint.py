"""Recognise a model again: are these statistics from the model that is being quantized?

A fingerprint holds the shape of every 2-D weight and a probe of values from a few 1-D tensors
(biases and norms). Shapes tell architectures apart; the probe tells two models of one
architecture apart (the two experts of WAN 2.2 have equal keys). Values are compared with a
tolerance because the same model may be held in bf16 on one side and fp32 on the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

_PROBE_TENSORS = 8
_PROBE_VALUES = 16
# bf16 keeps 8 significant bits; fp8-rounded copies of a bias are a different model.
_PROBE_TOLERANCE = 2.0**-7


@dataclass(frozen=True)
class ModelFingerprint:
    """Shapes of the 2-D weights by layer name, and probed values by tensor name."""

    shapes: Mapping[str, tuple[int, ...]]
    probe: Mapping[str, tuple[float, ...]]

    @property
    def digest(self) -> str:
        """Hex SHA-256 (16 characters) of the shapes: equal for one architecture and size."""
        text = json.dumps(sorted((k, list(v)) for k, v in self.shapes.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def difference(self, other: ModelFingerprint) -> str | None:
        """Return what differs in words, or None when both describe the same model."""
        missing = sorted(set(self.shapes) - set(other.shapes))
        added = sorted(set(other.shapes) - set(self.shapes))
        if missing or added:
            examples = ", ".join((missing or added)[:3])
            return f"{len(missing)} layers are missing and {len(added)} are new (e.g. {examples})"
        for name, shape in self.shapes.items():
            if tuple(other.shapes[name]) != tuple(shape):
                return f"{name} is {tuple(shape)} here and {tuple(other.shapes[name])} there"
        for name, values in self.probe.items():
            theirs = other.probe.get(name)
            if theirs is not None and not _close(values, theirs):
                return f"the values of {name} differ: same architecture, other weights"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, read back by `from_json`."""
        return {
            "shapes": {k: list(v) for k, v in self.shapes.items()},
            "probe": {k: list(v) for k, v in self.probe.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFingerprint:
        """Rebuild a fingerprint from `to_json`'s form."""
        return cls(
            shapes={k: tuple(v) for k, v in data["shapes"].items()},
            probe={k: tuple(v) for k, v in data["probe"].items()},
        )


def compute_fingerprint(
    shapes: Mapping[str, tuple[int, ...]], load: Callable[[str], torch.Tensor]
) -> ModelFingerprint:
    """Fingerprint a model given the shape of every tensor and a way to load one.

    ``shapes`` maps full tensor names (``blocks.0.ffn.0.weight``) to shapes; only a handful of
    1-D tensors are loaded.
    """
    weights = {
        name.removesuffix(".weight"): tuple(shape)
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    }
    probe = {
        name: tuple(load(name).detach().flatten()[:_PROBE_VALUES].float().cpu().tolist())
        for name in _probe_names(shapes)
    }
    return ModelFingerprint(shapes=weights, probe=probe)


def _probe_names(shapes: Mapping[str, tuple[int, ...]]) -> Iterable[str]:
    """Pick 1-D tensors spread evenly over the sorted names."""
    candidates = sorted(
        name
        for name, shape in shapes.items()
        if len(shape) == 1 and shape[0] > 0 and name.endswith((".bias", ".weight"))
    )
    step = max(1, len(candidates) // _PROBE_TENSORS)
    return candidates[::step][:_PROBE_TENSORS]


def _close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    if len(a) != len(b):
        return False
    scale = max((abs(v) for v in (*a, *b)), default=0.0)
    return all(abs(x - y) <= _PROBE_TOLERANCE * scale for x, y in zip(a, b, strict=True))
