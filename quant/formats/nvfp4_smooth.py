"""NVFP4 whose input is multiplied by a factor per channel before it is rounded.

The weight is divided by the same factors, so the layer computes the same. Where few channels are
loud, both can then be rounded with less error. ComfyUI stores the factors as ``pre_quant_scale``
(``forward`` of the quantized Linear in comfy/ops.py), as ModelOpt does for AWQ. The marker is that
of NVFP4, and a ComfyUI that does not know the factors ignores them without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from .base import EncodedWeight, TensorSpec, device_slices, relative_error
from .nvfp4 import NVFP4, PRE_QUANT_SCALE
from .parallel import share_chunks
from .rule import ScaleRule


class NVFP4Smooth(NVFP4):
    """NVFP4 with a factor per input channel. ComfyUI multiplies the input by it."""

    name = "nvfp4_smooth"
    needs_comfyui = (0, 33)
    loads_in_banks = False
    has_channel_scale = True

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of NVFP4 and that of the factors."""
        factors = TensorSpec((shape[1],), torch.float32)
        return {**super().tensor_specs(shape, source_dtype), PRE_QUANT_SCALE: factors}

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode ``weight`` ``[out, in]`` with factors of one."""
        encoded = super().encode(weight, rule, measure_error=measure_error)
        ones = torch.ones(weight.shape[1], device=weight.device)
        return EncodedWeight({**encoded.tensors, PRE_QUANT_SCALE: ones}, encoded.relative_error)

    def encode_smoothed(
        self,
        weight: torch.Tensor,
        factors: torch.Tensor,
        rule: ScaleRule,
        *,
        measure_error: bool = False,
    ) -> EncodedWeight:
        """Encode ``weight / factors``.

        Args:
            weight: ``[out, in]``, any float dtype.
            factors: float32 ``[in]``, positive. The runtime rounds them to the dtype of the input,
                so they should be bfloat16 numbers.
            rule: chooses the scales of the divided weight.
            measure_error: whether to measure the relative error of the weight itself.
        """
        factors = factors.to(weight.device)
        encoded = super().encode(weight.float() / factors, rule)
        tensors = {**encoded.tensors, PRE_QUANT_SCALE: factors}
        return EncodedWeight(tensors, self._error(tensors, weight) if measure_error else None)

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return the float32 values that multiply the input of the layer, factors included."""
        factors = tensors[PRE_QUANT_SCALE].float().reshape(-1)
        return super().decode(tensors, shape, rows).mul_(factors)

    def read_scale(self, suffix: str, stored: torch.Tensor) -> torch.Tensor:
        """Return the float32 values of scales, or of the factors."""
        return stored.float() if suffix == PRE_QUANT_SCALE else super().read_scale(suffix, stored)

    def _error(self, tensors: Mapping[str, torch.Tensor], weight: torch.Tensor) -> float:
        """Return the relative error (Frobenius norm) of stored tensors, decoded in chunks."""
        shape, squares = (weight.shape[0], weight.shape[1]), dict[int, torch.Tensor]()

        def loop(chunks: Iterable[slice]) -> None:
            for rows in chunks:
                wanted = weight[rows].double()
                error = self.decode(tensors, shape, rows).double().sub_(wanted)
                squares[rows.start] = torch.stack([error.square_().sum(), wanted.square_().sum()])

        share_chunks(loop, device_slices(weight), weight.device)
        return relative_error(squares)
