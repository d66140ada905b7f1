"""The interface every storage format implements, and the values that cross it.

A format knows how one 2-D weight is stored: which tensors, of which shape and dtype, under which
marker, and how they decode. It does not choose scales: a `ScaleRule` does.
"""

from __future__ import annotations

import json
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
# Below this a decode scale is subnormal in fp32, and GPUs may flush it to zero.
_SMALLEST_SCALE = 2.0**-126
#: The key of a marker that asks ComfyUI to multiply in 16 bits.
FULL_PRECISION = "full_precision_matrix_mult"


#: Shapes of a layer's stored tensors by suffix.
Shapes = Mapping[str, tuple[int, ...]]


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


class BlockGrid(Protocol):
    """The values that a format with one scale per block of input channels can store."""

    @property
    def block(self) -> int:
        """Input channels per scale."""
        ...

    def candidates(self, block_amax: torch.Tensor) -> torch.Tensor:
        """Return the codes of the scales to try, uint8 ``[B, C]``, for maxima ``[B]`` float32."""
        ...

    def scales(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the float32 scales that codes stand for, in their shape."""
        ...

    def round_in_place(self, values: torch.Tensor, scratch: torch.Tensor) -> None:
        """Round float32 values, in units of their scale; ``scratch`` is like them."""
        ...


class ErrorFeedback(Protocol):
    """Rounds a weight so that channels make up for the errors of those rounded before."""

    def round_blocks(
        self, weight: torch.Tensor, grid: BlockGrid, *, rounded_input: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Round a weight to a grid.

        Args:
            weight: ``[out, in]``, any float dtype, ``in`` a multiple of the grid's block.
            grid: what can be stored.
            rounded_input: whether the runtime rounds the layer's activations too.

        Returns:
            float32 values ``[out, in]`` on the grid, uint8 codes of scales ``[out, in / block]``.
        """
        ...


class ScaleRule(Protocol):
    """How the numbers of a weight are chosen (implemented in ``rounding``).

    A rule knows no format. A format asks whether to search its scales, and by which weights of
    the channels, and offers its grid to error feedback if it has blocks.
    """

    name: str

    @property
    def searches(self) -> bool:
        """Whether scales are searched for the least squared error; if not, the max rule's."""
        ...

    @property
    def channel_weights(self) -> torch.Tensor | None:
        """How much the squared error of each channel counts, float32 ``[in]``; None: alike."""
        ...

    @property
    def feedback(self) -> ErrorFeedback | None:
        """What rounds with error feedback; None: every value goes to the nearest."""
        ...


class WeightFormat(ABC):
    """One way to store a layer's weight."""

    name: str
    #: Bits per weight including scales, for estimates.
    bits: float
    #: The content of ``<layer>.comfy_quant``; None for formats ComfyUI needs no marker for.
    marker: Mapping[str, Any] | None = None
    #: Whether the native product rounds the layer's input (see `emulate_activations`).
    rounds_activations: bool = False
    #: ``input_scale = largest activation / activation_divisor``; None where ComfyUI uses none.
    activation_divisor: float | None = None
    #: What ComfyUI scales activations by without a stored input_scale; empty: it does not.
    runtime_scale: str = ""
    #: The first compute capability whose tensor cores multiply the format; None: no GPU's do.
    native_from: tuple[int, int] | None = None
    #: The oldest torch that multiplies it there; None: any this pack runs on.
    native_torch: tuple[int, int] | None = None
    #: Whether the fast product is one of comfy-kitchen's CUDA kernels; torch has others itself.
    needs_kernels: bool = True
    #: Whether ComfyUI multiplies integers on every device, by general code without kernels.
    multiplies_integers: bool = False
    #: Kinds of layers ComfyUI loads the format for.
    kinds: tuple[str, ...] = ("linear",)
    #: Whether a `ScaleRule` has anything to choose: False where the max rule is as good as any.
    has_scale_choice: bool = True
    #: Input channels per block, for formats that offer a `BlockGrid`; None: no error feedback.
    feedback_block: int | None = None
    #: Relative Frobenius error (any weights, any sane rounding) above which a file is damaged.
    error_bound: float = 0.0

    @property
    def is_quantized(self) -> bool:
        """Whether the format needs a marker in the checkpoint."""
        return self.marker is not None

    def marker_for(self, shape: tuple[int, ...]) -> Mapping[str, Any] | None:
        """Return the marker of a weight of this shape: some formats fit parameters to it."""
        return self.marker

    @property
    def is_full_precision(self) -> bool:
        """Whether the marker asks ComfyUI to multiply in 16 bits."""
        return is_full_precision(self.marker)

    def marker_bytes(self, shape: tuple[int, ...]) -> bytes:
        """Return the marker of a weight of this shape as ComfyUI stores it; empty for none."""
        marker = self.marker_for(shape)
        return b"" if marker is None else json.dumps(marker).encode()

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return the format that decodes a layer with a marker; None if that is another one's.

        The format itself, or one like it with the parameters of the marker.

        Args:
            marker: the JSON object of the layer, see `marker_parameter`.
            shapes: of the layer's stored tensors by suffix; empty if they are not known.
        """
        same_product = self.is_full_precision == is_full_precision(marker)
        return self if same_product and self.is_named_by(marker) else None

    def is_named_by(self, marker: Mapping[str, Any]) -> bool:
        """Whether a marker's ``format`` alone means this format, whatever its product."""
        return self.marker is not None and self.marker.get("format") == marker.get("format")

    def stores_like(self, other: WeightFormat, shape: tuple[int, ...]) -> bool:
        """Whether both store a weight of this shape in the same tensors; its product aside."""
        mine, theirs = (
            {k: v for k, v in (f.marker_for(shape) or {}).items() if k != FULL_PRECISION}
            for f in (self, other)
        )
        specs = (f.tensor_specs(shape, torch.bfloat16) for f in (self, other))
        return mine == theirs and next(specs) == next(specs)

    def logical_shape(self, stored: tuple[int, int], rows: int | None) -> tuple[int, int]:
        """Return the shape of a weight from that of its stored tensor.

        Args:
            stored: shape of ``<layer>.weight``.
            rows: how many the layer is known to have (by its bias), None if it is not known.
                Without it, padding cannot be told from rows.
        """
        return stored

    def native_note(self, capability: tuple[int, int]) -> str:
        """Return what is special about the native product on such a GPU; empty: nothing."""
        return ""

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

    def read_scale(self, suffix: str, stored: torch.Tensor) -> torch.Tensor:
        """Return stored scales as the float32 numbers they stand for, in any order."""
        return stored.float()

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


def marker_parameter(marker: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a parameter of a marker; it may be nested under ``params``, as ComfyUI reads it."""
    nested = marker.get("params")
    fallback = nested.get(name, default) if isinstance(nested, dict) else default
    return marker.get(name, fallback)


def is_full_precision(marker: Mapping[str, Any] | None) -> bool:
    """Whether a marker asks ComfyUI to multiply the layer in 16 bits."""
    return bool((marker or {}).get(FULL_PRECISION))


def safe_scale(amax: float, format_max: float) -> float:
    """Return ``amax / format_max`` in fp32, never subnormal; 1.0 for an ``amax`` of zero."""
    if amax == 0:
        return 1.0
    scale = torch.tensor(amax, dtype=torch.float32) / torch.tensor(format_max)
    return max(float(scale), _SMALLEST_SCALE)


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
