"""Factors per channel in stock ComfyUI: ``python smooth_layers.py RESULT.json FOLDER``.

Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``. Quantizes the demo model to
``nvfp4_smooth`` by a calibration with loud channels, loads the file with ComfyUI's own loader, and
compares what its layers compute with what the pack says of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

result_path, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.sd  # noqa: E402
import comfyui_version  # noqa: E402
import torch  # noqa: E402
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from loaded_demo import difference, load  # noqa: E402

import_foundry()

from nvfp4_foundry.demo.model import MODEL_PATH, load_model  # noqa: E402
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings  # noqa: E402
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.errors import PlanError  # noqa: E402
from nvfp4_foundry.quant.formats import get_format  # noqa: E402
from nvfp4_foundry.quant.hardware.emulation import (  # noqa: E402
    emulate_native_product,
    read_input_roundings,
)
from nvfp4_foundry.quant.planning import Recipe, make_plan, take_inventory  # noqa: E402
from nvfp4_foundry.quant.sources import open_source, open_tensors  # noqa: E402

FMT = get_format("nvfp4_smooth")
LAYER = "blocks.1.ffn.0"
PATH = folder / "smooth.safetensors"
PREFIX = "diffusion_model."


def loud_inputs(width: int, seed: int, tokens: int = 200) -> torch.Tensor:
    """Inputs of few directions, with four loud channels."""
    mixing = torch.randn(24, width, generator=torch.Generator().manual_seed(width))
    mixing[:, ::3] *= 0.2
    mixing[:, 5 :: width // 4] *= 25
    drawn = torch.randn(tokens, 24, generator=torch.Generator().manual_seed(seed))
    return drawn @ mixing / 5


def recipe(comfyui: str) -> Recipe:
    """A recipe for one block."""
    rule = {"pattern": "blocks.1.*", "format": FMT.name}
    return Recipe(rules=(rule,), rounding="gptq", comfyui=comfyui)


def write() -> int:
    """Quantize one block; return how many layers keep factors."""
    model = load_model()
    collector = ActivationCollector(
        CollectorSettings(rows_per_layer=400, moments_budget_bytes=2**30)
    )
    linears = [m for n, m in model.named_modules() if n.startswith("blocks.1") and is_linear(m)]
    for run in range(2):
        collector.new_run(f"prompt {run}", run_id=f"{run:032x}")
        with torch.no_grad(), collector.observe(model):
            for call in range(4):
                collector.begin_call(1 - call / 4, [0])
                for linear in linears:
                    linear(loud_inputs(linear.in_features, 10 * run + call))
    with open_source(MODEL_PATH) as source:
        statistics = collector.snapshot(source.fingerprint())
        plan = make_plan(recipe("0.33"), take_inventory(source))
        report = convert(source, plan, PATH, statistics=statistics)
    return sum("with factors" in layer.rounding_reason for layer in report.layers)


def is_linear(module: Any) -> bool:
    """Whether a module of the demo model is a Linear."""
    return isinstance(module, torch.nn.Linear)


def refusal() -> str:
    """What planning says if ComfyUI 0.29 must load the file."""
    with open_source(MODEL_PATH) as source:
        try:
            make_plan(recipe("0.29"), take_inventory(source))
        except PlanError as error:
            return str(error)
    return ""


@torch.inference_mode()
def check() -> dict[str, Any]:
    """Compare a loaded layer with the pack's numbers."""
    patcher = load(PATH)
    root = patcher.model.diffusion_model
    layer = root.get_submodule(LAYER)
    with open_tensors(PATH) as saved:
        shape = (layer.out_features, layer.in_features)
        parts = FMT.tensor_specs(shape, torch.bfloat16)
        stored = {part: saved.load(f"{LAYER}.{part}") for part in parts}
        bias = saved.load(f"{LAYER}.bias").float()
        input_scale = float(saved.load(f"{LAYER}.input_scale"))
        roundings = read_input_roundings(saved)
    factors, decoded = stored["pre_quant_scale"], FMT.decode(stored, shape)
    inputs = loud_inputs(layer.in_features, 99)
    exact = inputs @ decoded.T + bias
    # What a GPU with native NVFP4 multiplies: comfy-kitchen's own rounding of the scaled input.
    scale = torch.tensor(input_scale)
    rounded = QuantizedTensor.from_float(inputs * factors, layer.layout_type, scale=scale)
    native = rounded.dequantize() @ layer.weight.dequantize().T + bias
    emulated = roundings[LAYER].apply(inputs) @ decoded.T + bias
    with emulate_native_product(root, {LAYER: roundings[LAYER]}):
        hooked = layer(inputs)
    return {
        "factors": [float(factors.min()), float(factors.max())],
        "loaded": bool(torch.equal(layer.pre_quant_scale, factors)),
        "weight": difference(layer.weight.dequantize() * factors, decoded),
        "product": difference(layer(inputs), exact),
        "native": difference(emulated, native),
        "hooked": difference(hooked, native),
        "rounding": difference(native, exact),
        "clipped": float((inputs * factors).abs().max()) / (input_scale * 2688),
        **loras(patcher, inputs, exact),
    }


def loras(patcher: Any, inputs: torch.Tensor, exact: torch.Tensor) -> dict[str, float]:
    """How far a LoRA is from what it should do, beside the layer and added to its weight."""
    rank, generator = 4, torch.Generator().manual_seed(3)
    up = torch.randn(exact.shape[1], rank, generator=generator)
    down = torch.randn(rank, inputs.shape[1], generator=generator) / 10
    name = f"{PREFIX}{LAYER}"
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    wanted = exact + inputs @ down.T @ up.T
    found = {}
    for kind, add in (
        ("bypass", comfy.sd.load_bypass_lora_for_models),
        ("added", comfy.sd.load_lora_for_models),
    ):
        with_lora, _ = add(patcher, None, dict(lora), 1.0, 0.0)
        comfy.model_management.load_models_gpu([with_lora], force_full_load=True)
        for injections in with_lora.injections.values():
            for injection in injections:
                injection.inject(with_lora)
        layer = with_lora.model.diffusion_model.get_submodule(LAYER)
        found[kind] = difference(layer(inputs) - exact, wanted - exact)
        for injections in with_lora.injections.values():
            for injection in injections:
                injection.eject(with_lora)
        with_lora.detach()
    return found


if __name__ == "__main__":
    results: dict[str, Any] = {
        "version": comfyui_version.__version__,
        "refusal": refusal(),
        "smoothed": write(),
        "problems": list(verify_checkpoint(PATH, MODEL_PATH).problems),
        "needs": inspect_checkpoint(PATH).needs_comfyui,
        "known": "pre_quant_scale" in QUANT_ALGOS["nvfp4"]["parameters"],
    }
    if results["known"]:
        results["loaded"] = check()
    result_path.write_text(json.dumps(results))
