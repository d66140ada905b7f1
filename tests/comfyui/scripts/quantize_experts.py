"""Quantizes a tiny HiDream, whose experts have a gate that is no Linear: ``python ... FOLDER``.

Writes ``FOLDER/result.json``. ComfyUI knows HiDream at one size; its detection is told another
here, and everything else is as for the real one. The last expert of every block never gets a token.
Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

folder = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ldm.hidream.model as hidream  # noqa: E402
import comfy.model_detection  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from foundry_package import import_foundry, take_tiny_models_for_whole  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import_foundry()
take_tiny_models_for_whole()

from nvfp4_foundry.nodes.bridge.model_source import ModelSource  # noqa: E402
from nvfp4_foundry.nodes.bridge.models import model_from_checkpoint  # noqa: E402
from nvfp4_foundry.quant.calibration import ActivationCollector  # noqa: E402
from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import (  # noqa: E402
    convert,
    quantize_to_memory,
    save_model,
)
from nvfp4_foundry.quant.errors import FoundryError  # noqa: E402
from nvfp4_foundry.quant.planning import (  # noqa: E402
    Recipe,
    get_preset,
    make_plan,
    take_inventory,
)
from nvfp4_foundry.quant.planning.recipe import USER_RULE, Rule  # noqa: E402
from nvfp4_foundry.quant.sources import open_source  # noqa: E402

SIZES = {
    "image_model": "hidream", "attention_head_dim": 128, "axes_dims_rope": [64, 32, 32],
    "caption_channels": [64, 64], "max_resolution": [128, 128], "in_channels": 16,
    "llama_layers": [0, 1], "num_attention_heads": 2, "num_routed_experts": 5,
    "num_activated_experts": 2, "num_layers": 1, "num_single_layers": 1, "out_channels": 16,
    "patch_size": 2, "text_emb_dim": 64,
}  # fmt: skip
SOURCE = folder / "hidream.safetensors"


def tensors() -> dict[str, torch.Tensor]:
    """Random weights. Two of the first four experts always get a token before the last does."""
    place = {"device": "meta", "dtype": torch.float32, "operations": comfy.ops.manual_cast}
    generator = torch.Generator().manual_seed(1)
    found = {}
    for name, meta in hidream.HiDreamImageTransformer2DModel(**SIZES, **place).state_dict().items():
        values = torch.randn(meta.shape, generator=generator)
        is_norm = meta.dim() == 1 and name.endswith("weight")
        found[name] = 1 + 0.1 * values if is_norm else values * 0.7 / meta.shape[-1] ** 0.5
        if name.endswith(".gate.weight"):
            a, b = values[:2]
            found[name] = torch.stack([a, -a, b, -b, torch.zeros_like(a)])
    return {name: value.to(torch.bfloat16) for name, value in found.items()}


@contextmanager
def small(native: bool = False) -> Iterator[None]:
    """Make ComfyUI build HiDream at this size, and multiply NVFP4 as a native GPU asks it to."""
    detect = comfy.model_detection.detect_unet_config

    def sizes(state_dict: Any, prefix: str, metadata: Any = None) -> Any:
        found = detect(state_dict, prefix, metadata=metadata)
        return {**found, **SIZES} if found and found["image_model"] == "hidream" else found

    with (
        mock.patch.object(comfy.model_detection, "detect_unet_config", sizes),
        mock.patch.object(
            comfy.model_management, "supports_nvfp4_compute", lambda device=None: native
        ),
    ):
        yield


def load(path: Path, native: bool = False) -> Any:
    """Load as stock Load Diffusion Model does."""
    with small(native):
        return comfy.sd.load_diffusion_model(str(path))


def sample(model: Any) -> torch.Tensor:
    """Sample two steps."""
    generator = torch.Generator().manual_seed(2)
    latent = torch.zeros(1, 16, 8, 8)
    extra = {
        "pooled_output": torch.randn(1, 64, generator=generator),
        "conditioning_llama3": torch.randn(1, 2, 5, 64, generator=generator),
    }
    text = [[torch.randn(1, 5, 64, generator=generator), extra]]
    noise = comfy.sample.prepare_noise(latent, 3)
    return comfy.sample.sample(
        model, noise, 2, 1.0, "euler", "simple", text, text, latent, disable_pbar=True, seed=3
    ).float()


def moved(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative difference."""
    return float((a - b).float().norm() / a.float().norm())


def errors_of_weights(model: Any) -> dict[str, float]:
    """Return how far each weight of a loaded model is from the source, as its module decodes it."""
    original = load_file(SOURCE)
    found = {}
    for name, module in model.model.diffusion_model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or f"{name}.weight" not in original or weight.dim() != 2:
            continue
        plain = weight.dequantize() if hasattr(weight, "dequantize") else weight
        found[name] = moved(original[f"{name}.weight"].float(), plain.float())
    return found


def described(path: Path, plain: torch.Tensor) -> dict[str, Any]:
    """Return what ComfyUI makes of a quantized file."""
    model = load(path)
    return {
        "problems": verify_checkpoint(path, SOURCE).problems,
        "errors": errors_of_weights(model),
        "moved": moved(plain, sample(model)),
    }


def try_presets() -> dict[str, Any]:
    """Quantize in the graph and as a file, with every matrix that can be."""
    model = load(SOURCE)
    plain = sample(model)
    result: dict[str, Any] = {"finite": bool(plain.isfinite().all())}
    with ModelSource(model) as source:
        result["kinds"] = {n: la.kind for n, la in take_inventory(source).layers.items()}
    for preset in ("all", "smart"):
        with ModelSource(model) as source:
            plan = make_plan(get_preset(preset).build(), take_inventory(source))
            checkpoint = quantize_to_memory(source, plan)
        with small():
            preview = model_from_checkpoint(checkpoint, model)
        with ModelSource(preview) as source:
            again = make_plan(get_preset(preset).build(), take_inventory(source))
        of_graph, of_file = folder / f"{preset}-graph.safetensors", folder / f"{preset}.safetensors"
        save_model(checkpoint, of_graph)
        with open_source(SOURCE) as source:
            convert(source, make_plan(get_preset(preset).build(), take_inventory(source)), of_file)
        a, b = load_file(of_graph), load_file(of_file)
        result[preset] = described(of_file, plain) | {
            "planned": {la.name: la.format for la in plan.quantized()},
            "of_a_quantized_model": {la.name: la.format for la in again.quantized()},
            "same": a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a),
            "preview": moved(plain, sample(preview)),
        }
    return result


def try_rules() -> list[str]:
    """Ask for a quantized gate, in the graph and of a file."""
    refusals = []
    model = load(SOURCE)
    for fmt in ("nvfp4", "float8_e4m3fn"):
        rule = Rule(pattern="*.gate", format=fmt, why=USER_RULE)
        kinds = Rule(pattern="*.gate", format=fmt, kinds=("parameter",), why=USER_RULE)
        for rules in ((rule,), (kinds,)):
            for source in (ModelSource(model), open_source(SOURCE)):
                with source:
                    try:
                        make_plan(Recipe(name="mine", rules=rules), take_inventory(source))
                    except FoundryError as error:
                        refusals.append(str(error))
    return refusals


def try_idle() -> dict[str, Any]:
    """Sample with the native product of NVFP4, without and with a calibration."""
    model = load(SOURCE)
    plain = sample(model)
    collector = ActivationCollector()
    with ModelSource(model) as source:
        fingerprint = source.fingerprint()
        with collector.observe(model.model.diffusion_model):
            sample(model)
    statistics = collector.snapshot(fingerprint)
    result: dict[str, Any] = {}
    experts = {"nvfp4": None, "nvfp4 calibrated": statistics, "int8_rowwise": None}
    for name, calibration in experts.items():
        target = folder / f"experts-{name}.safetensors"
        rule = Rule(pattern="*.experts.*", format=name.split()[0])
        with open_source(SOURCE) as source:
            plan = make_plan(Recipe(name="mine", rules=(rule,)), take_inventory(source))
            report = convert(source, plan, target, statistics=calibration)
        done = {la.name: la.format for la in report.layers if ".experts." in la.name}
        result[name] = {
            "formats": done,
            "reasons": {la.name: la.reason for la in report.layers if la.name in done},
            "warnings": report.warnings,
            "moved": moved(plain, sample(load(target))),
        }
        if calibration is None:
            result[name]["native"] = moved(plain, sample(load(target, native=True)))
    return result | {"fails": _fails_as_planned()}


def _fails_as_planned() -> str:
    """Return how a file with NVFP4 experts that have no scale fails where NVFP4 is native."""
    target = folder / "experts-nvfp4.safetensors"
    found = load_file(target)
    for name in [name for name in found if name.endswith(".comfy_quant")]:
        found[name] = torch.frombuffer(bytearray(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    save_file(found, folder / "unsafe.safetensors")
    try:
        sample(load(folder / "unsafe.safetensors", native=True))
    except RuntimeError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with torch.inference_mode():
        save_file(tensors(), SOURCE)
        result = {"presets": try_presets(), "rules": try_rules(), "idle": try_idle()}
    (folder / "result.json").write_text(json.dumps(result))
