"""Select NVFP4 Preset for another GPU: the formats in the file, and what the node says of them."""

from __future__ import annotations

import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer


def test_a_checkpoint_for_ampere_made_and_sampled_in_comfyui(server: ComfyServer) -> None:
    workflow = wf.quantize_file()
    preset = wf.inputs(workflow, "NVFP4FoundrySelectPreset")
    preset.update({"preset": "wan2.2-14b", "preset.edge_blocks": 1, "gpu": "Turing or Ampere"})
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file="diffusion_models/tiny_wan.safetensors",
        file_name="for_ampere",
        folder="diffusion_models",
    )
    run = server.run(workflow)
    assert run.status == "success", run.error
    text = run.text(wf.node(workflow, "NVFP4FoundrySelectPreset"))
    assert "recipe wan2.2-14b, for Turing or Ampere" in text
    assert "convrot_w4a4: saves memory only (no CUDA GPU" in text and "nvfp4:" not in text

    made = server.base / "models/diffusion_models/for_ampere.safetensors"
    assert verify_checkpoint(made, TINY).problems == ()
    found = inspect_checkpoint(made).counts()
    assert (found["convrot_w4a4"], found["int8_convrot"]) == (14, 26)

    latents = []
    for model in ("tiny_wan", "for_ampere"):
        sampling = wf.sample(f"{model}.safetensors", prefix=f"gpu_{model}")
        run = server.run(sampling)
        assert run.status == "success", run.error
        (path,) = (server.base / "output").glob(f"gpu_{model}_*.latent")
        latents.append(load_file(path)["latent_tensor"].float())
    exact, quantized = latents
    assert bool(torch.isfinite(quantized).all())
    assert 1e-3 < float((quantized - exact).norm() / exact.norm()) < 0.15


def test_as_the_preset_says_is_the_default(server: ComfyServer) -> None:
    inputs = server.get("/object_info")["NVFP4FoundrySelectPreset"]["input"]
    assert inputs["optional"]["gpu"][1]["default"] == "as the preset says"
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "wan2.2-14b"
    workflow = {
        key: node
        for key, node in workflow.items()
        if node["class_type"] == "NVFP4FoundrySelectPreset"
    }
    wf.add(workflow, "show", "PreviewAny", source=[next(iter(workflow)), 1])
    run = server.run(workflow)
    assert run.status == "success", run.error
    text = run.text(wf.node(workflow, "NVFP4FoundrySelectPreset"))
    assert "float8_e4m3fn: saves memory only" in text and "nvfp4: saves memory only" in text
