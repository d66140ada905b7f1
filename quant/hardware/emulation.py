"""Emulate a GPU that multiplies the stored formats natively, on any machine.

Such a GPU rounds the input of a quantized layer to the format of its weight. Other GPUs decode the
weight and multiply in 16 bits. If hooks round the inputs, that product equals the native one except
for the order of summation and one more rounding of the inputs to 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch

from ..errors import CheckpointError
from ..formats import WeightFormat
from ..formats.base import is_full_precision
from ..formats.nvfp4 import PRE_QUANT_SCALE
from ..layer_names import module_name
from ..sources import TensorSource
from ..sources.stored_layers import INPUT_SCALE, read_layout


@dataclass(frozen=True)
class InputRounding:
    """How the native product of a layer rounds its input.

    ``input_scale`` is the static scale of the checkpoint; None for the runtime's own. ``factors``
    float32 [in] multiply the input first; None: there are none.
    """

    format: WeightFormat
    input_scale: float | None
    factors: torch.Tensor | None = None

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` [..., in] rounded, in its own dtype.

        What was rounded is divided by the factors again, because the layer multiplies by them.
        """
        rows = x.reshape(-1, x.shape[-1])
        if self.factors is not None:
            factors = self.factors.to(x.device)
            rows = rows * factors.to(x.dtype)
            rounded = self.format.emulate_activations(rows, self.input_scale)
            return rounded.div_(factors).to(x.dtype).reshape(x.shape)
        return self.format.emulate_activations(rows, self.input_scale, x.dtype).reshape(x.shape)


def read_input_roundings(checkpoint: TensorSource) -> dict[str, InputRounding]:
    """Return how native hardware rounds the inputs of a checkpoint's layers, by layer name.

    Layers that every GPU multiplies in 16 bits have no entry: unquantized layers, layers whose
    marker sets ``full_precision_matrix_mult``, and layers in unknown formats.

    Raises:
        CheckpointError: a marker is damaged.
    """
    roundings = {}
    for name, layer in read_layout(checkpoint).items():
        fmt, marker = layer.format, layer.marker
        if fmt is None or not fmt.rounds_activations or is_full_precision(marker):
            continue
        info = layer.tensors.get(INPUT_SCALE)
        scale = float(checkpoint.load(info.name)) if info else None
        factors = layer.tensors.get(PRE_QUANT_SCALE) if fmt.has_channel_scale else None
        loaded = checkpoint.load(factors.name).float().reshape(-1) if factors else None
        roundings[name] = InputRounding(fmt, scale, loaded)
    return roundings


def emulated_layers(
    root: torch.nn.Module, roundings: Mapping[str, InputRounding]
) -> dict[str, torch.nn.Module]:
    """Return the layers of a module tree whose inputs this machine does not round natively.

    ComfyUI marks them by ``_full_precision_mm``. Modules without it count as not rounding.

    Raises:
        CheckpointError: the tree lacks a layer of the checkpoint.
    """
    modules = {module_name(name): module for name, module in root.named_modules()}
    missing = [name for name in roundings if name not in modules]
    if missing:
        raise CheckpointError(
            f"the model has no layer {missing[0]} ({len(missing)} of {len(roundings)} layers of "
            "the checkpoint are missing), so the native product cannot be emulated; use the "
            "checkpoint of this model"
        )
    found = {name: modules[name] for name in roundings}
    return {n: m for n, m in found.items() if getattr(m, "_full_precision_mm", True)}


@contextmanager
def emulate_native_product(
    root: torch.nn.Module, roundings: Mapping[str, InputRounding]
) -> Iterator[None]:
    """Round the inputs of the layers as native hardware does; stop however the block ends.

    Hooks registered before see the unrounded inputs, so a calibration is not disturbed.

    Raises:
        CheckpointError: the tree lacks a layer of the checkpoint.
    """
    handles = []
    try:
        for name, module in emulated_layers(root, roundings).items():
            hook = _hook(roundings[name])
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(rounding: InputRounding) -> Callable[..., Any]:
    def round_input(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else kwargs.get("input")
        if not is_rounded_natively(x):
            return None
        rounded = rounding.apply(x)
        return ((rounded, *args[1:]), kwargs) if args else (args, {**kwargs, "input": rounded})

    return round_input


def is_rounded_natively(x: Any) -> TypeGuard[torch.Tensor]:
    """Return whether ComfyUI would quantize this input: plain floats, one token per row."""
    is_plain = type(x) in (torch.Tensor, torch.nn.Parameter)
    return is_plain and x.is_floating_point() and x.ndim >= 2 and x.numel() > 0
