"""Logs, scales and checkpoints of other tools, and recipes from them, in a real ComfyUI."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.planning import (
    Plan,
    Recipe,
    get_preset,
    load_recipe,
    make_plan,
    parse_rule_lines,
    take_inventory,
)
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, RejectedError, Run

Q, LOG, CHECKPOINT = "blocks.1.self_attn.q", "wan.log.xz", "to_rescale"
AMAX = 2.5
RULES = "blocks.*.ffn.2 = float8_e4m3fn\nblocks.* @ any = nvfp4"


def plan(recipe: Recipe) -> Plan:
    with open_source(TINY) as source:
        return make_plan(recipe, take_inventory(source))


def models(server: ComfyServer, name: str) -> Path:
    return server.base / "models/diffusion_models" / f"{name}.safetensors"


def kept(server: ComfyServer, kind: str, name: str) -> Path:
    return server.base / "output/nvfp4_foundry" / kind / name


def done(server: ComfyServer, workflow: wf.Workflow) -> Run:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


@pytest.fixture(scope="module")
def files(server: ComfyServer) -> ComfyServer:
    """The server, with a log in its input folder and a checkpoint without static scales."""
    lines = []
    with open_source(TINY) as source:
        for info in source.tensors.values():
            layer = info.name.removesuffix(".weight")
            if layer != info.name and len(info.shape) == 2:
                for amax in (AMAX, AMAX / 2) * 3:
                    lines.append(
                        f"nvfp4\tdynamic\t{layer}\t{amax / 2688:.6f}\t{amax:.6f}\t"
                        f"(40, {info.shape[1]})"
                    )
        convert(source, plan(Recipe(rules=parse_rule_lines(RULES))), models(server, CHECKPOINT))
    folder = server.base / "input"
    folder.mkdir(exist_ok=True)
    (folder / LOG).write_bytes(lzma.compress("\n".join(lines).encode()))
    return server


def importing(save_as: str = "", log: str = LOG) -> wf.Workflow:
    workflow: wf.Workflow = {}
    tiny = "diffusion_models/tiny_wan.safetensors"
    wf.add(workflow, "model", "NVFP4FoundryLoadSourceModel", model_file=tiny)
    wf.add(
        workflow, "log", "NVFP4FoundryImportActivationLog", log_file=log, model=["model", 0],
        ignore_unknown=False, save_as=save_as,
    )  # fmt: skip
    return workflow


def test_a_log_gives_a_checkpoint_static_scales(files: ComfyServer) -> None:
    """From the log to a rescaled file that stock nodes sample."""
    workflow = importing(save_as="from log")
    common = {"statistics": ["log", 0], "input_scale": "amax", "input_scale.headroom": 4.0}
    wf.add(
        workflow, "rescale", "NVFP4FoundryRescaleCheckpoint", **common,
        model_file=f"diffusion_models/{CHECKPOINT}.safetensors", file_name="rescaled",
        folder="diffusion_models", if_exists="stop",
    )  # fmt: skip
    wf.add(
        workflow, "export", "NVFP4FoundryExportInputScales", **common, name="scales",
        layout="layers", format="nvfp4", prefix="",
    )  # fmt: skip
    run = done(files, workflow)
    assert run.text("log").startswith(f"saved as from log\n{LOG}: 276 lines for 46 layers")
    assert "40 added, 0 removed" in run.text("rescale")
    before, after = (load_file(models(files, name)) for name in (CHECKPOINT, "rescaled"))
    assert float(after[f"{Q}.input_scale"]) == pytest.approx(4 * AMAX / 2688)
    assert float(after["blocks.0.ffn.2.input_scale"]) == pytest.approx(4 * AMAX / 448)
    assert all(torch.equal(after[n].view(torch.uint8), t.view(torch.uint8))
               for n, t in before.items() if t.dim())  # fmt: skip
    assert len(after) == len(before) + 40
    assert verify_checkpoint(models(files, "rescaled"), TINY).problems == ()
    exported = json.loads(kept(files, "input_scales", "scales.json").read_text())
    assert exported[Q] == 4 * AMAX / 2688
    statistics = load_statistics(kept(files, "calibrations", "from log.safetensors"))
    assert statistics.amax(Q) == AMAX
    done(files, wf.sample("rescaled.safetensors", prefix="rescaled"))
    latent = load_file(next((files.base / "output").glob("rescaled_*.latent")))
    assert torch.isfinite(latent["latent_tensor"]).all()


def test_a_checkpoint_is_replaced_only_where_told(files: ComfyServer) -> None:
    models(files, "mine").write_bytes(models(files, CHECKPOINT).read_bytes())
    workflow: wf.Workflow = {}
    wf.add(
        workflow, "rescale", "NVFP4FoundryRescaleCheckpoint", input_scale="fixed",
        **{"input_scale.value": 0.5}, model_file="diffusion_models/mine.safetensors",
        file_name="mine", folder="diffusion_models", if_exists="stop",
    )  # fmt: skip
    with pytest.raises(RejectedError, match="exists"):
        files.run(workflow)
    workflow["rescale"]["inputs"]["if_exists"] = "overwrite"
    done(files, workflow)
    assert float(load_file(models(files, "mine"))[f"{Q}.input_scale"]) == 0.5


def test_bad_logs_are_said(files: ComfyServer) -> None:
    with pytest.raises(RejectedError):
        files.run(importing(log="../outside.log"))
    (files.base / "input/other.txt").write_text("nvfp4\tdynamic\tblocks.0.attn.q\t1\t1\t(1, 8)\n")
    run = files.run(importing(log="other.txt"))
    assert run.status == "error" and "nearest names are" in run.error


def recipe_saved(server: ComfyServer, workflow: wf.Workflow, link: list[Any], name: str) -> Recipe:
    wf.add(workflow, "save", "NVFP4FoundrySaveRecipe", recipe=link, name=name)
    done(server, workflow)
    return load_recipe(kept(server, "recipes", f"{name}.json"))


def test_a_checkpoints_recipe_edited_and_saved(files: ComfyServer) -> None:
    workflow: wf.Workflow = {}
    model_file = f"diffusion_models/{CHECKPOINT}.safetensors"
    wf.load_recipe(workflow, "mirror", "checkpoint", model_file=model_file)
    wf.add(
        workflow, "edit", "NVFP4FoundryEditRecipe", recipe=["mirror", 0],
        rules="blocks.0.* = bf16", rounding="mse",
    )  # fmt: skip
    recipe = recipe_saved(files, workflow, ["edit", 0], "mirrored")
    assert recipe.rounding == "mse"
    wanted = plan(Recipe(rules=parse_rule_lines(f"blocks.0.* = bf16\n{RULES}")))
    linears = {la.name: la.format for la in wanted.layers if la.kind == "linear"}
    made = {la.name: la.format for la in plan(recipe).layers if la.kind == "linear"}
    assert made == linears
    workflow["edit"]["inputs"]["rules"] = "blocks.0"
    with pytest.raises(RejectedError, match="pattern = format"):
        files.run(workflow)
    workflow["edit"]["inputs"]["rules"] = "blocks.0.* = fp16"
    done(files, workflow)  # another recipe of this name gets a number
    assert load_recipe(kept(files, "recipes", "mirrored.json")) == recipe
    assert kept(files, "recipes", "mirrored_2.json").exists()


def test_recipes_from_measurements(files: ComfyServer) -> None:
    done(files, importing(save_as="measured"))
    errors = {"weight": None, "w4a16": None, "latent_by_sigma": []}
    layers = [
        {"name": f"blocks.{i}.ffn.0", "shape": [512, 256], "input_id": None,
         "candidates": {"nvfp4": {**errors, "w4a4": error}}}
        for i, error in enumerate((0.05, 0.2, None, 0.05))
    ]  # fmt: skip
    with open_source(TINY) as source:
        model = source.fingerprint().to_json()
    data = {"kind": "nvfp4_foundry.sensitivity", "version": 1, "rounding": "weighted",
            "fingerprint": model, "layers": layers}  # fmt: skip
    path = kept(files, "sensitivities", "by hand.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    workflow: wf.Workflow = {}
    wf.add(workflow, "load", "NVFP4FoundryProbeResult", save_as="", source="by hand")
    wf.add(
        workflow, "model", "NVFP4FoundryLoadSourceModel",
        model_file="diffusion_models/tiny_wan.safetensors",
    )  # fmt: skip
    wf.add(
        workflow, "preset", "NVFP4FoundrySelectPreset", preset="auto", extra_rules="",
        rounding="weighted", input_scale="dynamic",
    )  # fmt: skip
    wf.add(
        workflow, "plan", "NVFP4FoundryPlanLayers", model=["model", 0], recipe=["preset", 0],
        any_architecture=False,
    )  # fmt: skip
    wf.add(
        workflow, "limit", "NVFP4FoundryAutoMix", model=["model", 0], plan=["plan", 0],
        sensitivity=["load", 0], budget="largest error of a layer", save_as="",
        formats="nvfp4, bf16", **{"budget.layer_percent": 8.0},
    )  # fmt: skip
    recipe = recipe_saved(files, workflow, ["limit", 1], "limited")
    formats = {la.name: la.format for la in plan(recipe).layers}
    assert [formats[f"blocks.{i}.ffn.0"] for i in range(4)] == ["nvfp4", "bf16", "bf16", "nvfp4"]
    assert formats[Q] == "bf16" and formats["head.head"] == "keep"  # not measured; not planned

    workflow = {}
    wf.add(workflow, "load", "NVFP4FoundryLoadCalibration", name="measured")
    limits = {"max_input_error": 12.0, "max_spread": 4.0, "careful": "nvfp4_w4a16"}
    connected = {**limits, "unseen": "keep", "calibration": "the connected calibration"}
    wf.load_recipe(workflow, "advice", "calibration", **connected)
    workflow["advice"]["inputs"]["statistics"] = ["load", 0]
    advised = recipe_saved(files, workflow, ["advice", 0], "advised")
    assert plan(advised).counts() == plan(get_preset("smart").build()).counts()
