"""GPU memory for the Hessians that a calibration collects beside the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch

from ...quant.calibration import CollectorSettings
from ...quant.errors import CalibrationError


class HessianRoom:
    """Reserves memory for Hessians while ComfyUI loads the model.

    ComfyUI fills the free memory of a GPU with as much of a model as fits. Memory that is released
    afterwards stays with torch for its next allocations.
    """

    def __init__(self) -> None:
        """Reserve nothing yet."""
        self._held: torch.Tensor | None = None

    @contextmanager
    def kept(self, settings: CollectorSettings) -> Iterator[None]:
        """Reserve the budget for Hessians until `release` or the end; does nothing on a CPU.

        Raises:
            CalibrationError: the GPU has less memory than the budget.
        """
        device = comfy.model_management.get_torch_device()
        if settings.moments_budget_bytes and device.type == "cuda":
            self._take(settings.moments_budget_bytes, device)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Release the reserved memory."""
        self._held = None

    def _take(self, budget: int, device: torch.device) -> None:
        comfy.model_management.free_memory(budget, device)
        try:
            self._held = torch.empty(budget, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise CalibrationError(
                f"{device} does not have {budget / 2**20:.0f} MB for Hessians; lower hessians_mb "
                "in Calibrate and sample more prompts instead"
            ) from error
