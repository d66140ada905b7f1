"""E4M3: reading float8_e4m3fn values."""

from __future__ import annotations

import torch

E4M3_MAX = 448.0

# What the bits of NaN would be worth if they were a number.
_NAN_AS_NUMBER = 480.0


def decode_e4m3(codes: torch.Tensor) -> torch.Tensor:
    """Return float8_e4m3fn values of any shape as float32, NaN as NaN.

    Torch converts them one by one on CPU. As fp16 bits the same exponent and mantissa mean the
    value over 256, subnormals included, and fp16 is converted several times faster.
    """
    if codes.device.type != "cpu":
        return codes.float()
    bits = codes.contiguous().view(torch.int8).to(torch.int16)
    bits.bitwise_left_shift_(7).bitwise_and_(~0x4000)  # the sign was extended into bit 14
    values = bits.view(torch.float16).float().mul_(256.0)
    if values.numel() and float(torch.stack(torch.aminmax(values)).abs().max()) == _NAN_AS_NUMBER:
        values.masked_fill_(values.abs() == _NAN_AS_NUMBER, torch.nan)
    return values
