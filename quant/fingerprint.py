"""Fingerprints of models, which show whether a calibration belongs to a model.

A fingerprint holds the shape of every 2-D weight, some values of a few 1-D tensors (biases and
norms), and some values of a few 2-D weights:

- Shapes distinguish architectures.
- The 1-D values distinguish models of one architecture, such as the two experts of WAN 2.2. A
  calibration of another model is refused, see `ModelFingerprint.difference`.
- The 2-D values distinguish a model with a merged LoRA from its base. A calibration of one is
  nearly right for the other, so this only causes a warning, see `ModelFingerprint.drift`.

Values are compared with a tolerance, because one side may hold the model in bf16 and the other in
fp32.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import dist, hypot, prod
from typing import Any

import torch

_Shapes = Mapping[str, tuple[int, ...]]

_PROBE_TENSORS = 8
_PROBE_VALUES = 16
# bf16 keeps 8 significant bits. A bias rounded to fp8 counts as a different model.
_PROBE_TOLERANCE = 2.0**-7

_PROBE_MATRICES = 8
_MATRIX_ROWS = 4
# Relative root mean square. Rounding to bf16 gives 0.17%, stochastic rounding 0.24%, and a LoRA at
# full strength typically 1 to 5%.
_MATRIX_TOLERANCE = 0.005


@dataclass(frozen=True)
class ModelFingerprint:
    """Shapes of the 2-D weights by layer name, and values of some tensors by tensor name.

    ``probe`` holds values of 1-D tensors, ``matrices`` values of 2-D weights. ``matrices`` may be
    empty in old files.
    """

    shapes: _Shapes
    probe: Mapping[str, tuple[float, ...]]
    matrices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """First 16 hex characters of the SHA-256 of the shapes, the same for one architecture."""
        text = json.dumps(sorted((k, list(v)) for k, v in self.shapes.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def difference(self, other: ModelFingerprint) -> str | None:
        """Return in words what differs, or None if both describe the same model."""
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

    def drift(self, other: ModelFingerprint) -> str | None:
        """Return in words how much the 2-D weights differ, or None if they do not.

        Merged LoRAs change them. Also returns None if one fingerprint holds no 2-D weights.
        """
        common = [name for name in self.matrices if name in other.matrices]
        changes = {n: _relative_change(self.matrices[n], other.matrices[n]) for n in common}
        changed = {name: c for name, c in changes.items() if not c <= _MATRIX_TOLERANCE}
        if not changed:
            return None
        most = max(changed, key=lambda name: changed[name])
        return (
            f"{len(changed)} of {len(common)} compared weights differ, "
            f"{most} by {changed[most]:.1%}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data for `from_json`."""
        return {
            "shapes": {k: list(v) for k, v in self.shapes.items()},
            "probe": {k: list(v) for k, v in self.probe.items()},
            "matrices": {k: list(v) for k, v in self.matrices.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFingerprint:
        """Return the fingerprint from the data of `to_json`."""
        return cls(
            shapes={k: tuple(v) for k, v in data["shapes"].items()},
            probe={k: tuple(v) for k, v in data["probe"].items()},
            matrices={k: tuple(v) for k, v in data.get("matrices", {}).items()},
        )


def compute_fingerprint(
    shapes: _Shapes,
    load: Callable[[str], torch.Tensor],
    load_runs: Callable[[str, Sequence[int], int], torch.Tensor],
) -> ModelFingerprint:
    """Return the fingerprint of a model.

    Args:
        shapes: shapes by full tensor name (``blocks.0.ffn.0.weight``).
        load: returns a tensor; called for a few 1-D tensors.
        load_runs: returns consecutive elements of a tensor from flat positions, ``[starts,
            length]`` (see `TensorSource.load_runs`); called for a few 2-D weights.
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
    matrices = {
        name: tuple(load_runs(name, *_matrix_runs(*shapes[name])).float().flatten().tolist())
        for name in _matrix_names(shapes)
    }
    return ModelFingerprint(shapes=weights, probe=probe, matrices=matrices)


def _matrix_names(shapes: _Shapes) -> list[str]:
    """Return weights spread over the depth, of the most frequent shape inside the blocks.

    These are usually the projections of the attention, which nearly every LoRA changes.
    """
    inside = [
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and min(shape) > 0 and name.endswith(".weight") and _in_block(name)
    ]
    counts = Counter(tuple(shapes[name]) for name in inside)
    if not counts:
        return []
    commonest = min(counts, key=lambda shape: (-counts[shape], prod(shape), shape))
    names = sorted((n for n in inside if tuple(shapes[n]) == commonest), key=_in_depth_order)
    last = _PROBE_MATRICES - 1
    # spread from the first to the last, because a fixed step could find only one projection
    return [names[i] for i in sorted({i * (len(names) - 1) // last for i in range(last + 1)})]


def _in_block(name: str) -> bool:
    """Whether a name holds a number with a named layer below it, unlike ``time_embedding.0``."""
    return any(part.isdecimal() for part in name.split(".")[:-2])


def _numbers(name: str) -> list[int]:
    return [int(part) for part in name.split(".") if part.isdecimal()]


def _in_depth_order(name: str) -> tuple[list[int], str]:
    return _numbers(name), name


def _matrix_runs(rows: int, columns: int) -> tuple[list[int], int]:
    """Return flat positions spread over a matrix, and the number of values to take from each."""
    length = min(_PROBE_VALUES, columns)
    starts = [
        (rows * (2 * i + 1) // (2 * _MATRIX_ROWS)) * columns
        + (columns - length) * (2 * i + 1) // (2 * _MATRIX_ROWS)
        for i in range(_MATRIX_ROWS)
    ]
    return starts, length


def _relative_change(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return ``||a - b|| / max(||a||, ||b||)``."""
    if len(a) != len(b):
        return 1.0
    norm = max(hypot(*a), hypot(*b))
    return dist(a, b) / norm if norm else 0.0


def _probe_names(shapes: _Shapes) -> Iterable[str]:
    """Return 1-D tensors spread evenly over the sorted names."""
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
