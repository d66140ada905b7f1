"""A preview as a Blackwell GPU computes it, in a real ComfyUI without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.quantized import load_quantized
from nvfp4_foundry.demo.sampling import sample as sample_digits
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import ComfyServer, Run

HERE, BLACKWELL = "as this machine runs it", "as a Blackwell GPU runs it"
SEEDS, DIGIT, STEPS = range(21, 28), 3, 2
# latents_mean and latents_std of WAN 2.1's VAE: ComfyUI returns latent * std + mean
MEAN = torch.tensor([
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
]).view(1, 16, 1, 1, 1)  # fmt: skip
STD = torch.tensor([
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
]).view(1, 16, 1, 1, 1)  # fmt: skip


@dataclass(frozen=True)
class Preview:
    """A quantized MODEL sampled in the graph, and the checkpoint saved beside it."""

    workflow: wf.Workflow
    run: Run
    latents: tuple[torch.Tensor, ...]
    path: Path

    @property
    def report(self) -> str:
        """What Quantize Model to NVFP4 showed."""
        return self.run.text(wf.node(self.workflow, "NVFP4FoundryQuantizeModel"))


def preview_workflow(
    preview: str, name: str, *, static: bool = False, fmt: str = "nvfp4"
) -> wf.Workflow:
    """Quantize every block to one format, save, and sample the MODEL; ``static``: calibrated."""
    workflow = wf.calibrate(seed=1, name="for-previews", file_name=name)
    sampler = dict(wf.inputs(workflow, "KSampler"))
    clip = wf.node(workflow, "DigitsTextEncoder")
    recipe = wf.inputs(workflow, "NVFP4FoundrySelectPreset")
    for key in [key for key in recipe if key.startswith("preset")]:
        del recipe[key]
    recipe.update({"preset": "all", "preset.format": fmt})
    wf.inputs(workflow, "NVFP4FoundrySaveCheckpoint")["if_exists"] = "overwrite"
    quantize = wf.inputs(workflow, "NVFP4FoundryQuantizeModel")
    quantize["preview"] = preview
    if not static:
        del quantize["statistics"]
        workflow = wf.without(
            workflow, "NVFP4FoundryCalibrationPrompts", "NVFP4FoundryCalibrate", "KSampler",
            "NVFP4FoundryCalibrationResult", "ModelSamplingSD3", "CLIPTextEncode",
        )  # fmt: skip
    quantized = [wf.node(workflow, "NVFP4FoundryQuantizeModel"), 0]
    positive = wf.add(workflow, "p-pos", "CLIPTextEncode", text=f"digit {DIGIT}", clip=[clip, 0])
    negative = wf.add(workflow, "p-neg", "CLIPTextEncode", text="", clip=[clip, 0])
    wf.add(workflow, "p-shift", "ModelSamplingSD3", model=quantized, shift=8.0)
    settings = {"model": ["p-shift", 0], "positive": [positive, 0], "negative": [negative, 0]}
    sampled = wf.add(workflow, "p-sampler", "KSampler", **{**sampler, **settings, "steps": STEPS})
    wf.save_latent(workflow, [sampled, 0], name)
    return workflow


def preview(server: ComfyServer, mode: str, name: str, *, static: bool = False) -> Preview:
    """Run a preview for every seed; ComfyUI quantizes once."""
    workflow = preview_workflow(mode, name, static=static)
    runs, latents = [], []
    for seed in SEEDS:
        workflow["p-sampler"]["inputs"]["seed"] = seed
        runs.append(server.run(workflow))
        assert runs[-1].status == "success", runs[-1].error
        latents.append(latest_latent(server, name))
    path = server.base / "models" / "diffusion_models" / f"{name}.safetensors"
    return Preview(workflow, runs[0], tuple(latents), path)


def latest_latent(server: ComfyServer, prefix: str) -> torch.Tensor:
    """Return the last latent saved under a prefix, in the space the model works in."""
    path = sorted((server.base / "output").glob(f"{prefix}_*.latent"))[-1]
    return (load_file(path)["latent_tensor"].float() - MEAN) / STD


def errors(latents: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> list[float]:
    """Return the relative error of each."""
    return [float((a - b).norm() / b.norm()) for a, b in zip(latents, reference, strict=True)]


def in_plain_torch(path: Path, *, round_activations: bool) -> list[torch.Tensor]:
    """Sample a saved file without ComfyUI."""
    model, task = load_quantized(path, round_activations=round_activations), load_task()
    digit = torch.tensor([DIGIT])
    return [sample_digits(model, digit, seed, STEPS, wf.CFG, task=task) for seed in SEEDS]


@pytest.fixture(scope="module")
def exact(server: ComfyServer) -> list[torch.Tensor]:
    """The unquantized model's latents."""
    latents = []
    for seed in SEEDS:
        workflow = wf.sample("tiny_wan.safetensors", seed=seed, digit=DIGIT, prefix="unquantized")
        wf.inputs(workflow, "KSampler")["steps"] = STEPS
        assert server.run(workflow).status == "success"
        latents.append(latest_latent(server, "unquantized"))
    return latents


@pytest.fixture(scope="module")
def here(server: ComfyServer) -> Preview:
    """Dynamic scales, not emulated."""
    return preview(server, HERE, "dynamic_here")


@pytest.fixture(scope="module")
def blackwell(server: ComfyServer) -> Preview:
    """Dynamic scales, emulated."""
    return preview(server, BLACKWELL, "dynamic_blackwell")


@pytest.fixture(scope="module")
def static_blackwell(server: ComfyServer) -> Preview:
    """Calibrated, emulated."""
    return preview(server, BLACKWELL, "static_blackwell", static=True)


def test_without_emulation_the_preview_is_w4a16(here: Preview) -> None:
    assert max(errors(here.latents, in_plain_torch(here.path, round_activations=False))) < 1e-4
    assert "preview" not in here.report


@pytest.mark.parametrize("name", ["blackwell", "static_blackwell"])
def test_emulated_preview_equals_the_emulation_in_plain_torch(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Equal but for rounding flips: one value beside a tie takes the other side, and from there
    on the rounding errors of the two samplings are independent. So either the latents are equal
    or they differ by about as much as rounding activations changes them.
    """
    emulated: Preview = request.getfixturevalue(name)
    plain = in_plain_torch(emulated.path, round_activations=True)
    found = errors(emulated.latents, plain)
    assert sum(error < 1e-5 for error in found) >= 2, found
    assert max(found) < 0.25, found
    w4a16 = in_plain_torch(emulated.path, round_activations=False)
    assert min(errors(emulated.latents, w4a16)) > 0.02


def test_emulated_preview_is_worse_than_w4a16_and_finite(
    exact: list[torch.Tensor], here: Preview, blackwell: Preview, static_blackwell: Preview
) -> None:
    weights_only = errors(here.latents, exact)
    for emulated in (blackwell, static_blackwell):
        assert all(bool(latent.isfinite().all()) for latent in emulated.latents)
        found = errors(emulated.latents, exact)
        assert sum(found) > 1.3 * sum(weights_only)
        assert max(found) < 0.4
        assert emulated.report.startswith("preview: EMULATED")
        assert "40 layers" in emulated.report.splitlines()[0]


def test_the_saved_file_is_the_same(here: Preview, blackwell: Preview) -> None:
    mine, theirs = load_file(here.path), load_file(blackwell.path)
    assert list(mine) == list(theirs)
    for name, tensor in mine.items():
        other = theirs[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape)
        flat, other = tensor.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
        assert torch.equal(flat, other), name


def count_hooks(server: ComfyServer, workflow: wf.Workflow, nonce: int) -> str:
    """Return the hooks on the very MODEL that a workflow has sampled with."""
    quantize = wf.node(workflow, "NVFP4FoundryQuantizeModel")
    counting = wf.without(workflow, "KSampler", "SaveLatent", "NVFP4FoundrySaveCheckpoint")
    wf.add(counting, "count", "HookCount", model=[quantize, 0], nonce=nonce)
    run = server.run(counting)
    assert run.status == "success", run.error
    assert quantize not in run.executed
    return run.text("count")


def test_no_hooks_stay_after_sampling_or_interruption(server: ComfyServer) -> None:
    workflow = preview_workflow(BLACKWELL, "interrupted")
    assert server.run(workflow).status == "success"
    assert count_hooks(server, workflow, 1) == "0"

    workflow["p-sampler"]["inputs"].update(steps=200, seed=99)
    run = server.interrupt_when(workflow, is_sampling)
    assert run.status == "interrupted"
    assert count_hooks(server, workflow, 2) == "0"


def is_sampling(message: dict[str, Any]) -> bool:
    """Accept the sampler's first progress message."""
    is_progress = message.get("type") == "progress"
    return is_progress and str(message.get("data", {}).get("node")) == "p-sampler"


def test_weights_only_files_have_nothing_to_emulate(server: ComfyServer) -> None:
    workflow = preview_workflow(BLACKWELL, "weights_only", fmt="nvfp4_w4a16")
    run = server.run(workflow)
    assert run.status == "success", run.error
    report = run.text(wf.node(workflow, "NVFP4FoundryQuantizeModel"))
    assert "nothing to emulate" in report.splitlines()[0]


def test_compiling_an_emulated_preview_is_refused(server: ComfyServer) -> None:
    workflow = preview_workflow(BLACKWELL, "compiled")
    shifted = ["p-shift", 0]
    wf.add(workflow, "compile", "TorchCompileModel", model=shifted, backend="inductor")
    workflow["p-sampler"]["inputs"]["model"] = ["compile", 0]
    run = server.run(workflow)
    assert run.status == "error" and "remove torch.compile" in run.error
