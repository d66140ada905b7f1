"""E4M3: read float8_e4m3fn values."""

from __future__ import annotations

import torch

E4M3_MAX = 448.0

# The value that the bits of NaN would have as a number.
_NAN_AS_NUMBER = 480.0


def decode_e4m3(codes: torch.Tensor) -> torch.Tensor:
    """Return float8_e4m3fn values of any shape as float32. NaN stays NaN.

    On a CPU, torch converts float8 values one by one. Read as fp16, the same exponent and mantissa
    bits mean the value divided by 256, also for subnormals, and torch converts fp16 several times
    faster.
    """
    if codes.device.type != "cpu":
        return codes.float()
    bits = codes.contiguous().view(torch.int8).to(torch.int16)
    bits.bitwise_left_shift_(7).bitwise_and_(~0x4000)  # the sign was extended into bit 14
    values = bits.view(torch.float16).float().mul_(256.0)
    if values.numel() and float(torch.stack(torch.aminmax(values)).abs().max()) == _NAN_AS_NUMBER:
        values.masked_fill_(values.abs() == _NAN_AS_NUMBER, torch.nan)
    return values


def read_e4m3_scales(stored: torch.Tensor) -> torch.Tensor:
    """Return scales as float32. float8_e4m3fn scales of blocks may be stored as plain bytes."""
    is_bytes = stored.dtype == torch.uint8
    return (stored.view(torch.float8_e4m3fn) if is_bytes else stored).float()
