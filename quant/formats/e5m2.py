"""E5M2: read float8_e5m2 values."""

from __future__ import annotations

import torch

E5M2_MAX = 57344.0


def decode_e5m2(codes: torch.Tensor) -> torch.Tensor:
    """Return float8_e5m2 values of any shape as float32. E5M2 is the upper byte of fp16."""
    if codes.device.type != "cpu":
        return codes.float()
    bits = codes.contiguous().view(torch.int8).to(torch.int16).bitwise_left_shift_(8)
    return bits.view(torch.float16).float()
