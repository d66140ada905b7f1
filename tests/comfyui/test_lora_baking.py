"""Quantizing a MODEL with a LoRA in a real ComfyUI, against merging the LoRA by hand first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.sources import StateDictSource
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_python import ComfyUI
from tests.comfyui.comfy_server import TINY, ComfyServer, Run

SCRIPT = "merged_tiny_wan.py"
RANK, ALPHA, STRENGTH = 8, 4.0, 0.75
CHANGE = 0.01  # of a weight's norm: what half of bf16's last bit is to a weight, thrice
LAYERS = (
    *(f"blocks.{b}.{a}_attn.{p}" for b in range(4) for a in ("self", "cross") for p in "qkvo"),
    *(f"blocks.{b}.ffn.{n}" for b in range(4) for n in (0, 2)),
    "head.head",  # stays bf16
)
LORA = str(Path("style", "tiny.safetensors"))
# Values on a rounding boundary may fall on either side with another order of sums.
SAME = 1e-5
BIAS, NORM = "blocks.1.ffn.0.bias", "blocks.2.norm3.weight"

Tensors = dict[str, torch.Tensor]


def make_lora(base: Tensors, seed: int = 0) -> Tensors:
    """A WAN LoRA: up and down per layer, and the differences of one bias and one norm."""
    generator = torch.Generator().manual_seed(seed)
    lora: Tensors = {}
    for name in LAYERS:
        weight = base[f"{name}.weight"].float()
        down = torch.randn(RANK, weight.shape[1], generator=generator)
        up = torch.randn(weight.shape[0], RANK, generator=generator)
        delta = STRENGTH * ALPHA / RANK * up @ down
        up *= CHANGE * weight.norm() / delta.norm()
        lora[f"diffusion_model.{name}.lora_down.weight"] = down.half()
        lora[f"diffusion_model.{name}.lora_up.weight"] = up.half()
        lora[f"diffusion_model.{name}.alpha"] = torch.tensor(ALPHA)
    for name, kind in ((BIAS, "diff_b"), (NORM, "diff")):
        change = 0.01 * torch.randn(base[name].shape, generator=generator)
        lora[f"diffusion_model.{name.rpartition('.')[0]}.{kind}"] = change
    return lora


def merge_by_hand(base: Tensors, lora: Tensors) -> Tensors:
    """``W + strength * alpha / rank * up @ down`` in float64, stored in float32."""
    merged = dict(base)
    for name in LAYERS:
        up, down = (
            lora[f"diffusion_model.{name}.lora_{k}.weight"].double() for k in ("up", "down")
        )
        weight = base[f"{name}.weight"].double() + STRENGTH * ALPHA / RANK * up @ down
        merged[f"{name}.weight"] = weight.float()
    for name, kind in ((BIAS, "diff_b"), (NORM, "diff")):
        change = lora[f"diffusion_model.{name.rpartition('.')[0]}.{kind}"].double()
        merged[name] = (base[name].double() + STRENGTH * change).float()
    return merged


def quantize_workflow(model: str, name: str, *, sampled: bool = False) -> wf.Workflow:
    """Load with stock nodes, apply the LoRA, plan, quantize, save; ``sampled``: only sample."""
    workflow = wf.sample(model, digit=3, prefix=name)
    lora = {"lora_name": LORA, "strength_model": ["strength", 0]}
    unet = [wf.node(workflow, "UNETLoader"), 0]
    wf.add(workflow, "strength", "PrimitiveFloat", value=STRENGTH)
    wf.add(workflow, "lora", "LoraLoaderModelOnly", model=unet, **lora)
    wf.inputs(workflow, "ModelSamplingSD3")["model"] = ["lora", 0]
    wf.inputs(workflow, "KSampler")["steps"] = 1
    if sampled:
        return workflow
    shipped = wf.calibrate(file_name=name)
    recipe = wf.inputs(shipped, "NVFP4FoundrySelectPreset")
    wf.add(workflow, "recipe", "NVFP4FoundrySelectPreset", **{**recipe, "preset.edge_blocks": 1})
    wf.add(
        workflow, "plan", "NVFP4FoundryPlanLayers",
        model=["lora", 0], recipe=["recipe", 0], any_architecture=False,
    )  # fmt: skip
    quantize = {**wf.inputs(shipped, "NVFP4FoundryQuantizeModel"), "model": ["lora", 0]}
    del quantize["statistics"]
    wf.add(workflow, "quantize", "NVFP4FoundryQuantizeModel", **{**quantize, "plan": ["plan", 0]})
    target = {"file_name": name, "folder": "diffusion_models", "if_exists": "stop"}
    wf.add(workflow, "save", "NVFP4FoundrySaveCheckpoint", checkpoint=["quantize", 1], **target)
    kept = ("UNETLoader", "LoraLoaderModelOnly", "PrimitiveFloat")
    return {
        key: value
        for key, value in workflow.items()
        if value["class_type"] in kept or value["class_type"].startswith("NVFP4Foundry")
    }


@pytest.fixture(scope="module")
def base() -> Tensors:
    """The tiny model's tensors."""
    return load_file(TINY)


@pytest.fixture(scope="module")
def merged(base: Tensors, server: ComfyServer) -> Tensors:
    """The model with the LoRA merged by hand; the LoRA is in ComfyUI's folder."""
    lora = make_lora(base)
    folder = server.base / "models" / "loras" / "style"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora, folder / "tiny.safetensors")
    matrices = {name: tensor for name, tensor in lora.items() if ".diff" not in name}
    save_file(matrices, folder.parent / "matrices.safetensors")
    return merge_by_hand(base, lora)


@pytest.fixture(scope="module")
def baked(server: ComfyServer, merged: Tensors) -> tuple[Run, Path]:
    """The workflow's run and the checkpoint it saved."""
    run = server.run(quantize_workflow(TINY.name, "baked"))
    assert run.status == "success", run.error
    return run, server.base / "models" / "diffusion_models" / "baked.safetensors"


@pytest.fixture(scope="module")
def reference(merged: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model merged by hand, in float32, quantized in this process."""
    return convert_by_hand(merged, tmp_path_factory.mktemp("hand") / "reference.safetensors")


def convert_by_hand(tensors: Mapping[str, torch.Tensor], path: Path) -> Path:
    """Quantize a merged state dict as the workflow does."""
    recipe = wf.inputs(wf.calibrate(), "NVFP4FoundrySelectPreset")
    settings = {
        key.removeprefix("preset."): value
        for key, value in recipe.items()
        if key.startswith("preset.")
    }
    built = get_preset(recipe["preset"]).build({**settings, "edge_blocks": 1})
    source = StateDictSource(tensors)
    plan = make_plan(built.with_numbers(recipe["rounding"], "amax*4"), take_inventory(source))
    convert(source, plan, path)
    return path


def differing(a: Path, b: Path) -> float:
    """Return the share of values, of quantized and plain tensors alike, that are not equal."""
    ours, theirs = load_file(a), load_file(b)
    assert ours.keys() == theirs.keys()
    # the reference holds merged plain tensors in float32
    pairs = [(ours[name].float(), theirs[name].to(ours[name].dtype).float()) for name in ours]
    unequal = sum(int((~torch.isclose(x, y, rtol=1e-6, atol=1e-8)).sum()) for x, y in pairs)
    return unequal / sum(x.numel() for x, _ in pairs)


def test_the_same_as_merging_first(baked: tuple[Run, Path], reference: Path) -> None:
    assert differing(baked[1], reference) <= SAME


def test_rounding_the_merge_to_16_bits_first_is_not_the_same(
    baked: tuple[Run, Path], merged: Tensors, base: Tensors, tmp_path: Path
) -> None:
    rounded = {name: tensor.to(base[name].dtype) for name, tensor in merged.items()}
    path = convert_by_hand(rounded, tmp_path / "rounded.safetensors")
    assert differing(baked[1], path) > 500 * SAME


def test_plain_tensors_keep_the_dtype_of_the_file(
    baked: tuple[Run, Path], merged: Tensors, base: Tensors
) -> None:
    stored = load_file(baked[1])
    for name in (BIAS, NORM, "head.head.weight"):
        assert stored[name].dtype == base[name].dtype
        assert not torch.equal(stored[name], base[name])
        # one unit in the last place: two float32 sums may lie on either side of a half
        torch.testing.assert_close(stored[name], merged[name].bfloat16(), rtol=2**-7, atol=0)
    assert verify_checkpoint(baked[1]).ok


def test_the_report_names_the_lora(baked: tuple[Run, Path], server: ComfyServer) -> None:
    run, path = baked
    assert f"LoRAs       {LORA} at {STRENGTH:g}" in run.text("save")
    for node in ("quantize", "save"):
        text = run.text(node)
        assert f"{len(LAYERS) + 2} tensors have LoRAs or merges applied, at strength" in text
    for node in ("plan", "quantize"):
        assert f"LoRA {LORA} at {STRENGTH:g}" in run.text(node)
    recorded = inspect_checkpoint(path).provenance["loras"]
    assert recorded == [{"name": LORA, "strength": STRENGTH}]


def test_a_model_that_was_sampled_already(
    server: ComfyServer, merged: Tensors, reference: Path
) -> None:
    """ComfyUI patches the weights in place to sample, and keeps the MODEL for the next run."""
    assert server.run(quantize_workflow(TINY.name, "warm", sampled=True)).status == "success"
    run = server.run(quantize_workflow(TINY.name, "warm"))
    assert run.status == "success", run.error
    assert "lora" not in run.executed
    path = server.base / "models" / "diffusion_models" / "warm.safetensors"
    assert differing(path, reference) <= SAME


def test_a_sampled_model_whose_file_is_gone(
    server: ComfyServer, merged: Tensors, reference: Path
) -> None:
    """Then the originals are those ComfyUI put aside when it patched in place."""
    copy = server.base / "models" / "diffusion_models" / "gone.safetensors"
    shutil.copy(TINY, copy)
    workflow = quantize_workflow(copy.name, "from-memory")
    assert server.run(quantize_workflow(copy.name, "x", sampled=True)).status == "success"
    # a new file under the name: ComfyUI may still have the old one mapped
    copy.rename(copy.with_suffix(".away"))
    copy.write_bytes(b"no longer a model")
    run = server.run(workflow)
    assert run.status == "success", run.error
    assert "the weights are read from memory" in run.text("quantize")
    path = server.base / "models" / "diffusion_models" / "from-memory.safetensors"
    assert differing(path, reference) <= SAME


@pytest.mark.parametrize("calibrated", ["base", "lora"])
def test_calibrations_of_the_base_are_taken_with_a_warning(
    server: ComfyServer, merged: Tensors, calibrated: str
) -> None:
    workflow = wf.calibrate(name=f"drift-{calibrated}", file_name=f"drift-{calibrated}")
    model = [wf.node(workflow, "NVFP4FoundryLoadSourceModel"), 0]
    # the LoRA without its bias and norm: those make another model of it
    wf.add(
        workflow, "lora", "LoraLoaderModelOnly",
        model=model, lora_name="matrices.safetensors", strength_model=STRENGTH,
    )  # fmt: skip
    for class_type in ("NVFP4FoundryPlanLayers", "NVFP4FoundryQuantizeModel"):
        wf.inputs(workflow, class_type)["model"] = ["lora", 0]
    if calibrated == "lora":
        wf.inputs(workflow, "NVFP4FoundryCalibrate")["model"] = ["lora", 0]
    run = server.run(workflow)
    assert run.status == "success", run.error
    planned = run.text(wf.node(workflow, "NVFP4FoundryQuantizeModel"))
    report = run.text(wf.node(workflow, "NVFP4FoundrySaveCheckpoint"))
    for text in (planned, report):
        warned = "the calibration was made on other weights" in text
        assert warned == (calibrated == "base")
    assert "LoRAs       matrices.safetensors at 0.75" in report


def test_patches_of_every_kind_on_a_model_in_every_state(comfyui: ComfyUI, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    comfyui.run(SCRIPT, result)
    errors = json.loads(result.read_text())
    assert len(errors) == 7 * 5
    assert {case: error for case, error in errors.items() if error > 2e-7} == {}
