"""Every quantized format in stock ComfyUI: ``python loaded_formats.py RESULT.json FOLDER``.

Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``. Quantizes the demo model to one
format after the other, loads the files with ComfyUI's own loader, and compares what it holds and
computes with what the pack says of them.
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

import comfy.ops  # noqa: E402
import comfy.utils  # noqa: E402
import comfyui_version  # noqa: E402
import torch  # noqa: E402
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor, get_layout_class  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from loaded_demo import difference, generator, load, output  # noqa: E402

import_foundry()

from nvfp4_foundry.demo.model import MODEL_PATH  # noqa: E402
from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.formats import FORMATS, WeightFormat  # noqa: E402
from nvfp4_foundry.quant.hardware.comfyui import FLOOR, version_text  # noqa: E402
from nvfp4_foundry.quant.planning import Recipe, make_plan, take_inventory  # noqa: E402
from nvfp4_foundry.quant.rounding import MaxRule, SecondMoments, get_rounding  # noqa: E402
from nvfp4_foundry.quant.sources import open_source, open_tensors  # noqa: E402

LAYER = "blocks.1.ffn.2"
ROWS = torch.randn(12, 512, generator=generator)


def write(fmt: WeightFormat, path: Path) -> torch.Tensor:
    """Quantize the blocks of the demo model; return the original weight of `LAYER`."""
    needed = version_text(fmt.needs_comfyui or FLOOR)
    recipe = Recipe(rules=({"pattern": "blocks.*", "format": fmt.name},), comfyui=needed)
    with open_source(MODEL_PATH) as source:
        convert(source, make_plan(recipe, take_inventory(source)), path)
        return source.load(f"{LAYER}.weight")


def refusal(fmt: WeightFormat) -> str:
    """What ComfyUI says of a file in a format that it does not know; empty if it loads it."""
    path = folder / f"{fmt.name}.safetensors"
    write(fmt, path)
    try:
        load(path)
    except (KeyError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@torch.inference_mode()
def check(fmt: WeightFormat, exact: torch.Tensor) -> dict[str, Any]:
    """Quantize, load and compare."""
    path = folder / f"{fmt.name}.safetensors"
    original = write(fmt, path)
    problems = verify_checkpoint(path, MODEL_PATH).problems
    model = load(path)
    modules = model.model.diffusion_model.named_modules()
    linears = {n: m for n, m in modules if n.startswith("blocks.")}
    linears = {n: m for n, m in linears.items() if hasattr(m, "in_features")}
    layer = linears[LAYER]
    with open_tensors(path) as saved:
        parts = fmt.tensor_specs(tuple(original.shape), torch.bfloat16)
        stored = {part: saved.load(f"{LAYER}.{part}") for part in parts}
        dtype = str(stored["weight_scale"].dtype) if "weight_scale" in stored else ""
        bias = saved.load(f"{LAYER}.bias").float()
    decoded = fmt.decode(stored, tuple(original.shape))
    inputs = fmt.emulate_activations(ROWS, None) if not layer._full_precision_mm else ROWS
    found = output(model)
    return {
        "problems": list(problems),
        "layouts": sorted({type_of(m) for m in linears.values()}),
        "wanted_layout": QUANT_ALGOS[fmt.marker["format"]]["comfy_tensor_layout"],
        "scale_dtype": dtype,
        "full_precision": layer._full_precision_mm,
        "weight": difference(layer.weight.dequantize(), decoded),
        "product": difference(layer(ROWS), inputs @ decoded.T + bias),
        "weight_error": difference(decoded, original.float()),
        "finite": bool(found.isfinite().all()),
        "output_error": difference(found, exact),
        "requantized": requantized(fmt, layer, original.float()),
    }


def type_of(module: Any) -> str:
    """The layout of a module's weight."""
    weight = module.weight
    return weight._layout_cls if isinstance(weight, QuantizedTensor) else "not quantized"


def requantized(fmt: WeightFormat, layer: Any, original: torch.Tensor) -> bool:
    """Whether ComfyUI's own layout makes the same codes and scales with plain max rounding."""
    ours = fmt.encode(original, MaxRule()).tensors
    layout = get_layout_class(layer.weight._layout_cls)
    kwargs = layout.requantize_kwargs(layer.weight)
    codes, params = layout.quantize(original, scale="recalculate", **kwargs)
    scale = params.block_scale if hasattr(params, "block_scale") else params.scale
    found = {"weight": codes, "weight_scale": scale}
    if "weight_s_rel" in ours:
        found = {"weight": codes, "weight_s_rel": scale, "weight_s_channel": params.s_channel}
    return all(equal_bits(tensor, ours[suffix]) for suffix, tensor in found.items())


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same bytes."""
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))


@torch.inference_mode()
def check_feedback(fmt: WeightFormat) -> dict[str, float]:
    """Differences of the weight and the product in ComfyUI's Linear from the pack's, with gptq.

    ``changed`` is how far the weight is from that of the max rule.
    """
    weight = torch.randn(48, 512, generator=generator)
    inputs = ROWS.repeat(20, 1) + 0.3 * torch.randn(240, 512, generator=generator)
    zeros = torch.zeros(512)
    moments = SecondMoments(inputs.T @ inputs / 240, None, zeros, zeros, zeros, 240)
    rule = get_rounding("gptq").for_input(inputs.square().mean(0), moments)
    tensors = dict(fmt.encode(weight, rule).tensors)
    decoded = fmt.decode(tensors, (48, 512))
    plain = fmt.decode(fmt.encode(weight, MaxRule()).tensors, (48, 512))
    tensors["comfy_quant"] = torch.tensor(list(fmt.marker_bytes((48, 512))), dtype=torch.uint8)
    layer = comfy.ops.mixed_precision_ops({}, torch.float32).Linear(512, 48, bias=False)
    layer.load_state_dict(tensors)
    assert isinstance(layer.weight, QuantizedTensor)
    return {
        "weight": difference(layer.weight.dequantize(), decoded),
        "product": difference(layer(ROWS), fmt.emulate_activations(ROWS, None) @ decoded.T),
        "changed": difference(plain, decoded),
    }


@torch.inference_mode()
def check_embedding(fmt: WeightFormat) -> float:
    """Difference of rows looked up in ComfyUI's quantized Embedding and decoded by the pack."""
    table = torch.randn(40, 256, generator=generator)
    tensors = dict(fmt.encode(table, MaxRule()).tensors)
    decoded = fmt.decode(tensors, (40, 256))
    marker = json.dumps(fmt.marker_for((40, 256))).encode()
    tensors["comfy_quant"] = torch.tensor(list(marker), dtype=torch.uint8)
    layer = comfy.ops.mixed_precision_ops({}, torch.float32).Embedding(40, 256)
    layer.load_state_dict(tensors)
    assert isinstance(layer.weight, QuantizedTensor)
    index = torch.tensor([[3, 39], [0, 3]])
    return difference(layer(index), decoded[index])


if __name__ == "__main__":
    with torch.inference_mode():
        exact = output(load(MODEL_PATH))
    # NVFP4 is what all other tests are about.
    formats = [f for name, f in FORMATS.items() if f.is_quantized and "nvfp4" not in name]
    newer = [f for f in formats if f.marker["format"] not in QUANT_ALGOS]
    formats = [f for f in formats if f not in newer]
    results = {
        "formats": {fmt.name: check(fmt, exact) for fmt in formats},
        "version": comfyui_version.__version__,
        "refused": {fmt.name: refusal(fmt) for fmt in newer},
        "feedback": {f.name: check_feedback(f) for f in formats if f.feedback_block},
        "embeddings": {f.name: check_embedding(f) for f in formats if "embedding" in f.kinds},
    }
    result_path.write_text(json.dumps(results))
