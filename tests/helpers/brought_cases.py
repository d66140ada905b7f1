"""Files like those people bring that were once converted to silent nonsense, and what is right.

Every case is a file, or a few, of one model. Either its weights decode to those of the model, or
opening it is refused. The layouts are written by hand, without the package under test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .quantized_files import Tensors, comfyui_nvfp4, is_linear_in_block, modelopt, with_weights

E4M3 = torch.float8_e4m3fn
Encode = Callable[[torch.Tensor], Tensors]


@dataclass(frozen=True)
class Case:
    """One brought file.

    ``write`` gets a folder and the tensors of the model, and returns the path to open. ``refusal``
    holds words that the message of a refusal must have; empty if the file must decode. With
    ``either``, decoding is right too. ``changed`` makes the model of the case. ``meddle`` is called
    with the path during the conversion.
    """

    write: Callable[[Path, Tensors], Path]
    refusal: tuple[str, ...] = ()
    either: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    changed: Callable[[Tensors], Tensors] = lambda model: model
    meddle: Callable[[Path], None] = lambda path: None


def save(folder: Path, tensors: Tensors, name: str = "model.safetensors") -> Path:
    """Write tensors to one file of a folder."""
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    return folder / name


def _encoded(encode: Encode, marker: dict[str, Any] | None = None, **beside: torch.Tensor) -> Any:
    """Return the ``write`` of a file with every Linear of the blocks encoded."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        made = {f"{layer}{suffix}": tensor for suffix, tensor in encode(weight).items()}
        if marker is not None:
            made[f"{layer}.comfy_quant"] = torch.tensor(
                list(json.dumps(marker).encode()), dtype=torch.uint8
            )
        return made

    return lambda folder, model: save(folder, {**with_weights(model, quantize), **beside})


def _float8(suffix: str, *, inverse: bool = False) -> Encode:
    """One scale per tensor, named by ``suffix``; left out if that is empty."""

    def encode(weight: torch.Tensor) -> Tensors:
        scale = weight.abs().amax() / 448
        stored = {suffix: (1 / scale if inverse else scale).reshape(1)} if suffix else {}
        return {".weight": (weight / scale).to(E4M3), **stored}

    return encode


def _groups(size: int, name: str, dtype: torch.dtype = E4M3, *, keep_axis: bool = False) -> Encode:
    """One scale per row and group of columns."""

    def encode(weight: torch.Tensor) -> Tensors:
        top = 448 if dtype == E4M3 else 127
        groups = weight.reshape(len(weight), -1, size)
        scale = groups.abs().amax(2, keepdim=True) / top
        codes = groups / scale if dtype == E4M3 else (groups / scale).round()
        return {
            ".weight": codes.to(dtype).reshape(weight.shape),
            name: scale if keep_axis else scale.squeeze(2),
        }

    return encode


def _rows(dtype: torch.dtype) -> Encode:
    def encode(weight: torch.Tensor) -> Tensors:
        made = _groups(weight.shape[1], ".weight_scale", dtype)(weight)
        return made

    return encode


def _int8_blocks(weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    blocks = weight.reshape(rows // 128, 128, columns // 128, 128)
    scale = blocks.abs().amax((1, 3)) / 127
    codes = (blocks / scale[:, None, :, None]).round().to(torch.int8)
    return {".weight": codes.reshape(rows, columns), ".weight_scale": scale}


def _smoothed_nvfp4(model: Tensors) -> Tensors:
    """NVFP4 of ``W / s`` beside ``s``: the runtime multiplies the input by it."""
    generator = torch.Generator().manual_seed(3)
    smooth: dict[str, torch.Tensor] = {}
    scaled = dict(model)
    for name, tensor in model.items():
        if is_linear_in_block(name, tensor):
            factor = 2.0 ** torch.randint(-1, 2, (tensor.shape[1],), generator=generator)
            smooth[f"{name.removesuffix('.weight')}.pre_quant_scale"] = factor.to(torch.bfloat16)
            scaled[name] = tensor.float() / factor
    return {**comfyui_nvfp4(scaled), **smooth}


def _without_markers(model: Tensors) -> Tensors:
    return {n: t for n, t in comfyui_nvfp4(model).items() if not n.endswith(".comfy_quant")}


def _scales_in_a_second_file(folder: Path, model: Tensors) -> Path:
    scales = {
        name.removesuffix(".weight"): tensor.float().abs().amax().reshape(1) / 448
        for name, tensor in model.items()
        if is_linear_in_block(name, tensor)
    }
    save(folder, scales, "other_scales.safetensors")
    return _encoded(_float8(""))(folder, model)


def _shard(folder: Path, model: Tensors) -> Path:
    held = {n: t for n, t in model.items() if not n.startswith(("blocks.2.", "blocks.3."))}
    return save(folder, held, "model-00001-of-00002.safetensors")


def _without(*names: str) -> Callable[[Path, Tensors], Path]:
    return lambda folder, model: save(folder, {n: t for n, t in model.items() if n not in names})


def _named(rename: Callable[[str], str], **beside: torch.Tensor) -> Callable[[Path, Tensors], Path]:
    return lambda folder, model: save(
        folder, {**{rename(n): t for n, t in model.items()}, **beside}
    )


def _with_ema(folder: Path, model: Tensors) -> Path:
    """Averaged weights beside the trained ones; the former are zeros here."""
    averaged = {f"model_ema.{name}": torch.zeros_like(tensor) for name, tensor in model.items()}
    trained = {f"model.diffusion_model.{name}": tensor for name, tensor in model.items()}
    return save(folder, {**averaged, **trained})


def _text(name: str, text: str) -> Callable[[Path, Tensors], Path]:
    def write(folder: Path, model: Tensors) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return write


def _pickled(folder: Path, model: Tensors) -> Path:
    torch.save({"state_dict": model}, folder / "model.pt")
    return folder / "model.pt"


def _scaled(factor: float) -> Callable[[Tensors], Tensors]:
    """Return the model with one layer whose weights are near an end of the range of floats."""
    name = "blocks.1.ffn.0.weight"
    return lambda model: {**model, name: (model[name].float() * factor).to(model[name].dtype)}


def _overwrite(path: Path) -> None:
    """Write other values to the last bytes, in place, as a training script does."""
    with path.open("r+b") as file:
        file.seek(-64, 2)
        file.write(bytes(range(64)))


_NUL = torch.zeros(29, dtype=torch.uint8)
_MARKED_INT8 = {"format": "int8_tensorwise"}
_MARKED_E4M3 = {"format": "float8_e4m3fn"}

CASES: Mapping[str, Case] = {
    # NVFP4 without markers
    "nvfp4, markers lost": Case(
        lambda folder, model: save(folder, _without_markers(model)), ("layout",), either=True
    ),
    "nvfp4, markers lost, layout given": Case(
        lambda folder, model: save(folder, _without_markers(model)),
        options={"layout": "comfyui"},
    ),
    "ModelOpt": Case(lambda folder, model: save(folder, modelopt(model)), ("layout",), either=True),
    # 8-bit codes whose scales are elsewhere, or under another name
    "fp8, .scale": Case(_encoded(_float8(".scale")), ("scale",), either=True),
    "fp8, .fp8_scale": Case(_encoded(_float8(".fp8_scale")), ("fp8_scale",), either=True),
    "fp8, weight.scale": Case(_encoded(_float8(".weight.scale")), ("scale",), either=True),
    "fp8, inverse scale": Case(
        _encoded(_float8(".inv_scale", inverse=True)), ("inv_scale",), either=True
    ),
    "fp8, scales in a second file": Case(_scales_in_a_second_file, ("scale",), either=True),
    "fp8, scales lost": Case(_encoded(_float8("")), ("scale",)),
    # layouts of other tools
    "kohya, blocks": Case(
        _encoded(_groups(64, ".scale_weight", keep_axis=True), scaled_fp8=torch.zeros(2).to(E4M3))
    ),
    "float8_e4m3fn_rowwise": Case(_encoded(_rows(E4M3), {"format": "float8_e4m3fn_rowwise"})),
    "float8_e4m3fn by rows": Case(_encoded(_rows(E4M3), _MARKED_E4M3)),
    "float8_e4m3fn by groups": Case(
        _encoded(_groups(64, ".weight_scale", keep_axis=True), {**_MARKED_E4M3, "group_size": 64})
    ),
    "int8 marker without format": Case(
        _encoded(_rows(torch.int8), {"full_precision_matrix_mult": False})
    ),
    "int8 and an empty marker": Case(
        _encoded(_rows(torch.int8), _MARKED_INT8, **{"text_embedding.0.comfy_quant": _NUL})
    ),
    "int8_blockwise": Case(_encoded(_int8_blocks, {"format": "int8_blockwise", "group_size": 128})),
    "nvfp4 with pre_quant_scale": Case(lambda folder, model: save(folder, _smoothed_nvfp4(model))),
    # parts of a model
    "one shard of two": Case(_shard, ("model-00002-of-00002",)),
    "a block lacks a tensor": Case(
        _without("blocks.1.ffn.0.weight", "blocks.1.ffn.0.bias"), ("blocks.1.ffn.0",)
    ),
    "a block is missing": Case(
        lambda folder, model: save(
            folder, {n: t for n, t in model.items() if not n.startswith("blocks.2.")}
        ),
        ("blocks.2",),
    ),
    # prefixes
    **{
        f"prefix {prefix}": Case(_named(lambda name, prefix=prefix: prefix + name))
        for prefix in ("diffusion_model.", "transformer.", "_orig_mod.", "module.", "net.")
    },
    "prefix of most tensors": Case(
        _named(lambda name: f"net.{name}", **{"logvar.freqs": torch.ones(4)})
    ),
    "averaged weights beside": Case(_with_ema),
    # a source that another program writes at the same time
    "changed while it is read": Case(save, ("written to while it was read",), meddle=_overwrite),
    # weights at the ends of the range
    "weights near the largest float": Case(
        save, ("blocks.1.ffn.0",), either=True, changed=_scaled(2.0**126)
    ),
    "weights near the smallest float": Case(
        save, ("blocks.1.ffn.0",), either=True, changed=_scaled(2.0**-108)
    ),
    # no safetensors at all
    "a pickle": Case(_pickled),
    "a web page": Case(
        _text("model.safetensors", "<!doctype html><html><body>Not found</body></html>"),
        ("web page",),
    ),
    "a pointer": Case(
        _text("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("LFS",),
    ),
}
