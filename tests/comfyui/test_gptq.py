"""Hessians collected while ComfyUI samples, and the roundings that use them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import load_statistics, moments_folder
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, Run

NAME = "hessians"
STEPS = 8


def workflow(rounding: str, *, seed: int, file_name: str, hessians_mb: int = 512) -> wf.Workflow:
    """The shipped workflow, all blocks in NVFP4, on four digits."""
    flow = wf.calibrate(seed=seed, name=NAME, file_name=file_name)
    preset = wf.inputs(flow, "NVFP4FoundrySelectPreset")
    for key in [key for key in preset if key.startswith("preset.")]:
        del preset[key]
    preset.update({"preset": "all", "preset.format": "nvfp4", "rounding": rounding})
    deck = {"deck.text": "\n".join(f"digit {digit}" for digit in (1, 4, 7, 9))}
    wf.inputs(flow, "NVFP4FoundryCalibrationPrompts").update(deck)
    wf.inputs(flow, "NVFP4FoundryCalibrate").update(hessians_mb=hessians_mb, rows_per_layer=64)
    for value in flow.values():
        if value["class_type"] == "KSampler":
            value["inputs"]["steps"] = STEPS
    observed = [wf.node(flow, "NVFP4FoundryCalibrationResult"), 1]
    wf.save_latent(flow, observed, f"observed_{file_name}")
    return flow


def checkpoint(server: ComfyServer, name: str) -> Path:
    return server.base / "models" / "diffusion_models" / f"{name}.safetensors"


def calibration(server: ComfyServer) -> Path:
    return server.base / "output" / "nvfp4_foundry" / "calibrations" / f"{NAME}.safetensors"


def text_of(run: Run, class_type: str, flow: wf.Workflow) -> str:
    return run.outputs[wf.node(flow, class_type)]["text"][0]


@pytest.fixture(scope="module")
def quantized(server: ComfyServer) -> tuple[Run, wf.Workflow]:
    flow = workflow("gptaq", seed=5, file_name="tiny_gptaq")
    run = server.run(flow)
    assert run.status == "success", run.error
    return run, flow


def test_hessians_are_collected_and_kept_beside_the_calibration(
    server: ComfyServer, quantized: tuple[Run, wf.Workflow]
) -> None:
    statistics = load_statistics(calibration(server))
    assert len(statistics.runs) == 4
    held_out = statistics.runs[1].id
    for name, layer in statistics.layers.items():
        if not name.startswith("blocks."):
            continue
        assert layer.moments is not None, name
        assert held_out not in layer.moments.runs
        assert torch.isfinite(layer.moments.load().hessian).all()
    files = {f.name for f in moments_folder(calibration(server)).iterdir()}
    parts = [p for la in statistics.inputs.values() if la.moments for p in la.moments.parts]
    assert files == {part.path.name for part in parts if part.path}
    run, flow = quantized
    assert "Hessians of" in text_of(run, "NVFP4FoundryCalibrationResult", flow)


def test_layers_get_it_and_the_report_says_so(
    server: ComfyServer, quantized: tuple[Run, wf.Workflow]
) -> None:
    run, flow = quantized
    report = text_of(run, "NVFP4FoundrySaveCheckpoint", flow)
    rows = [line for line in report.splitlines() if line.startswith("blocks.")]
    second_order = [row for row in rows if " gptaq" in row or " gptq" in row]
    assert len(rows) == 40 and len(second_order) >= 25
    provenance = inspect_checkpoint(checkpoint(server, "tiny_gptaq")).provenance
    assert sum(provenance["roundings"].values()) == 40
    assert verify_checkpoint(checkpoint(server, "tiny_gptaq"), TINY).problems == ()


def test_other_roundings_of_the_same_calibration_differ(
    server: ComfyServer, quantized: tuple[Run, wf.Workflow]
) -> None:
    """The statistics are loaded from disk, Hessians and all, by file to file conversion."""
    flow: wf.Workflow = {}
    wf.add(flow, "stats", "NVFP4FoundryLoadCalibration", name=NAME)
    preset = wf.inputs(quantized[1], "NVFP4FoundrySelectPreset")
    for rounding in ("gptaq", "gptq", "weighted"):
        recipe = {**preset, "rounding": rounding}
        wf.add(flow, f"recipe-{rounding}", "NVFP4FoundrySelectPreset", **recipe)
        wf.add(
            flow,
            f"convert-{rounding}",
            "NVFP4FoundryQuantizeFile",
            model_file="diffusion_models/tiny_wan.safetensors",
            recipe=[f"recipe-{rounding}", 0],
            statistics=["stats", 0],
            file_name=f"tiny_file_{rounding}",
            folder="diffusion_models",
            if_exists="stop",
            any_architecture=False,
        )
    run = server.run(flow)
    assert run.status == "success", run.error
    in_graph = load_file(checkpoint(server, "tiny_gptaq"))
    from_file = load_file(checkpoint(server, "tiny_file_gptaq"))
    weighted = load_file(checkpoint(server, "tiny_file_weighted"))
    key = "blocks.1.ffn.0.weight"
    assert torch.equal(in_graph[key], from_file[key])
    assert not torch.equal(in_graph[key], weighted[key])


def test_less_error_in_the_latents_than_with_the_max_rule(
    server: ComfyServer, quantized: tuple[Run, wf.Workflow]
) -> None:
    """Sampled by stock ComfyUI from the saved files, which computes W4A16 on a CPU.

    With 16-bit activations it is gptq that does best.
    """
    convert: wf.Workflow = {}
    preset = {**wf.inputs(quantized[1], "NVFP4FoundrySelectPreset"), "rounding": "max"}
    wf.add(convert, "recipe", "NVFP4FoundrySelectPreset", **preset)
    wf.add(
        convert,
        "convert",
        "NVFP4FoundryQuantizeFile",
        model_file="diffusion_models/tiny_wan.safetensors",
        recipe=["recipe", 0],
        file_name="tiny_file_max",
        folder="diffusion_models",
        if_exists="stop",
        any_architecture=False,
    )
    assert server.run(convert).status == "success"
    samples = {}
    for name in ("tiny_wan", "tiny_file_gptq", "tiny_file_max"):
        run = server.run(wf.sample(f"{name}.safetensors", seed=77, prefix=f"gptq_{name}"))
        assert run.status == "success", run.error
        (file,) = (server.base / "output").glob(f"gptq_{name}_*.latent")
        samples[name] = load_file(file)["latent_tensor"]
    errors = {
        name: float((latent - samples["tiny_wan"]).norm() / samples["tiny_wan"].norm())
        for name, latent in samples.items()
    }
    assert errors["tiny_file_gptq"] < 0.95 * errors["tiny_file_max"]


def test_observing_with_hessians_changes_no_picture(
    server: ComfyServer, quantized: tuple[Run, wf.Workflow]
) -> None:
    """That observing without them changes none is tested with the shipped workflows."""
    flow = workflow("mse", seed=5, file_name="without", hessians_mb=0)
    wf.inputs(flow, "NVFP4FoundryCalibrate")["name"] = "without"
    run = server.run(wf.without(flow, "NVFP4FoundrySaveCheckpoint"))
    assert run.status == "success", run.error
    folder = server.base / "output"
    observed = sorted(folder.glob("observed_tiny_gptaq_*.latent"))
    without = sorted(folder.glob("observed_without_*.latent"))
    assert len(observed) == len(without) == 4
    for a, b in zip(observed, without, strict=True):
        assert torch.equal(load_file(a)["latent_tensor"], load_file(b)["latent_tensor"])
    saved = load_statistics(calibration(server).with_name("without.safetensors"))
    assert not any(layer.moments for layer in saved.layers.values())
