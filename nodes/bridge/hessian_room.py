"""Room on a GPU for the Hessians that a calibration collects beside the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch

from ...quant.calibration import CollectorSettings
from ...quant.errors import CalibrationError


class HessianRoom:
    """Memory that Hessians will take, held while ComfyUI loads the model.

    ComfyUI fills a GPU with as much of a model as is free at that time. What is released
    afterwards torch keeps for its next allocations.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: torch.Tensor | None = None

    @contextmanager
    def kept(self, settings: CollectorSettings) -> Iterator[None]:
        """Hold the budget for Hessians until `release`, or to the end; nothing on a CPU.

        Raises:
            CalibrationError: it is more than the GPU has.
        """
        device = comfy.model_management.get_torch_device()
        if settings.moments_budget_bytes and device.type == "cuda":
            self._take(settings.moments_budget_bytes, device)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Give it back."""
        self._held = None

    def _take(self, budget: int, device: torch.device) -> None:
        comfy.model_management.free_memory(budget, device)
        try:
            self._held = torch.empty(budget, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise CalibrationError(
                f"{device} has no {budget / 2**20:.0f} MB for Hessians; lower hessians_mb in "
                "Calibrate and sample more prompts instead"
            ) from error
