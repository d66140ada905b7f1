"""Quantizes tiny text encoders, in a CLIP and as files: ``python ... FOLDER``.

Writes ``FOLDER/result.json``. ComfyUI knows text encoders by name, with fixed sizes, but its loader
takes other sizes as an option: everything else here is as for the real ones. Runs in ComfyUI's
Python with ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

folder = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.clip_model  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.text_encoders.llama  # noqa: E402
import comfy.text_encoders.t5  # noqa: E402
import torch  # noqa: E402
from comfy.weight_adapter import LoRAAdapter  # noqa: E402
from comfy_execution.graph_utils import ExecutionBlocker  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import_foundry()

from nvfp4_foundry.nodes.bridge.text_encoder_source import (  # noqa: E402
    TextEncoderSource,
    clip_from_checkpoint,
)
from nvfp4_foundry.nodes.conversion.quantize_model import QuantizeModel  # noqa: E402
from nvfp4_foundry.nodes.planning.plan_layers import PlanLayers  # noqa: E402
from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.cli import main  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import quantize_to_memory  # noqa: E402
from nvfp4_foundry.quant.errors import FoundryError  # noqa: E402
from nvfp4_foundry.quant.formats import get_format  # noqa: E402
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory  # noqa: E402

AS_HERE = "as this machine runs it"
T5 = {
    "d_ff": 10240, "d_kv": 16, "d_model": 64, "num_heads": 4, "num_layers": 24, "vocab_size": 32128,
    "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "t5",
}  # fmt: skip
UMT5 = T5 | {"model_type": "umt5", "vocab_size": 256}
QWEN = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "vocab_size": 152064,
}  # fmt: skip
# The first two layers of the real one: ComfyUI takes other widths for another CLIP.
CLIP_L = {
    "num_hidden_layers": 2, "hidden_size": 768, "intermediate_size": 3072,
    "num_attention_heads": 12, "hidden_act": "quick_gelu", "eos_token_id": 49407,
    "vocab_size": 49408, "max_position_embeddings": 77,
}  # fmt: skip


@dataclass(frozen=True)
class Encoder:
    """A tiny text encoder: its configuration, what ComfyUI calls it and the type to load it as."""

    config: dict[str, Any]
    name: str
    clip_type: comfy.sd.CLIPType
    preset: str

    @property
    def options(self) -> dict[str, Any]:
        """What makes ComfyUI's loader build it at this size."""
        return {f"{self.name}_model_config": self.config}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Random weights, the same every time."""
        place = ("meta", comfy.ops.manual_cast)
        if self.name == "qwen25_7b":
            model = comfy.text_encoders.llama.Qwen25_7BVLI(self.config, torch.float32, *place)
        else:
            model = comfy.text_encoders.t5.T5(self.config, torch.float32, *place)
        generator = torch.Generator().manual_seed(1)
        found = {}
        for name, meta in model.state_dict().items():
            if name.startswith("visual."):
                continue  # 32 blocks of fixed size; not read by a prompt without pictures
            values = torch.randn(meta.shape, generator=generator)
            is_norm = meta.dim() == 1 and name.endswith("weight")
            scale = 1.0 if meta.dim() == 1 else meta.shape[-1] ** -0.5
            scale *= 0.1 if name.endswith("SelfAttention.q.weight") else 1  # T5 does not divide
            found[name] = (1 + 0.1 * values if is_norm else values * scale).to(torch.bfloat16)
        return found


ENCODERS = {
    "t5-xxl": Encoder(T5, "t5xxl", comfy.sd.CLIPType.LTXV, "t5-xxl"),
    "qwen2.5-vl": Encoder(QWEN, "qwen25_7b", comfy.sd.CLIPType.QWEN_IMAGE, "qwen2.5-vl"),
}


def load(path: Path, encoder: Encoder) -> Any:
    """Load as stock Load CLIP does, at this size."""
    return comfy.sd.load_clip(
        [str(path)], clip_type=encoder.clip_type, model_options=encoder.options
    )


def encode(clip: Any) -> torch.Tensor:
    """Return what a prompt becomes."""
    result = clip.encode_from_tokens(clip.tokenize("a lighthouse at night"), return_pooled=False)
    return (result[0] if isinstance(result, tuple) else result).float()


def formats(clip: Any, encoder: Encoder) -> dict[str, str]:
    """Return the formats of the Linears ComfyUI keeps quantized, and check how they multiply."""
    found = {}
    for name, module in getattr(clip.cond_stage_model, encoder.name).transformer.named_modules():
        fmt = getattr(module, "quant_format", None)
        if fmt is not None and type(module.weight).__name__ == "QuantizedTensor":
            assert module._full_precision_mm, name  # nothing to calibrate
            found[name] = f"{fmt}_w4a16" if module._full_precision_mm_config else fmt
    return found


def moved(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative difference."""
    return float((a - b).norm() / a.norm())


@torch.inference_mode()
def try_encoder(name: str, encoder: Encoder) -> dict[str, Any]:
    """Quantize through the CLIP socket and as a file; both must be the same and load."""
    path = folder / f"{name}.safetensors"
    save_file(encoder.tensors(), path)
    clip = load(path, encoder)
    plain = encode(clip)
    recipe = get_preset(encoder.preset).build()
    plan, table, _ = PlanLayers.execute(clip, recipe, False).args
    preview, checkpoint, report = QuantizeModel.execute(clip, plan, AS_HERE).args
    with TextEncoderSource(clip) as source:
        read_from = [str(part) for part in source.paths]
    saved, from_file = folder / f"{name}-a.safetensors", folder / f"{name}-b.safetensors"
    replace(checkpoint, made=None).write(saved, overwrite=False)  # layer by layer
    code = main(["quantize", str(path), str(from_file), "--preset", "auto"])
    assert verify_checkpoint(saved, path).problems == ()
    a, b = load_file(saved), load_file(from_file)
    loaded = load(saved, encoder)
    with TextEncoderSource(loaded) as again:  # its layers are taken over, if the plan asks for that
        taken = [la for la in plan.quantized() if _is_taken_over(again, la.name, la.format)]
    return {
        "architecture": plan.architecture.id,
        "warnings": plan.warnings,
        "read_from": read_from == [str(path)],
        "exit_code": code,
        "same": a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a),
        "planned": {la.name: la.format for la in plan.quantized()},
        "loaded": formats(loaded, encoder),
        "finite": bool(plain.isfinite().all()),
        "moved": moved(plain, encode(loaded)),
        "preview": moved(encode(loaded), encode(preview)),
        "taken_over": len(taken) == len(plan.quantized()),
        "report": report,
        "table": table,
    }


def _is_taken_over(source: TextEncoderSource, layer: str, fmt: str) -> bool:
    stored = source.stored_weight(f"{layer}.weight")
    return stored is not None and stored.fits(get_format(fmt))


@torch.inference_mode()
def try_pair() -> dict[str, Any]:
    """Quantize the T5 of a CLIP with two encoders, one layer of it changed by a LoRA."""
    encoder = ENCODERS["t5-xxl"]
    small = comfy.clip_model.CLIPTextModel(CLIP_L, torch.bfloat16, "cpu", comfy.ops.manual_cast)
    clip_path = folder / "clip_l.safetensors"
    save_file({k: torch.zeros_like(v) for k, v in small.state_dict().items()}, clip_path)
    paths = [clip_path, folder / "t5-xxl.safetensors"]
    clip = comfy.sd.load_clip(
        [str(path) for path in paths], clip_type=comfy.sd.CLIPType.FLUX,
        model_options=encoder.options,
    )  # fmt: skip
    layer = "encoder.block.3.layer.0.SelfAttention.q"
    down, up = torch.randn(2, 64), torch.randn(64, 2)
    adapter = LoRAAdapter(set(), (up, down, 2.0, None, None, None))
    clip.add_patches({f"t5xxl.transformer.{layer}.weight": adapter}, 0.5)
    with TextEncoderSource(clip, "t5xxl") as source:
        weight = source.load(f"{layer}.weight")
        notes = source.notes
        plan = make_plan(get_preset("t5-xxl").build(), take_inventory(source))
        preview = clip_from_checkpoint(quantize_to_memory(source, plan), source, clip)
    with TextEncoderSource(clip) as source:
        largest = source.encoder
    expected = load_file(paths[1])[f"{layer}.weight"].float() + 0.5 * (up @ down)
    errors = []
    for name in ("clip_l", "llama"):  # ComfyUI quantizes no CLIP; there is no Llama
        try:
            with TextEncoderSource(clip, name) as source:
                make_plan(get_preset("smart").build(), take_inventory(source))
        except FoundryError as error:
            errors.append(str(error))
    return {
        "largest": largest,
        "merged": moved(expected, weight),
        "notes": notes,
        "quantized": len(formats(preview, encoder)) == len(plan.quantized()),
        "finite": bool(encode(preview).isfinite().all()),
        "errors": errors,
    }


@torch.inference_mode()
def try_without_files() -> dict[str, Any]:
    """Quantize the T5 of a CLIP as Load Checkpoint gives it: no text encoder file is known."""
    encoder, path = ENCODERS["t5-xxl"], folder / "t5-xxl.safetensors"
    clip = load(path, encoder)
    origin = (comfy.sd.load_checkpoint_clip_patcher, (str(path), None, {}, {}))
    clip.patcher.cached_patcher_init = origin
    plan, table, _ = PlanLayers.execute(clip, get_preset("t5-xxl").build(), False).args
    preview, checkpoint, _ = QuantizeModel.execute(clip, plan, AS_HERE).args
    saved = folder / "t5-xxl-from-memory.safetensors"
    checkpoint.write(saved, overwrite=False)
    with_file = load_file(folder / "t5-xxl-a.safetensors")
    return {
        "from_memory": "weights are read from memory" in table,
        "blocked": preview.message if isinstance(preview, ExecutionBlocker) else "",
        "problems": verify_checkpoint(saved).problems,
        "all_loaded": len(formats(load(saved, encoder), encoder)) == len(plan.quantized()),
        "same_weights": all(
            torch.equal(with_file[name], tensor)
            for name, tensor in load_file(saved).items()
            if name.endswith((".weight", ".weight_scale"))
        ),
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    result = {name: try_encoder(name, encoder) for name, encoder in ENCODERS.items()}
    result["pair"] = try_pair()
    result["without files"] = try_without_files()
    (folder / "result.json").write_text(json.dumps(result))
