"""Models as other tools quantize them, made without the package under test."""

from __future__ import annotations

import json
from collections.abc import Callable

import comfy_kitchen as ck
import torch

Tensors = dict[str, torch.Tensor]
#: What inputs the static scales in these files stand for.
INPUT_AMAX = 8.0


def is_linear_in_block(name: str, tensor: torch.Tensor) -> bool:
    """Whether makers of quantized files quantize this tensor."""
    in_block = name.startswith("blocks.") or "_blocks." in name
    is_linear = name.endswith(".weight") and tensor.dim() == 2
    return in_block and is_linear and all(size % 32 == 0 for size in tensor.shape)


def with_weights(
    model: Tensors, quantize: Callable[[str, torch.Tensor], Tensors], extra: Tensors | None = None
) -> Tensors:
    """Replace every Linear in the blocks by what ``quantize`` makes of layer name and weight."""
    made: Tensors = dict(extra or {})
    for name, tensor in model.items():
        if is_linear_in_block(name, tensor):
            made |= quantize(name.removesuffix(".weight"), tensor.float())
        else:
            made[name] = tensor
    return made


def _float8(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.abs().max() / torch.finfo(dtype).max
    return (weight / scale).to(dtype), scale.reshape(())


def scaled_fp8(
    model: Tensors, *, in_16_bits: bool = False, dtype: str = "float8_e4m3fn"
) -> Tensors:
    """As KJ's and ComfyUI's older files."""
    kind = getattr(torch, dtype)

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        codes, scale = _float8(weight, kind)
        inputs = torch.tensor(INPUT_AMAX / torch.finfo(kind).max)
        return {
            f"{layer}.weight": codes,
            f"{layer}.scale_weight": scale,
            f"{layer}.scale_input": torch.tensor(1.0) if in_16_bits else inputs,
        }

    marker = torch.zeros(2 if in_16_bits else 0).to(torch.float8_e4m3fn)
    return with_weights(model, quantize, {"scaled_fp8": marker})


def plain_fp8(model: Tensors) -> Tensors:
    """Every matrix cast, nothing scaled."""
    return {n: t.to(torch.float8_e4m3fn) if t.dim() == 2 else t for n, t in model.items()}


def comfyui(model: Tensors, layout: str, marker: dict[str, object], **arguments: object) -> Tensors:
    """As ComfyUI saves a layer of this layout of comfy-kitchen."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        quantized = ck.tensor.QuantizedTensor.from_float(weight, layout, **arguments)
        text = json.dumps(marker).encode()
        return {
            **quantized.state_dict(f"{layer}.weight"),
            f"{layer}.comfy_quant": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        }

    return with_weights(model, quantize)


def comfyui_nvfp4(model: Tensors) -> Tensors:
    """ComfyUI's NVFP4 with static input scales."""
    made = comfyui(model, "TensorCoreNVFP4Layout", {"format": "nvfp4"})
    layers = [n.removesuffix(".comfy_quant") for n in made if n.endswith(".comfy_quant")]
    return {**made, **{f"{la}.input_scale": torch.tensor(INPUT_AMAX / 2688) for la in layers}}


def comfyui_float8(model: Tensors) -> Tensors:
    """ComfyUI's float8, by markers."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        codes, scale = _float8(weight, torch.float8_e4m3fn)
        text = b'{"format": "float8_e4m3fn"}'
        return {
            f"{layer}.weight": codes,
            f"{layer}.weight_scale": scale,
            f"{layer}.comfy_quant": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        }

    return with_weights(model, quantize)


def _nvfp4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return codes with the even column in the low half, tiled block scales, tensor scale."""
    scale = weight.abs().max() / 2688
    codes, tiled = ck.quantize_nvfp4(weight, scale, pad_16x=False)
    return (codes << 4) | (codes >> 4), tiled, scale


def _linear(tiled: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    rows, blocks = weight.shape[0], weight.shape[1] // 16
    return ck.from_blocked(tiled.view(torch.uint8), rows, blocks).view(torch.float8_e4m3fn)


def modelopt(model: Tensors) -> Tensors:
    """NVIDIA ModelOpt's NVFP4."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        codes, tiled, scale = _nvfp4(weight)
        return {
            f"{layer}.weight": codes,
            f"{layer}.weight_scale": _linear(tiled, weight).contiguous(),
            f"{layer}.weight_scale_2": scale,
            f"{layer}.input_scale": torch.tensor(INPUT_AMAX / 2688),
        }

    return with_weights(model, quantize)


def compressed_tensors(model: Tensors) -> Tensors:
    """Hugging Face's compressed-tensors NVFP4: global scales divide."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        codes, tiled, scale = _nvfp4(weight)
        return {
            f"{layer}.weight_packed": codes,
            f"{layer}.weight_scale": _linear(tiled, weight).contiguous(),
            f"{layer}.weight_global_scale": (1 / scale).reshape(1),
            f"{layer}.input_global_scale": torch.tensor([2688 / INPUT_AMAX]),
        }

    return with_weights(model, quantize)


def lightx2v(model: Tensors, *, newer: bool = True) -> Tensors:
    """LightX2V's NVFP4, of its newer or older files."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        codes, tiled, scale = _nvfp4(weight)
        inputs = torch.tensor(2688 / INPUT_AMAX)
        newest = {f"{layer}.alpha": scale / inputs, f"{layer}.input_global_scale": inputs}
        oldest = {
            f"{layer}.weight_global_scale": 1 / scale,
            f"{layer}.input_absmax": torch.tensor(INPUT_AMAX),
        }
        return {
            f"{layer}.weight": codes,
            f"{layer}.weight_scale": tiled,
            **(newest if newer else oldest),
        }

    return with_weights(model, quantize)


def float8_rows(model: Tensors) -> Tensors:
    """Float8 with a scale per row, as LightX2V and vLLM's files."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        scale = weight.abs().amax(1, keepdim=True) / 448
        codes = (weight / scale).to(torch.float8_e4m3fn)
        return {f"{layer}.weight": codes, f"{layer}.weight_scale": scale}

    return with_weights(model, quantize)


def float8_blocks(model: Tensors) -> Tensors:
    """Float8 with a scale per 32 x 32 block, as DeepSeek's files (128 x 128 there)."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        rows, columns = weight.shape
        blocks = weight.reshape(rows // 32, 32, columns // 32, 32)
        scale = blocks.abs().amax((1, 3)) / 448
        codes = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        return {f"{layer}.weight": codes, f"{layer}.weight_scale_inv": scale}

    return with_weights(model, quantize)


def int8_rows(model: Tensors) -> Tensors:
    """Int8 with a scale per row and no marker."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        scale = weight.abs().amax(1, keepdim=True) / 127
        codes = (weight / scale).round().to(torch.int8)
        return {f"{layer}.weight": codes, f"{layer}.weight_scale": scale}

    return with_weights(model, quantize)


def comfyui_mxfp8(model: Tensors) -> Tensors:
    """ComfyUI's MXFP8."""
    return comfyui(model, "TensorCoreMXFP8Layout", {"format": "mxfp8"})


def comfyui_int8(model: Tensors, *, group: int = 64) -> Tensors:
    """ComfyUI's int8, rotated, with a group size in its marker."""
    marker = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": group}
    return comfyui(model, "TensorWiseINT8Layout", marker, per_channel=True, convrot=True,
                   convrot_groupsize=group)  # fmt: skip


#: By name; each makes a quantized file of an unquantized model.
MAKERS: dict[str, Callable[[Tensors], Tensors]] = {
    "scaled fp8": scaled_fp8,
    "scaled fp8 in 16 bits": lambda model: scaled_fp8(model, in_16_bits=True),
    "scaled fp8 e5m2": lambda model: scaled_fp8(model, dtype="float8_e5m2"),
    "plain fp8": plain_fp8,
    "ComfyUI float8": comfyui_float8,
    "ComfyUI nvfp4": comfyui_nvfp4,
    "ModelOpt": modelopt,
    "compressed-tensors": compressed_tensors,
    "LightX2V": lightx2v,
    "LightX2V, older": lambda model: lightx2v(model, newer=False),
    "float8 by rows": float8_rows,
    "float8 by blocks": float8_blocks,
    "int8 by rows": int8_rows,
    "ComfyUI mxfp8": comfyui_mxfp8,
    "ComfyUI int8": comfyui_int8,
    "ComfyUI int8, small groups": lambda model: comfyui_int8(model, group=16),
}
