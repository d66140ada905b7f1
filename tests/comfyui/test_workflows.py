"""The shipped workflow in a real ComfyUI, from loading the model to sampling the saved file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.model import load_model
from nvfp4_foundry.demo.sampling import sample as sample_digits
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, Run

# Blocks 0 and 3 of four are edges in float8; V and ffn.2 of the others are float8 too.
FLOAT8 = {
    f"blocks.{b}.{name}"
    for b in range(4)
    for name in (
        *(f"{a}_attn.{p}" for a in ("self", "cross") for p in "qkvo"),
        "ffn.0",
        "ffn.2",
    )
    if b in (0, 3) or name.endswith((".v", "ffn.2"))
}
NVFP4 = {
    f"blocks.{b}.{name}"
    for b in (1, 2)
    for name in (*(f"{a}_attn.{p}" for a in ("self", "cross") for p in "qko"), "ffn.0")
}


def saved(server: ComfyServer) -> Path:
    return server.base / "models" / "diffusion_models" / "tiny_nvfp4.safetensors"


def latents(server: ComfyServer, prefix: str) -> list[torch.Tensor]:
    """Return the latents saved under a prefix, in order."""
    files = sorted((server.base / "output").glob(f"{prefix}_*.latent"))
    assert files, f"no latent named {prefix}"
    return [load_file(path)["latent_tensor"].float() for path in files]


def sampled(server: ComfyServer, workflow: dict[str, Any], prefix: str) -> torch.Tensor:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return latents(server, prefix)[-1]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_saved_checkpoint_has_the_planned_formats(server: ComfyServer, first_run: Run) -> None:
    layers = {layer.name: layer for layer in inspect_checkpoint(saved(server)).layers}
    assert {n for n, la in layers.items() if la.format == "float8_e4m3fn"} == FLOAT8
    assert {n for n, la in layers.items() if la.format == "nvfp4"} == NVFP4
    plan = wf.node(wf.calibrate(), "NVFP4FoundryPlanLayers")
    planned = first_run.text(plan)
    assert planned.startswith("model   WAN T2V (16 input channels, width 256, 4 blocks)")
    assert "26 float8_e4m3fn, 14 nvfp4" in planned


def test_saved_checkpoint_verifies_against_the_source(server: ComfyServer, first_run: Run) -> None:
    assert verify_checkpoint(saved(server), TINY).problems == ()


def test_input_scales_equal_an_independent_computation(server: ComfyServer, first_run: Run) -> None:
    """Plain hooks on the plain-torch model, sampling the same seeds, give the same amax."""
    model, task = load_model(), load_task()
    amax: dict[str, float] = {}

    def watch(name: str):
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            amax[name] = max(amax.get(name, 0.0), float(args[0].abs().max()))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(watch(name))
    for digit in wf.DIGITS:
        sample_digits(model, torch.tensor([digit]), seed=1, steps=wf.STEPS, cfg=wf.CFG, task=task)
    with safe_open(saved(server), "pt") as file:
        stored = {
            key.removesuffix(".input_scale"): float(file.get_tensor(key))
            for key in file.keys()  # noqa: SIM118 - not a dict
            if key.endswith(".input_scale")
        }
    assert set(stored) == FLOAT8 | NVFP4
    for name, scale in stored.items():
        divisor = 448.0 if name in FLOAT8 else 2688.0
        assert scale == pytest.approx(amax[name] * 4 / divisor, rel=1e-4), name


def test_observed_sampling_is_bit_equal(server: ComfyServer, first_run: Run) -> None:
    for index, digit in enumerate(wf.DIGITS):
        plain = wf.sample("tiny_wan.safetensors", seed=1, digit=digit, prefix=f"plain{digit}")
        assert torch.equal(
            sampled(server, plain, f"plain{digit}"), latents(server, "observed")[index]
        )


def test_stock_loader_samples_the_saved_file(server: ComfyServer, first_run: Run) -> None:
    exact = sampled(server, wf.sample("tiny_wan.safetensors", prefix="exact"), "exact")
    quantized = sampled(server, wf.sample("tiny_nvfp4.safetensors", prefix="stock"), "stock")
    assert bool(torch.isfinite(quantized).all())
    # weights in float8 and NVFP4, activations in 16 bits as on any CPU
    assert 1e-4 < relative(quantized, exact) < 0.06


def test_quantized_model_in_the_graph_equals_the_saved_file(
    server: ComfyServer, first_run: Run
) -> None:
    workflow = wf.calibrate(seed=1)
    workflow = wf.without(workflow, "NVFP4FoundrySaveCheckpoint")
    sampler = wf.inputs(workflow, "KSampler")
    clip, quantize = (
        wf.node(workflow, n) for n in ("DigitsTextEncoder", "NVFP4FoundryQuantizeModel")
    )
    positive = wf.add(workflow, "digit", "CLIPTextEncode", text="digit 3", clip=[clip, 0])
    shifted = wf.add(workflow, "shift", "ModelSamplingSD3", model=[quantize, 0], shift=8.0)
    preview = wf.add(
        workflow,
        "preview",
        "KSampler",
        **{**sampler, "model": [shifted, 0], "positive": [positive, 0]},
    )
    wf.save_latent(workflow, [preview, 0], "in_graph")
    run = server.run(workflow)
    assert run.status == "success", run.error
    stock = sampled(server, wf.sample("tiny_nvfp4.safetensors", prefix="again"), "again")
    assert torch.equal(latents(server, "in_graph")[-1], stock)
