"""The interface of storage formats, and the values that pass through it.

A format defines how one 2-D weight is stored: the tensors with their shapes and dtypes, the
marker, and how the tensors decode. It does not choose scales. A `ScaleRule` does that.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import torch

from ..errors import FormatError
from .rule import ScaleRule

# Elements per chunk. The buffers of a chunk are about 1 MB each and stay in a core's cache. Larger
# chunks are slower on a CPU and need more memory; smaller ones wait for the interpreter.
CHUNK_ELEMENTS = 1 << 18
# A GPU needs larger chunks, so that the work outweighs the launches of its kernels.
_GPU_CHUNK_ELEMENTS = 1 << 24
# A smaller scale is subnormal in fp32, and GPUs may flush it to zero.
_SMALLEST_SCALE = 2.0**-126
#: The key of a marker that asks ComfyUI to multiply in 16 bits.
FULL_PRECISION = "full_precision_matrix_mult"


#: Shapes of a layer's stored tensors by suffix.
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor to write, known before its data."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class EncodedWeight:
    """The stored tensors of a weight.

    Attributes:
        tensors: by suffix of the layer name (``weight``, ``weight_scale``, ...).
        relative_error: ``||W - decode(encode(W))|| / ||W||`` (Frobenius norm); 0 for an all-zero
            weight, None if it was not measured.
    """

    tensors: Mapping[str, torch.Tensor]
    relative_error: float | None = None


class WeightFormat(ABC):
    """One way to store a layer's weight."""

    name: str
    #: Bits per weight including scales, for estimates.
    bits: float
    #: The content of ``<layer>.comfy_quant``; None if ComfyUI needs no marker.
    marker: Mapping[str, Any] | None = None
    #: Whether the native product rounds the layer's input (see `emulate_activations`).
    rounds_activations: bool = False
    #: ``input_scale = largest activation / activation_divisor``; None if ComfyUI does not use an
    #: ``input_scale``.
    activation_divisor: float | None = None
    #: How ComfyUI scales activations without a stored ``input_scale``; empty if it does not.
    runtime_scale: str = ""
    #: The first compute capability whose tensor cores multiply the format; None: no GPU does.
    native_from: tuple[int, int] | None = None
    #: The oldest torch that multiplies it natively; None: any supported torch.
    native_torch: tuple[int, int] | None = None
    #: Whether the native product needs comfy-kitchen's CUDA kernels. If not, torch has it.
    needs_kernels: bool = True
    #: Whether the native product takes 4-bit weights and 4-bit activations, the fastest one.
    multiplies_4_bits: bool = False
    #: Whether ComfyUI multiplies integers on every device, with general code where it has no
    #: kernels.
    multiplies_integers: bool = False
    #: Suffixes of stored tensors besides the weight that may hold negative numbers.
    signed: frozenset[str] = frozenset()
    #: The first ComfyUI that loads the format; None: every ComfyUI that this pack supports.
    needs_comfyui: tuple[int, int] | None = None
    #: Whether a layer stores a factor per input channel, by which ComfyUI multiplies its input.
    has_channel_scale: bool = False
    #: Kinds of layers that ComfyUI loads the format for.
    kinds: tuple[str, ...] = ("linear",)
    #: Whether a `ScaleRule` can improve on the max rule.
    has_scale_choice: bool = True
    #: The width must be a multiple of it for error feedback; None: the format has no `BlockGrid`.
    feedback_block: int | None = None
    #: Whether ComfyUI decodes the format in a bank of experts (see `ExpertBank`).
    loads_in_banks: bool = False
    #: The format that an expert gets instead if it has no static input scale, because this one's
    #: product fails on an input without tokens. Empty: the product does not fail.
    for_experts: str = ""
    #: Relative error (Frobenius norm) that no rounding exceeds. A larger error means that the file
    #: is damaged.
    error_bound: float = 0.0

    @property
    def is_quantized(self) -> bool:
        """Whether the format needs a marker in the checkpoint."""
        return self.marker is not None

    def marker_for(self, shape: tuple[int, ...]) -> Mapping[str, Any] | None:
        """Return the marker of a weight of this shape. Some formats adapt parameters to it."""
        return self.marker

    @property
    def is_full_precision(self) -> bool:
        """Whether the marker asks ComfyUI to multiply in 16 bits."""
        return is_full_precision(self.marker)

    def marker_bytes(self, shape: tuple[int, ...]) -> bytes:
        """Return the stored bytes of the marker of a weight of this shape; empty if it has none."""
        marker = self.marker_for(shape)
        return b"" if marker is None else json.dumps(marker).encode()

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return the format that decodes a layer with this marker.

        The result is the format itself, a copy with the marker's parameters, or None if the marker
        belongs to another format.

        Args:
            marker: the JSON object of the layer, see `marker_parameter`.
            shapes: shapes of the layer's stored tensors by suffix; empty if unknown.
        """
        same_product = self.is_full_precision == is_full_precision(marker)
        return self if same_product and self.is_named_by(marker) else None

    def is_named_by(self, marker: Mapping[str, Any]) -> bool:
        """Whether the ``format`` of a marker alone identifies this format's storage."""
        return self.marker is not None and self.marker.get("format") == marker.get("format")

    def stores_like(self, other: WeightFormat, shape: tuple[int, ...]) -> bool:
        """Whether both formats store a weight of this shape in the same way.

        The product that the marker asks for may differ.
        """
        mine, theirs = (
            {k: v for k, v in (f.marker_for(shape) or {}).items() if k != FULL_PRECISION}
            for f in (self, other)
        )
        specs = (f.tensor_specs(shape, torch.bfloat16) for f in (self, other))
        return mine == theirs and next(specs) == next(specs)

    def logical_shape(self, stored: tuple[int, int], rows: int | None) -> tuple[int, int]:
        """Return the shape of a weight, given the shape of its stored tensor.

        Args:
            stored: shape of ``<layer>.weight``.
            rows: number of rows of the layer, taken from its bias; None if unknown. Then padded
                rows count as rows.
        """
        return stored

    def native_note(self, capability: tuple[int, int]) -> str:
        """Return a note about the native product on such a GPU; empty if there is none."""
        return ""

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Return why this format cannot store a weight of this shape, or None if it can."""
        return None

    @abstractmethod
    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of the tensors that `encode` returns, by suffix."""

    @abstractmethod
    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode ``weight`` with the scales that ``rule`` chooses.

        Raises:
            FormatError: the weight holds NaN or Inf, or the format refuses its shape.
        """

    @abstractmethod
    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Decode stored tensors to the float32 weight of this shape, or to some of its rows."""

    def read_scale(self, suffix: str, stored: torch.Tensor) -> torch.Tensor:
        """Return the float32 values of stored scales, in any order."""
        return stored.float()

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Return the values that the native product uses for these activations.

        Does not wait for the device. Needs memory for the result and a few chunks.

        Args:
            activations: ``[tokens, in]`` in the dtype that the model runs in.
            input_scale: the stored static scale, or None for the runtime's own scale.
            dtype: dtype of the result; float32 holds the values exactly.
        """
        return activations.to(dtype)

    def nbytes(self, shape: tuple[int, ...], source_dtype: torch.dtype) -> int:
        """Return the stored bytes of a weight with its scales, without its marker."""
        return sum(spec.nbytes for spec in self.tensor_specs(shape, source_dtype).values())


def marker_parameter(marker: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a parameter of a marker. Like ComfyUI, also look for it under ``params``."""
    nested = marker.get("params")
    fallback = nested.get(name, default) if isinstance(nested, dict) else default
    return marker.get(name, fallback)


def is_full_precision(marker: Mapping[str, Any] | None) -> bool:
    """Whether a marker asks ComfyUI to multiply the layer in 16 bits."""
    return bool((marker or {}).get(FULL_PRECISION))


def safe_scale(amax: float, format_max: float) -> float:
    """Return ``amax / format_max`` in fp32, never subnormal; 1.0 if ``amax`` is zero."""
    if amax == 0:
        return 1.0
    scale = torch.tensor(amax, dtype=torch.float32) / torch.tensor(format_max)
    return max(float(scale), _SMALLEST_SCALE)


def roundup(value: int, multiple: int) -> int:
    """Return ``value`` rounded up to a multiple."""
    return -(-value // multiple) * multiple


def require_finite(amax: torch.Tensor) -> float:
    """Return the largest of the maxima over a weight; 0 if there are none.

    Raises:
        FormatError: the weight holds NaN or Inf.
    """
    largest = float(amax.max()) if amax.numel() else 0.0  # NaN stays NaN
    if not isfinite(largest):
        raise FormatError(
            "the weight holds NaN or Inf; the source file is damaged, or was saved in fp16 "
            "although its values do not fit fp16; start from an intact bf16 or fp32 file"
        )
    return largest


def relative_error(squares: Mapping[int, torch.Tensor]) -> float:
    """Return the relative error of a weight from ``[squared error, squared norm]`` of each chunk.

    The keys give the order of the sum, so it does not depend on which chunk finishes first.
    """
    if not squares:
        return 0.0
    error, norm = torch.stack([squares[key] for key in sorted(squares)]).sum(0).tolist()
    return (error / norm) ** 0.5 if norm > 0 else 0.0


def device_slices(values: torch.Tensor, columns: int | None = None) -> list[slice]:
    """Cut the rows of ``values`` ``[rows, ...]`` into chunks of a size that suits their device.

    ``columns`` is the number of values that a row takes while it is processed, if it is padded.
    """
    columns = prod(values.shape[1:]) if columns is None else columns
    if values.device.type == "cpu":
        return row_slices(values.shape[0], columns)
    return row_slices(values.shape[0], columns, _GPU_CHUNK_ELEMENTS)


def row_slices(rows: int, columns: int, elements: int = CHUNK_ELEMENTS) -> list[slice]:
    """Cut ``rows`` into slices of about ``elements`` values each."""
    step = max(1, elements // max(1, columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def tensor_amax(weight: torch.Tensor) -> torch.Tensor:
    """Return ``max |weight|``, 0-d float32, without a copy of the weight. NaN stays NaN."""
    if not weight.numel():
        return torch.zeros((), dtype=torch.float32, device=weight.device)
    low, high = torch.aminmax(weight)
    return torch.maximum(high, -low).float()
