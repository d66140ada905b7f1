"""Check that a weight with extreme values, or a large error, decodes to the source.

The formats measure errors in units of their scales, where nothing overflows. Decoded values can
overflow or vanish all the same, if they are near the largest or the smallest float.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import FormatError
from ..formats import EncodedWeight, WeightFormat
from ..formats.base import row_slices, tensor_amax

# Weights outside of these limits are decoded and compared. Inside, scales are usual floats.
_LARGE, _SMALL = 2.0**100, 2.0**-26
# Errors are summed in another order than the bounds were measured.
_TOLERANCE = 1.0 + 2.0**-10


def with_values(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight unless it is empty, so that nothing of it can be quantized.

    Raises:
        FormatError: it has no rows or no columns.
    """
    if not weight.numel():
        raise FormatError(
            f"the weight is empty, its shape is {tuple(weight.shape)}; give this layer keep"
        )
    return weight


def require_decodes(
    weight: torch.Tensor | Mapping[str, torch.Tensor], encoded: EncodedWeight, fmt: WeightFormat
) -> None:
    """Check that a weight decodes to the source within the format's bound, where that is in doubt.

    The tensors of a source that has the format already are kept unchanged, so they are not checked.

    Raises:
        FormatError: it does not; the message says by how much.
    """
    if not isinstance(weight, torch.Tensor):
        return
    if weight.dim() < 2 or not weight.numel() or not _in_doubt(weight, encoded, fmt):
        return
    amax = float(tensor_amax(weight))
    error = _decoding_error(weight, encoded, fmt, amax)
    if error <= fmt.error_bound * _TOLERANCE:
        return
    what = "overflows" if error == float("inf") else f"differs from the source by {error:.1%}"
    raise FormatError(
        f"stored as {fmt.name}, the weight {what} when it is decoded (its largest value is "
        f"{amax:.4g}); give this layer another format: bf16, or keep"
    )


def _in_doubt(weight: torch.Tensor, encoded: EncodedWeight, fmt: WeightFormat) -> bool:
    if not fmt.is_quantized and encoded.tensors["weight"].dtype == weight.dtype:
        return False
    amax = float(tensor_amax(weight))
    extreme = amax > _LARGE or 0 < amax < _SMALL
    known = encoded.relative_error
    return extreme or (known is not None and not known <= fmt.error_bound)


def _decoding_error(
    weight: torch.Tensor, encoded: EncodedWeight, fmt: WeightFormat, amax: float
) -> float:
    """Return the relative error (Frobenius norm); infinite if values overflow."""
    shape = tuple(weight.shape)
    squared_error = squared_norm = 0.0
    for rows in row_slices(shape[0], weight[0].numel()):
        decoded = fmt.decode(encoded.tensors, shape, rows).double()
        if not bool(torch.isfinite(decoded).all()):
            return float("inf")
        wanted = weight[rows].double().div_(amax)
        squared_error += float(decoded.div_(amax).sub_(wanted).square_().sum())
        squared_norm += float(wanted.square_().sum())
    return (squared_error / squared_norm) ** 0.5 if squared_norm else 0.0
