"""Block scales of NVFP4: the max rule, and a search for the least squared error.

The max rule fits the whole range to a block's largest value. A scale that clips this value
slightly, or leaves room above it, often fits the other fifteen values better. On Gaussian and
Student-t weights, the search removes a fifth to a quarter of the squared error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .candidate_errors import STEPS, choose_steps
from .e2m1 import E2M1_MAX, round_to_e2m1
from .e4m3 import E4M3_MAX, decode_e4m3
from .rule import RoundInto

BLOCK = 16
#: The largest magnitude of NVFP4 with a tensor scale of one.
NVFP4_MAX = E2M1_MAX * E4M3_MAX
#: Divides a weight's amax if block scales are searched. The block with the largest value then has
#: a block scale of 256, which leaves room for larger scales up to 448.
SEARCH_DIVISOR = E2M1_MAX * 256.0

_FEW_BLOCKS = 1024
_LARGEST_CODE = 0x7E  # 448; 0x7F is NaN

#: Takes blocks ``[B, 16]``, their maxima float32 ``[B]`` and the tensor scale (0-d), and returns
#: one float8_e4m3fn scale per block ``[B]``.
BlockScales = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def max_block_scales(
    blocks: torch.Tensor, block_amax: torch.Tensor, tensor_scale: torch.Tensor
) -> torch.Tensor:
    """Return the scales of the max rule, ``e4m3(min(block_amax / 6 / tensor_scale, 448))``.

    The runtime does the same to activations. The order of operations is comfy-kitchen's.
    """
    # A tensor, because torch on a GPU divides by a Python number by multiplying with its
    # reciprocal, which rounds differently.
    largest = block_amax.new_full((), E2M1_MAX)
    scales = (block_amax / largest).div_(tensor_scale).clamp_(max=E4M3_MAX)
    return scales.to(torch.float8_e4m3fn)


def searched_block_scales(
    channel_weights: torch.Tensor | None, device: torch.device
) -> BlockScales:
    """Return a function that searches for the best scale of each block on a device.

    It tries ten E4M3 codes around the code of the max rule. ``channel_weights`` says how much the
    squared error of each channel counts, float32 ``[in]``.
    """
    padded = None if channel_weights is None else _padded(channel_weights.to(device))

    def search(
        blocks: torch.Tensor, block_amax: torch.Tensor, tensor_scale: torch.Tensor
    ) -> torch.Tensor:
        on_cpu = device.type == "cpu"
        if on_cpu and not bool(block_amax.any()):  # zeros are common, and the tables cannot tell
            return torch.zeros_like(block_amax, dtype=torch.float8_e4m3fn)
        # Squares of values near the ends of float32's range are zero or infinite. A power of two
        # changes no other bit.
        unit = torch.ldexp(torch.ones_like(tensor_scale), -torch.frexp(tensor_scale).exponent)
        magnitudes = blocks.float().abs().mul_(unit)
        weights = None if padded is None else padded.repeat(len(blocks) // len(padded), 1)
        start = max_block_scales(blocks, block_amax, tensor_scale).view(torch.uint8).int()
        choose = _looked_up if on_cpu else _tried
        best = choose(magnitudes, start, tensor_scale * unit, weights)
        return best.to(torch.uint8).view(torch.float8_e4m3fn)

    return search


def _looked_up(
    magnitudes: torch.Tensor,
    start: torch.Tensor,
    tensor_scale: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Return the same codes as `_tried`, from tables where these can tell."""
    step, unsure = choose_steps(magnitudes, start, _scale_of(start, tensor_scale), weights)
    best = start + step
    rest = unsure.nonzero().squeeze(1)
    few = None if weights is None else weights[rest]
    best[rest] = _tried(magnitudes[rest], start[rest], tensor_scale, few)
    return best


def _tried(
    magnitudes: torch.Tensor,
    start: torch.Tensor,
    tensor_scale: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Return the codes ``[B]`` of the least error, the first of equal ones, by trying each.

    Args:
        magnitudes: absolute values, float32 ``[B, 16]``.
        start: codes of the max rule, int32 ``[B]``.
        tensor_scale: 0-d float32, in the unit of the magnitudes.
        weights: how much each value counts, float32 ``[B, 16]``, or None.
    """
    codes = torch.stack(_codes_around(start))
    # A few blocks with all codes at once; of many, the buffers would not fit into a cache.
    together = len(codes) if len(start) <= _FEW_BLOCKS else 1
    errors = [
        _squared_errors(magnitudes, _scale_of(some, tensor_scale), weights)
        for some in codes.split(together)
    ]
    return codes.gather(0, torch.cat(errors).argmin(0, keepdim=True)).squeeze(0)


def _scale_of(codes: torch.Tensor, tensor_scale: torch.Tensor) -> torch.Tensor:
    """Return the scales of E4M3 codes of any integer dtype, float32."""
    return decode_e4m3(codes.to(torch.uint8).view(torch.float8_e4m3fn)).mul_(tensor_scale)


class NVFP4Grid:
    """The `BlockGrid` of NVFP4 for one tensor scale."""

    block = BLOCK
    group = 1

    def __init__(self, tensor_scale: torch.Tensor) -> None:
        """Use a tensor scale, 0-d float32."""
        self._tensor_scale = tensor_scale

    def candidates(self, block_amax: torch.Tensor) -> torch.Tensor:
        """Return ten codes around the code of the max rule."""
        start = max_block_scales(block_amax, block_amax, self._tensor_scale)
        return torch.stack(_codes_around(start.view(torch.uint8).int()), 1).to(torch.uint8)

    def rounding(self, codes: torch.Tensor) -> RoundInto:
        """Return what rounds values to E2M1 times these block scales and the tensor scale."""
        scale = decode_e4m3(codes.view(torch.float8_e4m3fn)).mul_(self._tensor_scale)
        divisor = scale.masked_fill(scale == 0, torch.inf)
        scratch = torch.empty_like(scale)

        def round_into(values: torch.Tensor, out: torch.Tensor) -> None:
            torch.div(values, divisor, out=out)
            round_to_e2m1(out, scratch)
            out.mul_(scale)

        return round_into


def _codes_around(start: torch.Tensor) -> list[torch.Tensor]:
    """Return the E4M3 codes to try around ``start``: ten integer tensors of its shape."""
    return [(start + step).clamp_(0, _LARGEST_CODE) for step in STEPS]


def _squared_errors(
    magnitudes: torch.Tensor, scales: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the squared errors ``[codes, B]`` of blocks ``[B, 16]`` with ``scales``."""
    # A zero scale stores zeros, so the error of every value is the value itself.
    values = magnitudes / scales.masked_fill(scales == 0, torch.inf).unsqueeze(-1)
    round_to_e2m1(values, torch.empty_like(values))
    values.mul_(scales.unsqueeze(-1)).sub_(magnitudes).square_()
    if weights is None:
        return values @ values.new_ones(BLOCK)
    return values.mul_(weights).sum(-1)


def _padded(weights: torch.Tensor) -> torch.Tensor:
    """Return channel weights in blocks ``[ceil(in / 16), 16]``; padding has weight zero."""
    missing = -len(weights) % BLOCK
    return torch.nn.functional.pad(weights, (0, missing)).view(-1, BLOCK)
