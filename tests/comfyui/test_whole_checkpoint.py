"""A full checkpoint, quantized whole, in the stock Load Checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer
from tests.helpers.source_kinds import BESIDE, PREFIX

NAME = "full_wan.safetensors"


def test_the_result_loads_with_load_checkpoint(server: ComfyServer) -> None:
    folder = server.base / "models/checkpoints"
    folder.mkdir(exist_ok=True)
    full = {PREFIX + name: tensor for name, tensor in load_file(TINY).items()} | BESIDE
    save_file(full, folder / NAME)
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundrySelectPreset").update(
        {"preset": "all", "preset.format": "nvfp4"}
    )
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file=f"checkpoints/{NAME}", file_name="whole_wan", folder="checkpoints",
        whole_checkpoint=True,
    )  # fmt: skip
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = folder / "whole_wan.safetensors"
    assert verify_checkpoint(made, folder / NAME).problems == ()
    require_kept_beside(load_file(made))
    sampling = wf.sample(TINY.name, prefix="whole")
    loader = wf.node(sampling, "UNETLoader")
    sampling[loader] = {
        "class_type": "CheckpointLoaderSimple",
        "inputs": {"ckpt_name": made.name},
    }
    run = server.run(sampling)
    assert run.status == "success", run.error
    latent = load_file(next((server.base / "output").glob("whole_*.latent")))["latent_tensor"]
    assert bool(torch.isfinite(latent).all()) and float(latent.std()) > 0


def require_kept_beside(stored: Mapping[str, torch.Tensor]) -> None:
    """What is no part of the diffusion model is there bit for bit; the model is quantized."""
    for name, tensor in BESIDE.items():
        assert torch.equal(stored[name], tensor)
    assert stored[f"{PREFIX}blocks.0.ffn.0.weight"].dtype == torch.uint8
