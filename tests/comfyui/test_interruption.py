"""Cancel leaves no file and no hook behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import ComfyServer


def progress_of(node: str) -> Callable[[dict[str, Any]], bool]:
    """Accept the first progress message of a node."""

    def accept(message: dict[str, Any]) -> bool:
        data = message.get("data", {})
        return message.get("type") == "progress" and str(data.get("node")) == node

    return accept


@pytest.fixture(scope="module")
def large_model(server: ComfyServer) -> Iterator[str]:
    """A WAN of zeros large enough that Cancel arrives in the middle of writing it."""
    tensors = {
        k: torch.zeros(v, dtype=torch.bfloat16) for k, v in wan_shapes(1536, 8960, 6).items()
    }
    path = server.base / "models/diffusion_models/large.safetensors"
    save_file(tensors, path)
    yield path.name
    path.unlink()


def wan_shapes(width: int, ffn: int, blocks: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a text-to-video WAN."""
    linears = {
        "text_embedding.0": (width, 4096),
        "text_embedding.2": (width, width),
        "time_embedding.0": (width, 256),
        "time_embedding.2": (width, width),
        "time_projection.1": (6 * width, width),
        "head.head": (64, width),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (width, 16, 1, 2, 2),
        "patch_embedding.bias": (width,),
        "head.modulation": (1, 2, width),
    }
    for b in range(blocks):
        block = f"blocks.{b}"
        for kind in ("self_attn", "cross_attn"):
            linears |= {f"{block}.{kind}.{p}": (width, width) for p in "qkvo"}
            shapes |= {f"{block}.{kind}.norm_{p}.weight": (width,) for p in "qk"}
        linears |= {f"{block}.ffn.0": (ffn, width), f"{block}.ffn.2": (width, ffn)}
        shapes |= {f"{block}.norm3.weight": (width,), f"{block}.norm3.bias": (width,)}
        shapes[f"{block}.modulation"] = (1, 6, width)
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def files_named(server: ComfyServer, part: str) -> list[Path]:
    return [p for p in (server.base / "models/diffusion_models").iterdir() if part in p.name]


def test_interrupted_file_conversion_leaves_nothing(server: ComfyServer, large_model: str) -> None:
    workflow = wf.quantize_file()
    recipe = wf.inputs(workflow, "NVFP4FoundrySelectPreset")
    recipe["preset"] = "wan2.2-14b"
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file=f"diffusion_models/{large_model}", file_name="cancelled", if_exists="stop"
    )
    run = server.interrupt_when(
        workflow, progress_of(wf.node(workflow, "NVFP4FoundryQuantizeFile"))
    )
    assert run.status == "interrupted"
    assert not files_named(server, "cancelled")
    assert server.run(workflow).status == "success"
    assert [p.name for p in files_named(server, "cancelled")] == ["cancelled.safetensors"]


def test_interrupted_save_leaves_nothing(server: ComfyServer, large_model: str) -> None:
    workflow = wf.without(
        wf.calibrate(file_name="unsaved"),
        "DigitsTextEncoder", "CLIPTextEncode", "NVFP4FoundryCalibrationPrompts",
        "NVFP4FoundryCalibrate", "NVFP4FoundryCalibrationResult", "KSampler", "ModelSamplingSD3",
        "EmptyHunyuanLatentVideo",
    )  # fmt: skip
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = (
        f"diffusion_models/{large_model}"
    )
    del wf.inputs(workflow, "NVFP4FoundryQuantizeModel")["statistics"]
    # nearly everything stays 16-bit: the more there is to write, the surer Cancel hits it
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["extra_rules"] = (
        "blocks.0.self_attn.q = nvfp4\nblocks.* = bf16"
    )
    run = server.interrupt_when(
        workflow, progress_of(wf.node(workflow, "NVFP4FoundrySaveCheckpoint"))
    )
    assert run.status == "interrupted"
    assert not files_named(server, "unsaved")


def test_interrupted_sampling_leaves_no_hooks(server: ComfyServer) -> None:
    workflow = wf.calibrate(seed=5, name="hooks", file_name="hooks")
    wf.inputs(workflow, "KSampler")["steps"] = 200
    run = server.interrupt_when(workflow, progress_of(wf.node(workflow, "KSampler")))
    assert run.status == "interrupted"
    loader = wf.node(workflow, "NVFP4FoundryLoadSourceModel")
    count = {
        loader: workflow[loader],
        "count": {"class_type": "HookCount", "inputs": {"model": [loader, 0], "nonce": 1}},
    }
    counted = server.run(count)
    assert loader not in counted.executed  # the very model that was interrupted
    assert counted.text("count") == "0"
