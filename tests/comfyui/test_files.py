"""Model files: every kind is read, LoRAs on the model are in it, none is overwritten unasked."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, RejectedError


@pytest.mark.parametrize("kind", ["index", "folder", "prefixed"])
def test_every_source_kind_loads_and_quantizes(server: ComfyServer, kind: str) -> None:
    tensors = load_file(TINY)
    folder = server.base / "models/diffusion_models" / kind
    folder.mkdir()
    if kind == "prefixed":
        prefixed = {f"model.diffusion_model.{k}": v for k, v in tensors.items()}
        save_file(prefixed, folder / "prefixed.safetensors")
        name = f"diffusion_models/{kind}/prefixed.safetensors"
    else:
        names = sorted(tensors)
        weight_map = {}
        for i, part in enumerate((names[::2], names[1::2]), 1):
            shard = f"m-0000{i}-of-00002.safetensors"
            save_file({n: tensors[n] for n in part}, folder / shard)
            weight_map |= dict.fromkeys(part, shard)
        name = f"diffusion_models/{kind}/"
        if kind == "index":
            index = folder / "m.safetensors.index.json"
            index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
            name += index.name
    workflow = wf.calibrate(seed=1, name=f"kind-{kind}", file_name=f"out-{kind}")
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = name
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = server.base / "models/diffusion_models" / f"out-{kind}.safetensors"
    assert verify_checkpoint(made, TINY).problems == ()


def test_loras_on_the_model_are_in_the_checkpoint(server: ComfyServer) -> None:
    """A LoRA applied by the stock node, against the merge worked out by hand."""
    source = load_file(TINY)
    generator = torch.Generator().manual_seed(0)
    layer = "blocks.1.ffn.0"
    out, inn = source[f"{layer}.weight"].shape
    down, up = torch.randn(4, inn, generator=generator), torch.randn(out, 4, generator=generator)
    (server.base / "models/loras").mkdir(exist_ok=True)
    save_file(
        {
            f"diffusion_model.{layer}.lora_A.weight": down * 0.05,
            f"diffusion_model.{layer}.lora_B.weight": up * 0.05,
        },
        server.base / "models/loras/tiny.safetensors",
    )
    workflow = wf.calibrate(file_name="with_lora")
    workflow = wf.without(
        workflow, "DigitsTextEncoder", "CLIPTextEncode", "NVFP4FoundryCalibrationPrompts",
        "NVFP4FoundryCalibrate", "NVFP4FoundryCalibrationResult", "KSampler", "ModelSamplingSD3",
        "EmptyHunyuanLatentVideo",
    )  # fmt: skip
    lora = wf.add(
        workflow, "lora", "LoraLoaderModelOnly", lora_name="tiny.safetensors", strength_model=0.5,
        model=[wf.node(workflow, "NVFP4FoundryLoadSourceModel"), 0],
    )  # fmt: skip
    wf.inputs(workflow, "NVFP4FoundryPlanLayers")["model"] = [lora, 0]
    quantize = wf.inputs(workflow, "NVFP4FoundryQuantizeModel")
    quantize["model"] = [lora, 0]
    del quantize["statistics"]
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["extra_rules"] = f"{layer} = bf16"
    run = server.run(workflow)
    assert run.status == "success", run.error
    assert "LoRAs or merges" in run.text(wf.node(workflow, "NVFP4FoundryPlanLayers"))
    made = load_file(server.base / "models/diffusion_models/with_lora.safetensors")
    merged = source[f"{layer}.weight"].float() + 0.5 * (up * 0.05) @ (down * 0.05)
    difference = (made[f"{layer}.weight"].float() - merged).abs().max()
    assert float(difference) <= 2.0**-8 * float(merged.abs().max())  # one rounding to bf16
    assert not torch.equal(made[f"{layer}.weight"], source[f"{layer}.weight"])
    assert torch.equal(made["head.head.weight"], source["head.head.weight"])


def test_quantize_file_and_inspect(server: ComfyServer) -> None:
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "wan2.2-14b"
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file="diffusion_models/tiny_wan.safetensors",
        file_name="sub/from_file",
        folder="output",
    )
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = server.base / "output/sub/from_file.safetensors"
    assert verify_checkpoint(made, TINY).problems == ()
    inspect: dict[str, Any] = {}
    tiny = "diffusion_models/tiny_wan.safetensors"
    wf.add(inspect, "i", "NVFP4FoundryInspectCheckpoint", model_file=tiny)
    assert "46 bf16" in server.run(inspect).text("i")


def test_an_existing_file_is_never_overwritten_unless_told(server: ComfyServer) -> None:
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "all"
    recipe = wf.inputs(workflow, "NVFP4FoundrySelectPreset")
    for key in [k for k in recipe if k.startswith("preset.")]:
        del recipe[key]
    recipe["preset.format"] = "nvfp4"
    target = wf.inputs(workflow, "NVFP4FoundryQuantizeFile")
    target.update(model_file="diffusion_models/tiny_wan.safetensors", file_name="taken")
    taken = server.base / "models/diffusion_models/taken.safetensors"
    taken.write_bytes(b"precious")
    assert server.run(workflow).status == "success"
    assert taken.read_bytes() == b"precious"
    assert taken.with_name("taken_2.safetensors").is_file()
    target["if_exists"] = "stop"
    with pytest.raises(RejectedError, match="exists"):
        server.run(workflow)
    target["if_exists"] = "overwrite"
    assert server.run(workflow).status == "success"
    target["file_name"] = "tiny_wan"  # the source itself
    assert "source itself" in server.run(workflow).error
    assert verify_checkpoint(taken, TINY).problems == ()
