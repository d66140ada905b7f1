"""Recognise a model again: are these statistics from the model that is being quantized?

A fingerprint holds the shape of every 2-D weight, a probe of values from a few 1-D tensors (biases
and norms) and one from a few 2-D weights. Shapes tell architectures apart; the 1-D probe tells two
models of one architecture apart (the two experts of WAN 2.2 have equal keys): such models are
refused, see `ModelFingerprint.difference`. The 2-D probe tells a model with a LoRA merged in from
its base: statistics of one are nearly right for the other, so that is only a reason to warn, see
`ModelFingerprint.drift`. Values are compared with a tolerance because the same model may be held
in bf16 on one side and fp32 on the other.
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
# bf16 keeps 8 significant bits; fp8-rounded copies of a bias are a different model.
_PROBE_TOLERANCE = 2.0**-7

_PROBE_MATRICES = 8
_MATRIX_ROWS = 4
# Relative to the values, root mean square: rounding to bf16 is 0.17%, stochastic rounding 0.24%.
# A LoRA at full strength typically changes a weight by 1 to 5%.
_MATRIX_TOLERANCE = 0.005


@dataclass(frozen=True)
class ModelFingerprint:
    """Shapes of the 2-D weights by layer name, and probed values by tensor name.

    ``matrices`` are values of 2-D weights; empty in fingerprints saved before there were any.
    """

    shapes: _Shapes
    probe: Mapping[str, tuple[float, ...]]
    matrices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

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

    def drift(self, other: ModelFingerprint) -> str | None:
        """Return how far the matrices of the same model were changed, or None if they were not.

        Merged LoRAs do that. Says nothing where either fingerprint holds no matrices.
        """
        common = [name for name in self.matrices if name in other.matrices]
        changes = {n: _relative_change(self.matrices[n], other.matrices[n]) for n in common}
        changed = {name: c for name, c in changes.items() if not c <= _MATRIX_TOLERANCE}
        if not changed:
            return None
        most = max(changed, key=lambda name: changed[name])
        return (
            f"{len(changed)} of {len(common)} probed matrices differ, {most} by {changed[most]:.1%}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, read back by `from_json`."""
        return {
            "shapes": {k: list(v) for k, v in self.shapes.items()},
            "probe": {k: list(v) for k, v in self.probe.items()},
            "matrices": {k: list(v) for k, v in self.matrices.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFingerprint:
        """Rebuild a fingerprint from `to_json`'s form."""
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
    """Fingerprint a model given the shape of every tensor and ways to load parts of it.

    Args:
        shapes: by full tensor name (``blocks.0.ffn.0.weight``).
        load: returns a tensor; asked for a handful of 1-D tensors.
        load_runs: returns consecutive elements of a tensor from flat positions, ``[starts,
            length]`` (see `TensorSource.load_runs`); asked for a handful of 2-D weights.
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
    """Pick matrices spread over the depth, of the shape that most of those in blocks have.

    Those are as a rule the attention's projections, which nearly every LoRA changes.
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
    # from the first to the last: a fixed step would find the same projection of every block
    return [names[i] for i in sorted({i * (len(names) - 1) // last for i in range(last + 1)})]


def _in_block(name: str) -> bool:
    """Whether a number with a named layer below it is in a name: not so ``time_embedding.0``."""
    return any(part.isdigit() for part in name.split(".")[:-2])


def _numbers(name: str) -> list[int]:
    return [int(part) for part in name.split(".") if part.isdigit()]


def _in_depth_order(name: str) -> tuple[list[int], str]:
    return _numbers(name), name


def _matrix_runs(rows: int, columns: int) -> tuple[list[int], int]:
    """Return flat positions in rows spread over a matrix, and how many values to take there."""
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
