"""Models that others quantized, loaded by our node, calibrated and quantized in a real ComfyUI."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer
from tests.helpers.quantized_files import MAKERS


@pytest.mark.parametrize("kind", ["scaled fp8", "ComfyUI nvfp4", "ModelOpt", "float8 by rows"])
def test_calibrates_and_quantizes(server: ComfyServer, kind: str) -> None:
    name = kind.replace(" ", "_")
    folder = server.base / "models/diffusion_models"
    tensors = MAKERS[kind](load_file(TINY))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / f"{name}.safetensors")
    workflow = wf.calibrate(seed=1, name=name, file_name=f"{name}_out")
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = (
        f"diffusion_models/{name}.safetensors"
    )
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = folder / f"{name}_out.safetensors"
    with open_source(folder / f"{name}.safetensors") as source, open_source(made) as result:
        assert set(source.tensors) == set(result.tensors)
        same = 0
        for tensor in source.tensors:
            before, after = source.load(tensor).float(), result.load(tensor).float()
            error = float((after - before).norm() / before.norm().clamp(min=1e-9))
            assert error < 0.12, tensor
            stored = result.stored_weight(tensor)
            assert stored is None or stored.input_amax() is not None, tensor
            same += error == 0 and stored is not None
    assert (same > 0) == (kind != "float8 by rows")  # taken over where the preset asks for the same
    assert all(bool(torch.isfinite(t.float()).all()) for t in load_file(made).values())


def test_a_lora_on_a_quantized_model_is_merged(server: ComfyServer) -> None:
    """Weights the LoRA changes are decoded, merged and quantized; others are taken over."""
    folder = server.base / "models/diffusion_models"
    tensors = MAKERS["scaled fp8"](load_file(TINY))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "fp8_for_lora.safetensors")
    layer = "blocks.1.ffn.0"
    out, width = tensors[f"{layer}.weight"].shape
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(s, generator=generator) * 0.05 for s in ((4, width), (out, 4)))
    (server.base / "models/loras").mkdir(exist_ok=True)
    lora = {f"diffusion_model.{layer}.lora_A.weight": down,
            f"diffusion_model.{layer}.lora_B.weight": up}  # fmt: skip
    save_file(lora, server.base / "models/loras/for_fp8.safetensors")
    workflow = wf.calibrate(seed=1, name="lora_fp8", file_name="lora_fp8_out")
    loader = wf.node(workflow, "NVFP4FoundryLoadSourceModel")
    workflow[loader]["inputs"]["model_file"] = "diffusion_models/fp8_for_lora.safetensors"
    for node in workflow.values():
        for name, value in node["inputs"].items():
            if value == [loader, 0]:
                node["inputs"][name] = ["lora", 0]
    wf.add(workflow, "lora", "LoraLoaderModelOnly", lora_name="for_fp8.safetensors",
           strength_model=1.0, model=[loader, 0])  # fmt: skip
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["extra_rules"] = f"{layer} = float8_e4m3fn"
    run = server.run(workflow)
    assert run.status == "success", run.error
    with open_source(folder / "fp8_for_lora.safetensors") as source:
        before = source.load(f"{layer}.weight")
    with open_source(folder / "lora_fp8_out.safetensors") as result:
        after = result.load(f"{layer}.weight")
    merged = before + up @ down
    assert float((after - merged).norm() / merged.norm()) < 0.035
    assert float((before - merged).norm() / merged.norm()) > 0.1


def test_a_quantized_model_without_a_file_is_read_from_memory(server: ComfyServer) -> None:
    """What Quantize returns can be planned and quantized again: its layers are taken over."""
    workflow = wf.calibrate(seed=1, name="from_memory", file_name="from_memory")
    quantize = wf.node(workflow, "NVFP4FoundryQuantizeModel")
    recipe = [wf.node(workflow, "NVFP4FoundrySelectPreset"), 0]
    wf.add(workflow, "plan again", "NVFP4FoundryPlanLayers", model=[quantize, 0], recipe=recipe,
           any_architecture=False)  # fmt: skip
    wf.add(workflow, "again", "NVFP4FoundryQuantizeModel", model=[quantize, 0],
           plan=["plan again", 0], preview="as this machine runs it")  # fmt: skip
    save = wf.inputs(workflow, "NVFP4FoundrySaveCheckpoint")
    wf.add(workflow, "save again", "NVFP4FoundrySaveCheckpoint",
           **{**save, "checkpoint": ["again", 1], "file_name": "from_memory_again"})  # fmt: skip
    run = server.run(workflow)
    assert run.status == "success", run.error
    folder = server.base / "models/diffusion_models"
    once, twice = (load_file(folder / f"from_memory{s}.safetensors") for s in ("", "_again"))
    assert set(once) == set(twice)
    for name, tensor in once.items():
        if not name.endswith("comfy_quant"):  # ComfyUI may hold unquantized tensors wider
            assert torch.equal(tensor.float(), twice[name].float()), name
