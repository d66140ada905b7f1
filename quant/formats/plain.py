"""Unquantized formats: keep the source's dtype, or cast to bf16, fp16 or fp32."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import FormatError
from .base import EncodedWeight, TensorSpec, WeightFormat, tensor_amax
from .rule import ScaleRule


class Plain(WeightFormat):
    """A weight without scales or marker, in one dtype (None: the dtype of the source)."""

    def __init__(self, name: str, dtype: torch.dtype | None, error_bound: float):
        self.name = name
        self.dtype = dtype
        self.bits = dtype.itemsize * 8.0 if dtype else 16.0
        self.error_bound = error_bound

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the spec of one tensor with the source's shape."""
        return {"weight": TensorSpec(tuple(shape), self.dtype or source_dtype)}

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Cast the weight to the dtype.

        Raises:
            FormatError: a finite value overflows the dtype.
        """
        if self.dtype is None or self.dtype == weight.dtype:
            return EncodedWeight({"weight": weight}, 0.0 if measure_error else None)
        cast = cast_plain(weight, self.dtype)
        error = None
        if measure_error:
            norm = float(weight.float().norm())
            error = float((cast.float() - weight.float()).norm()) / norm if norm > 0 else 0.0
        return EncodedWeight({"weight": cast}, error)

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return float32 values."""
        weight = tensors["weight"]
        return (weight if rows is None else weight[rows]).float()


# The dtypes that cannot hold every finite value of a wider one.
_OVERFLOWING = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def cast_plain(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor cast to ``dtype``, rounded to nearest.

    Raises:
        FormatError: a finite value overflows the dtype.
    """
    if tensor.dtype == dtype:
        return tensor
    cast = tensor.to(dtype)
    name = _OVERFLOWING.get(dtype)
    # The largest value is found without a copy of the tensor, and is finite in nearly all.
    if not name or bool(torch.isfinite(tensor_amax(cast))):
        return cast
    if bool((cast.isinf() & ~tensor.isinf()).any()):
        other = "bf16 or keep" if dtype == torch.float16 else "fp32 or keep"
        raise FormatError(
            f"values above {torch.finfo(dtype).max:.5g} do not fit {name} (the largest is "
            f"{float(tensor.abs().amax()):.4g}); give this layer {other}"
        )
    return cast
