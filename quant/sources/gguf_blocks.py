"""Decode the common block types of GGUF with torch, several times faster than the gguf package.

The values are the package's, bit for bit: the same products and differences in float32. Layouts:
https://github.com/ggml-org/ggml, src/ggml-common.h. Other types are left to the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

#: Takes blocks, uint8 ``[blocks, bytes]``, and returns float32 ``[blocks, values]``.
Decoder = Callable[[torch.Tensor], torch.Tensor]


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    """32 values: a float16 scale, 32 signed bytes."""
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    """32 values: a float16 scale, 16 bytes of two values each, in units from -8."""
    packed = blocks[:, 2:]
    values = torch.empty(len(blocks), 2, 16)
    values[:, 0], values[:, 1] = packed & 0x0F, packed >> 4
    return values.view(len(blocks), 32).sub_(8.0).mul_(_half(blocks, 0))


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    """256 values: scales of scales and of minima, 8 six-bit pairs, 128 bytes of two values."""
    return _with_minima(blocks, _nibbles(blocks[:, 16:]))


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    """As ``Q4_K``, with 32 bytes that hold a fifth bit for each of the eight groups."""
    values = _nibbles(blocks[:, 48:])
    bits = blocks[:, 16:48]
    for group in range(8):
        fifth = (bits >> group if group else bits) & 1
        values[:, group].add_(fifth, alpha=16)
    return _with_minima(blocks, values)


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    """256 values: 128 bytes of low nibbles, 64 of high bit pairs, 16 scales, a float16 scale."""
    low = blocks[:, :128].reshape(-1, 2, 64)
    high = blocks[:, 128:192].reshape(-1, 2, 32)
    values = torch.empty(len(blocks), 2, 4, 32)
    values[:, :, :2] = (low & 0x0F).view(-1, 2, 2, 32)
    values[:, :, 2:] = (low >> 4).view(-1, 2, 2, 32)
    for pair in range(4):
        values[:, :, pair].add_((high >> 2 * pair) & 3, alpha=16)
    scales = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8).float()
    return values.view(-1, 16, 16).sub_(32.0).mul_(scales.unsqueeze(2)).view(-1, 256)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Return float32 ``[blocks, 8, 32]`` of 4 groups of 32 bytes: low nibbles, then high ones."""
    packed = packed.reshape(-1, 4, 32)
    values = torch.empty(len(packed), 4, 2, 32)
    values[:, :, 0], values[:, :, 1] = packed & 0x0F, packed >> 4
    return values.view(-1, 8, 32)


def _with_minima(blocks: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return ``values * scale - minimum`` by the scales of ``Q4_K`` and ``Q5_K``."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat([first & 0x3F, (third & 0x0F) | ((first >> 2) & 0x30)], 1)
    minima = torch.cat([second & 0x3F, (third >> 4) | ((second >> 2) & 0x30)], 1)
    scale = _half(blocks, 0) * scales.float()
    minimum = _half(blocks, 2) * minima.float()
    return values.mul_(scale.unsqueeze(2)).sub_(minimum.unsqueeze(2)).view(-1, 256)


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """Return the float16 number at a byte of each block as float32 ``[blocks, 1]``."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


#: The types decoded here, by their name in the gguf package.
DECODERS: Mapping[str, Decoder] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
