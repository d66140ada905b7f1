"""What runs again in the next queue run: nodes whose files changed, and no others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, RejectedError, Run

Q = "blocks.1.self_attn.q"


def again(path: Path) -> None:
    """Give a file a later time, as a change does."""
    later = path.stat().st_mtime + 10
    os.utime(path, (later, later))


def done(server: ComfyServer, workflow: wf.Workflow) -> Run:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


def quantizing(model_file: str, file_name: str) -> wf.Workflow:
    """The shipped file to file workflow; node ids by class."""
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundrySelectPreset").update(
        {"preset": "all", "preset.format": "nvfp4", "rounding": "max"}
    )
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file=model_file, file_name=file_name
    )
    return workflow


def test_a_source_or_what_completes_it(server: ComfyServer) -> None:
    folder = server.base / "models/diffusion_models"
    writer = gguf.GGUFWriter(str(folder / "changing.gguf"), "wan")
    for name, tensor in load_file(TINY).items():
        if tensor.dim() < 5:
            writer.add_tensor(name, np.ascontiguousarray(tensor.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copy(TINY, folder / "completing.safetensors")
    workflow = quantizing("diffusion_models/changing.gguf", "changing")
    quantize = wf.node(workflow, "NVFP4FoundryQuantizeFile")
    workflow[quantize]["inputs"]["complete_from"] = "diffusion_models/completing.safetensors"
    recipe = wf.load_recipe(
        workflow, "recipe", "GGUF", higher="float8_e4m3fn", bits_limit=4,
        gguf_file="diffusion_models/changing.gguf", edge_blocks=0, edge_format="bf16",
    )  # fmt: skip
    wf.add(workflow, "save", "NVFP4FoundrySaveRecipe", recipe=[recipe, 0], name="of a gguf")
    assert {quantize, recipe} <= done(server, workflow).executed
    assert not {quantize, recipe} & done(server, workflow).executed
    again(folder / "completing.safetensors")
    assert {quantize, recipe} & done(server, workflow).executed == {quantize}
    again(folder / "changing.gguf")
    assert {quantize, recipe} <= done(server, workflow).executed


def test_a_shard(server: ComfyServer) -> None:
    """The folder and its index do not change when a shard is written anew."""
    folder = server.base / "models/diffusion_models/changing_shards"
    folder.mkdir()
    shard = folder / "m-00001-of-00001.safetensors"
    shutil.copy(TINY, shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(TINY), shard.name)}
    (folder / "m.safetensors.index.json").write_text(json.dumps(index))
    name = "diffusion_models/changing_shards/m.safetensors.index.json"
    workflow = wf.Workflow()
    wf.add(workflow, "inspect", "NVFP4FoundryInspectCheckpoint", model_file=name)
    done(server, workflow)
    assert not done(server, workflow).executed
    again(shard)
    assert done(server, workflow).executed == {"inspect"}


@pytest.fixture(scope="module")
def scales(server: ComfyServer) -> Path:
    """A JSON file of input scales in ComfyUI's input folder."""
    path = server.base / "input" / "scales.json"
    path.write_text(json.dumps({Q: 0.5}))
    return path


def test_input_scales_from_a_file(server: ComfyServer, scales: Path) -> None:
    """A file of scales is taken as it is, and read again when it changed."""
    workflow = quantizing("diffusion_models/tiny_wan.safetensors", "scales_from_file")
    preset = wf.inputs(workflow, "NVFP4FoundrySelectPreset")
    preset.pop("input_scale.headroom", None)
    preset.update({"input_scale": "values from a file", "input_scale.file": "input/scales.json",
                   "input_scale.headroom": 4.0})  # fmt: skip
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile")["if_exists"] = "overwrite"
    made = server.base / "models/diffusion_models/scales_from_file.safetensors"
    done(server, workflow)
    stored = load_file(made)
    assert [n for n in stored if n.endswith(".input_scale")] == [f"{Q}.input_scale"]
    assert float(stored[f"{Q}.input_scale"]) == 0.5
    assert not done(server, workflow).executed
    scales.write_text(json.dumps({Q: 0.25}))
    again(scales)
    done(server, workflow)
    assert float(load_file(made)[f"{Q}.input_scale"]) == 0.25
    assert verify_checkpoint(made, TINY).problems == ()


def test_a_checkpoint_gets_the_scales_of_another(server: ComfyServer, scales: Path) -> None:
    """Another tool's checkpoint may be where they come from."""
    quantized = "diffusion_models/scales_from_file.safetensors"
    done(server, quantizing("diffusion_models/tiny_wan.safetensors", "without_scales"))
    workflow = wf.Workflow()
    wf.add(
        workflow, "rescale", "NVFP4FoundryRescaleCheckpoint", file_name="with_others_scales",
        model_file="diffusion_models/without_scales.safetensors", folder="diffusion_models",
        if_exists="stop", **{"input_scale": "values from a file", "input_scale.file": quantized,
                             "input_scale.headroom": 4.0},
    )  # fmt: skip
    done(server, workflow)
    made = load_file(server.base / "models/diffusion_models/with_others_scales.safetensors")
    assert float(made[f"{Q}.input_scale"]) in (0.5, 0.25)
    workflow["rescale"]["inputs"]["input_scale.file"] = "input/absent.json"
    with pytest.raises(RejectedError, match=r"absent\.json"):
        server.run(workflow)
