"""Quantizes tiny text encoders of every family that ComfyUI loads quantized: ``python ... FOLDER``.

Writes ``FOLDER/result.json``. Lens is loaded with stock ComfyUI's loader, which takes GPT-OSS at
other sizes as an option. The loaders of the others are bound to their sizes, so ComfyUI's classes
are built at small ones and get the quantized tensors as the loader would give them. Runs in
ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

folder = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.text_encoders.gemma4 as gemma4  # noqa: E402
import comfy.text_encoders.gpt_oss as gpt_oss  # noqa: E402
import comfy.text_encoders.llama as llama  # noqa: E402
import comfy.text_encoders.qwen3vl as qwen3vl  # noqa: E402
import comfy.text_encoders.qwen35 as qwen35  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import_foundry()

from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.cli import main  # noqa: E402
from nvfp4_foundry.quant.sources import open_source  # noqa: E402

SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512,
}  # fmt: skip
VISUAL = ("visual.", "vision_model.", "audio_model.", "audio_projector.", "multi_modal_projector.")
RENAMED = {"model.language_model.": "model.", "model.visual.": "visual."}


@dataclass(frozen=True)
class Encoder:
    """A family: its class, what differs from `SMALL`, and prefixes that the loader replaces."""

    make: Callable[..., torch.nn.Module]
    config: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def build(self, operations: Any) -> torch.nn.Module:
        """Build it with these layers."""
        config = {k: v for k, v in {**SMALL, **self.config}.items() if v is not None}
        return self.make(config, torch.float32, "cpu", operations)


ENCODERS = {
    "qwen2.5": Encoder(llama.Qwen25_3B),
    "qwen3": Encoder(llama.Qwen3_06B),
    "qwen3 with a head": Encoder(llama.Qwen3_8B),
    "qwen3-vl": Encoder(qwen3vl.Qwen3VL, renamed=RENAMED),
    "qwen3.5": Encoder(
        qwen35.Qwen35, {"layer_types": ["linear_attention", "full_attention"] * 3}, RENAMED
    ),
    "gemma2": Encoder(llama.Gemma2_2B),
    "gemma3": Encoder(llama.Gemma3_4B),
    "gemma4": Encoder(gemma4.Gemma4_31B),
    "mistral3": Encoder(llama.Mistral3Small24B),
    "llama3": Encoder(llama.Llama2),
}
IDS = torch.arange(3, 20).unsqueeze(0)


def random(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return random weights, the same every time; those of towers for pictures are left out."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for name, meta in model.state_dict().items():
        if name.startswith(VISUAL):
            continue
        values = torch.randn(meta.shape, generator=generator)
        small = 0.1 * values
        is_norm = meta.dim() == 1 and name.endswith("weight")
        value = (
            1 + small if is_norm else small if meta.dim() == 1 else values / meta.shape[-1] ** 0.5
        )
        found[name] = value.to(torch.bfloat16)
    return found


def run(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Load tensors as ComfyUI's ``load_sd`` does, and return what a prompt becomes."""
    result = model.load_state_dict(dict(tensors), strict=False, assign=True)
    assert not [name for name in result.missing_keys if not name.startswith(VISUAL)], result
    assert not result.unexpected_keys, result
    embedding: Any = model.get_input_embeddings()
    embeds = embedding(IDS, out_dtype=torch.float32)
    mask = torch.ones_like(IDS)
    inputs = {"num_tokens": [IDS.shape[1]], "dtype": torch.float32, "embeds_info": []}
    return model(None, mask, embeds=embeds, intermediate_output=None, **inputs)[0].float()


def moved(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative difference."""
    return float((a - b).float().norm() / a.float().norm())


def worst(model: torch.nn.Module, original: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return the largest error of a weight per format, as ComfyUI's own modules decode it."""
    found: dict[str, float] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if f"{name}.weight" in original and weight is not None:
            fmt = getattr(module, "quant_format", None) or "none"
            plain = _decoded(module) if fmt != "none" else weight
            error = moved(original[f"{name}.weight"].float(), plain.float())
            found[fmt] = max(found.get(fmt, 0.0), error)
    return found


def _decoded(module: Any) -> torch.Tensor:
    """Return the weight as the module decodes it: of a bank, expert by expert."""
    if not hasattr(module, "expert_weight"):
        return module.weight.dequantize()
    experts = range(module.num_experts)
    return torch.stack([module.expert_weight(i).dequantize() for i in experts])


def try_encoder(name: str, encoder: Encoder, preset: str) -> dict[str, Any]:
    """Quantize a file of one family and load it into ComfyUI's class."""
    plain = encoder.build(comfy.ops.manual_cast)
    tensors = random(plain)
    source, target = folder / f"{name}.safetensors", folder / f"{name}-{preset}.safetensors"
    published = {_published(key, encoder): value for key, value in tensors.items()}
    save_file(published, source)
    code = main(["quantize", str(source), str(target), "--preset", preset, "--overwrite"])
    quantized = encoder.build(comfy.ops.mixed_precision_ops({}, torch.float32, True))
    before = run(plain, tensors)
    after = run(quantized, _as_loaded(load_file(target), encoder))
    expected = run(plain, _as_loaded(decoded(target), encoder))
    return {
        "exit_code": code,
        "problems": verify_checkpoint(target, source).problems,
        "errors": worst(quantized, tensors),
        "moved": moved(before, after),
        "off": moved(expected, after),
        "finite": bool(before.isfinite().all()),
    }


def decoded(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file with its quantized weights decoded by this pack."""
    with open_source(path) as source:
        return {name: source.load(name) for name in source.tensors}


def _as_loaded(tensors: dict[str, torch.Tensor], encoder: Encoder) -> dict[str, torch.Tensor]:
    """Rename tensors as ``load_text_encoder_state_dicts`` does: the head without its scales."""
    loaded = comfy.utils.state_dict_prefix_replace(dict(tensors), dict(encoder.renamed))
    if "lm_head.weight" in loaded:
        loaded["model.lm_head.weight"] = loaded.pop("lm_head.weight")
    return loaded


def _published(name: str, encoder: Encoder) -> str:
    if name == "model.lm_head.weight":
        return "lm_head.weight"
    for theirs, ours in encoder.renamed.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _tokenizer() -> torch.Tensor:
    """Return a tokenizer of a few words, as a tensor of Lens' file."""
    words = ["<unk>", "a", "at", "by", "color", "describe", "image", "lighthouse", "night"]
    vocab = {word: i for i, word in enumerate(words)}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    data = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
        "decoder": None, "model": model,
    }  # fmt: skip
    return torch.frombuffer(bytearray(json.dumps(data).encode()), dtype=torch.uint8)


LENS = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 6,
    "num_experts_per_tok": 2,
}  # fmt: skip


LENS_OPTIONS = {"gpt_oss_config": LENS, "selected_layers": (1, 3), "txt_offset": 0}


def load_lens(path: Path) -> Any:
    """Load as stock Load CLIP does, at this size."""
    return comfy.sd.load_clip([str(path)], model_options=LENS_OPTIONS)


def encode(clip: Any) -> torch.Tensor:
    """Return what a prompt becomes."""
    tokens = clip.tokenize("a lighthouse at night")
    return clip.encode_from_tokens(tokens, return_pooled=False).float()


def try_lens() -> dict[str, Any]:
    """Quantize GPT-OSS with its banks of experts in every format, and load it with ComfyUI."""
    place = {"device": "cpu", "dtype": torch.float32}
    ops = comfy.ops.mixed_precision_ops({}, torch.float32, True)
    model = gpt_oss.GptOssModel(gpt_oss.GptOss20BConfig(**LENS), ops=ops, **place)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if hasattr(module, "_orig_shape"):  # has no weight before one is loaded
            shapes[f"{name}.weight"] = torch.Size(module._orig_shape)
            shapes[f"{name}.bias"] = torch.Size(module._orig_shape[:-1])
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator) * 0.5
        value = 1 + 0.1 * values if "norm" in name else values / (shape[-1] ** 0.5 / 2)
        tensors[name] = (values if len(shape) == 1 and "norm" not in name else value).bfloat16()
    source = folder / "lens.safetensors"
    save_file({**tensors, "tokenizer_json": _tokenizer()}, source)
    plain = encode(load_lens(source))
    result: dict[str, Any] = {"finite": bool(plain.isfinite().all())}
    for fmt in ("nvfp4", "float8_e4m3fn", "mxfp8", "int8_rowwise", "int8_tensorwise"):
        target = folder / f"lens-{fmt}.safetensors"
        rules = ["--set", f"*.experts.*={fmt}", "--set", "*_proj=nvfp4_w4a16"]
        code = main(["quantize", str(source), str(target), "--preset", "all", *rules])
        clip = load_lens(target)
        plainly = comfy.sd.load_text_encoder_state_dicts(
            [decoded(target)], model_options=LENS_OPTIONS
        )
        with open_source(target) as again:  # a quantized bank is a source
            name = "layers.0.mlp.experts.gate_up_proj.weight"
            stored = again.stored_weight(name)
            again_moved = moved(tensors[name].float(), again.load(name))
        result[fmt] = {
            "exit_code": code,
            "problems": verify_checkpoint(target, source).problems,
            "errors": worst(clip.cond_stage_model.gpt_oss.transformer, tensors),
            "moved": moved(plain, encode(clip)),
            "off": moved(encode(plainly), encode(clip)),
            "decoded": again_moved,
            "kept_as": stored.kept_as if stored else "",
        }
    return result


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with torch.inference_mode():
        result = {
            name: {preset: try_encoder(name, encoder, preset) for preset in ("all", "auto")}
            for name, encoder in ENCODERS.items()
        }
        result["lens"] = try_lens()
    (folder / "result.json").write_text(json.dumps(result))
