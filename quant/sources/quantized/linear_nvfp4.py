"""Convert the NVFP4 layout of other tools to ComfyUI's layout without loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ...errors import SourceError
from ...formats import get_format
from ...formats.base import roundup
from ...formats.nvfp4_scales import BLOCK
from ...formats.tiles import tile
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .parts import total_bytes


@dataclass(frozen=True)
class LinearNVFP4:
    """The tensors of an NVFP4 weight.

    ``weight`` names uint8 codes ``[out, in / 2]``, with the even column in the low half of a byte.
    ``block_scale`` names float8_e4m3fn scales (or their bytes) ``[out, in / 16]``, in cuBLAS tiles
    if ``tiled``. ``tensor_scale`` reads the scale of the whole weight.
    """

    weight: str
    block_scale: str
    tensor_scale: Callable[[], float]
    tiled: bool = False


def stored_nvfp4(
    source: TensorSource,
    layout: LinearNVFP4,
    label: str,
    names: tuple[str, ...],
    input_amax: Callable[[], float | None],
) -> StoredWeight:
    """Describe a weight in such a layout.

    Raises:
        SourceError: the shapes of its tensors do not fit together.
    """
    fmt = get_format("nvfp4")
    packed = source.info(layout.weight)
    if len(packed.shape) != 2:
        raise SourceError(
            f"{source.description}: {layout.weight} is packed and has {len(packed.shape)} "
            "dimensions (a bank of experts?), but only 2-D weights can be decoded; start from the "
            "16-bit file"
        )
    rows, half = packed.shape
    shape = (rows, 2 * half)
    _require_scales(source, layout, shape)

    def tensors() -> dict[str, torch.Tensor]:
        return {
            "weight": _padded_codes(source.load(layout.weight)),
            "weight_scale": _tiled_scales(source.load(layout.block_scale), layout.tiled),
            "weight_scale_2": torch.tensor(layout.tensor_scale(), dtype=torch.float32),
        }

    return StoredWeight(
        label=label,
        shape=shape,
        names=names,
        nbytes=total_bytes(source, names),
        read=lambda: partial(fmt.decode, tensors(), shape),
        format=fmt,
        tensors=tensors,
        input_amax=input_amax,
        kept_as=fmt.name,
    )


def _require_scales(source: TensorSource, layout: LinearNVFP4, shape: tuple[int, int]) -> None:
    rows, columns = shape
    wanted = (rows, columns // BLOCK)
    if layout.tiled:
        wanted = (roundup(rows, 128), roundup(columns // BLOCK, 4))
    found = source.info(layout.block_scale)
    if columns % BLOCK or found.shape != wanted or found.dtype.itemsize != 1:
        raise SourceError(
            f"{source.description}: {layout.weight} {shape} needs one-byte block scales {wanted}, "
            f"but {layout.block_scale} is {found.dtype} {found.shape}; the file is damaged, or "
            "follows an unknown convention, so start from another version of the model"
        )


def _padded_codes(packed: torch.Tensor) -> torch.Tensor:
    """Return codes with the halves of each byte swapped and the rows padded to 16."""
    missing = roundup(packed.shape[0], BLOCK) - packed.shape[0]
    swapped = (packed << 4) | (packed >> 4)
    return torch.nn.functional.pad(swapped, (0, 0, 0, missing))


def _tiled_scales(scales: torch.Tensor, tiled: bool) -> torch.Tensor:
    scales = scales.view(torch.float8_e4m3fn)
    if tiled:
        return scales
    missing = roundup(scales.shape[0], BLOCK) - scales.shape[0]
    rows = torch.nn.functional.pad(scales.view(torch.uint8), (0, 0, 0, missing))
    return tile(rows.view(torch.float8_e4m3fn))
