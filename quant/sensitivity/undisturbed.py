"""Compute a result again without anything else that changes it: no dropout, equal random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import CalibrationError


def require_no_dropout(root: nn.Module) -> None:
    for name, module in root.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p:
            raise CalibrationError(
                f"{name} drops values at random, which would look like sensitivity; put the model "
                "into evaluation mode (model.eval())"
            )


@contextmanager
def same_random_state(device: torch.device) -> Iterator[None]:
    """Restore torch's random state on the CPU and on a device when the block ends."""
    is_gpu = device.type in ("cuda", "xpu")
    devices = [device.index] if is_gpu else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if is_gpu else "cuda"):
        yield
