"""Banks of experts: one 3-D weight ``[experts, out, in]``, each expert stored in a 2-D format.

ComfyUI loads it into ``MoEExperts`` (comfy/ops.py): every stored tensor has a leading dimension for
the experts, and the marker counts them. The bank reads no static input scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .base import EncodedWeight, Shapes, TensorSpec, WeightFormat
from .rule import ScaleRule

_DIMENSIONS = 3
#: The entry of a marker that counts the experts of a bank.
EXPERTS = "num_experts"


def for_shape(fmt: WeightFormat, shape: tuple[int, ...]) -> WeightFormat:
    """Return the format that stores a weight of this shape: for a bank, one format per expert."""
    if len(shape) != _DIMENSIONS or not fmt.is_quantized or isinstance(fmt, ExpertBank):
        return fmt
    return ExpertBank(fmt, shape[0])


class ExpertBank(WeightFormat):
    """A format for each expert of a bank. It has the name of that format."""

    def __init__(self, each: WeightFormat, experts: int):
        self.each, self.experts = each, experts
        self.name, self.bits, self.marker = each.name, each.bits, each.marker
        self.kinds, self.has_scale_choice = each.kinds, each.has_scale_choice
        self.error_bound = each.error_bound

    def marker_for(self, shape: tuple[int, ...]) -> Mapping[str, Any] | None:
        """Return the marker of the experts, with their number."""
        return {**(self.each.marker_for(shape[1:]) or {}), EXPERTS: self.experts}

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return the bank of the format that decodes one expert."""
        found = self.each.of_marker(marker, {s: shape[1:] for s, shape in shapes.items()})
        return ExpertBank(found, self.experts) if found else None

    def stores_like(self, other: WeightFormat, shape: tuple[int, ...]) -> bool:
        """Whether both store an expert in the same way."""
        other = for_shape(other, shape)
        return isinstance(other, ExpertBank) and self.each.stores_like(other.each, shape[1:])

    def shape_of(self, stored: tuple[int, ...], bias: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the bank from that of its stored tensor; the bias gives the rows."""
        experts, rows, columns = stored
        return (experts, *self.each.logical_shape((rows, columns), bias[-1] if bias else None))

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse formats that ComfyUI misreads in a bank, and experts of an unfit shape."""
        if not self.each.loads_in_banks:
            return f"ComfyUI does not decode banks of experts in {self.name}"
        return self.each.refusal(shape[1:])

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of one expert with a leading dimension for the experts."""
        return {
            suffix: TensorSpec((shape[0], *spec.shape), spec.dtype)
            for suffix, spec in self.each.tensor_specs(shape[1:], source_dtype).items()
        }

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode every expert by itself."""
        encoded = [self.each.encode(expert, rule, measure_error=measure_error) for expert in weight]
        error = _joined_error(weight, encoded) if measure_error else None
        parts = {
            suffix: torch.stack([expert.tensors[suffix] for expert in encoded])
            for suffix in (encoded[0].tensors if encoded else ())
        }
        return EncodedWeight(parts, error)

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Decode the bank, or the experts ``rows``, to float32 ``[experts, out, in]``."""
        chosen = range(*(rows or slice(None)).indices(shape[0]))
        device = tensors["weight"].device
        values = torch.empty((len(chosen), *shape[1:]), dtype=torch.float32, device=device)
        for place, expert in enumerate(chosen):
            own = {suffix: tensor[expert] for suffix, tensor in tensors.items()}
            values[place] = self.each.decode(own, shape[1:])
        return values

    def read_scale(self, suffix: str, stored: torch.Tensor) -> torch.Tensor:
        """Return the float32 values of stored scales."""
        return self.each.read_scale(suffix, stored)


def _joined_error(weight: torch.Tensor, encoded: list[EncodedWeight]) -> float:
    """Return the relative error of the bank from those of its experts."""
    squares = [expert.float().square().sum(dtype=torch.float64) for expert in weight]
    norms = torch.stack(squares).tolist() if squares else []
    error = sum((e.relative_error or 0.0) ** 2 * n for e, n in zip(encoded, norms, strict=True))
    return (error / (sum(norms) or 1.0)) ** 0.5
