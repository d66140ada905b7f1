"""The interface every storage format implements, and the values that cross it.

A format knows how one 2-D weight is stored: which tensors, of which shape and dtype, under which
marker, and how they decode. It does not choose scales: a `ScaleRule` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch

from ..errors import FormatError

# Elements per chunk. The working set (three fp32 buffers) stays in the last-level cache; larger
# chunks gain little on CPU and would only raise peak memory.
CHUNK_ELEMENTS = 1 << 20
# On a GPU a chunk has to be worth the launches of its kernels.
_GPU_CHUNK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor that will be written, known before its data."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class EncodedWeight:
    """A weight as it is stored.

    Attributes:
        tensors: by suffix of the layer name (``weight``, ``weight_scale``, ...).
        relative_error: ``||W - decode(encode(W))|| / ||W||`` (Frobenius), or None if not measured.
            Zero for an all-zero weight.
    """

    tensors: Mapping[str, torch.Tensor]
    relative_error: float | None = None


class ScaleRule(Protocol):
    """How the numbers of a format are chosen (implemented in ``rounding``)."""

    name: str

    def nvfp4_tensor_scale(self, amax: float) -> float:
        """Return the per-tensor decode scale for a weight of this absolute maximum."""
        ...

    def nvfp4_block_scales(
        self, blocks: torch.Tensor, block_amax: torch.Tensor, tensor_scale: torch.Tensor
    ) -> torch.Tensor:
        """Return one float8_e4m3fn scale per block.

        Args:
            blocks: the values, ``[B, 16]`` in the source dtype.
            block_amax: ``[B]`` float32.
            tensor_scale: 0-d float32.
        """
        ...

    def nvfp4_values(
        self, weight: torch.Tensor, tensor_scale: torch.Tensor, *, rounded_input: bool
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the rounded values themselves, or None: each value goes to the nearest.

        Args:
            weight: ``[out, in]``, any float dtype.
            tensor_scale: 0-d float32.
            rounded_input: whether the runtime rounds the layer's activations too.

        Returns:
            float32 ``[out, in]`` on the grid of the scales, float8_e4m3fn ``[out, in / 16]``.
        """
        ...

    def float8_scale(self, weight: torch.Tensor, amax: float, format_max: float) -> float:
        """Return the per-tensor scale of a float8 weight ``[out, in]``."""
        ...


class WeightFormat(ABC):
    """One way to store a layer's weight."""

    name: str
    #: Bits per weight including scales, for estimates.
    bits: float
    #: The content of ``<layer>.comfy_quant``; None for formats ComfyUI needs no marker for.
    marker: Mapping[str, Any] | None = None
    #: ``input_scale = largest activation / activation_divisor``; None where ComfyUI uses none.
    activation_divisor: float | None = None
    #: What ComfyUI scales activations by without a stored input_scale; empty: it does not.
    runtime_scale: str = ""
    #: Relative Frobenius error (any weights, any sane rounding) above which a file is damaged.
    error_bound: float = 0.0

    @property
    def is_quantized(self) -> bool:
        """Whether the format needs a marker in the checkpoint."""
        return self.marker is not None

    def stores_like(self, other: WeightFormat) -> bool:
        """Whether the tensors of both are alike; how they are multiplied may differ."""
        mine, theirs = (
            {k: v for k, v in (f.marker or {}).items() if k != "full_precision_matrix_mult"}
            for f in (self, other)
        )
        return mine == theirs

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Return why a weight of this shape cannot be stored so, or None when it can."""
        return None

    @abstractmethod
    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the tensors `encode` will give, by suffix, without looking at data."""

    @abstractmethod
    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode ``weight``.

        Raises:
            FormatError: the weight holds NaN or Inf, or has a shape the format refuses.
        """

    @abstractmethod
    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return the float32 weight ``shape`` (or the given rows of it) from stored tensors."""

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Return the values the native product sees for these activations.

        Never waits for the device, and takes no more memory than the result and a few chunks.

        Args:
            activations: ``[tokens, in]`` in the dtype the model runs in.
            input_scale: the stored static scale, or None for the runtime's own.
            dtype: of the result; float32 holds the values exactly.
        """
        return activations.to(dtype)

    def nbytes(self, shape: tuple[int, ...], source_dtype: torch.dtype) -> int:
        """Return the stored size of a weight in bytes, scales included, marker excluded."""
        return sum(spec.nbytes for spec in self.tensor_specs(shape, source_dtype).values())


def roundup(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-value // multiple) * multiple


def require_finite(amax: torch.Tensor) -> None:
    """Raise `FormatError` when a maximum over a weight says it holds NaN or Inf."""
    if not bool(torch.isfinite(amax).all()):
        raise FormatError(
            "the weight holds NaN or Inf values; the source file is damaged or was saved in "
            "fp16 from a model that overflows it. Get an intact bf16 or fp32 copy."
        )


def relative_error(squares: Mapping[int, torch.Tensor]) -> float:
    """Return the error of a weight from ``[squared error, squared norm]`` of each of its chunks.

    Keys order the sum, so that it does not depend on which chunk was finished first.
    """
    if not squares:
        return 0.0
    error, norm = torch.stack([squares[key] for key in sorted(squares)]).sum(0).tolist()
    return (error / norm) ** 0.5 if norm > 0 else 0.0


def activation_slices(activations: torch.Tensor, columns: int) -> list[slice]:
    """Cut the rows of activations into slices for the device they are on."""
    on_cpu = activations.device.type == "cpu"
    elements = CHUNK_ELEMENTS if on_cpu else _GPU_CHUNK_ELEMENTS
    return row_slices(activations.shape[0], columns, elements)


def row_slices(rows: int, columns: int, elements: int = CHUNK_ELEMENTS) -> list[slice]:
    """Cut ``rows`` into slices of about ``elements`` values each."""
    step = max(1, elements // max(1, columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def tensor_amax(weight: torch.Tensor) -> torch.Tensor:
    """Return ``max |weight|`` as 0-d float32, without a copy of the weight; NaN stays NaN."""
    if not weight.numel():
        return torch.zeros((), dtype=torch.float32, device=weight.device)
    low, high = torch.aminmax(weight)
    return torch.maximum(high, -low).float()
