"""Auto Mix in a real ComfyUI: from a calibration to a file that stock nodes sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.derive import Mix, mix_plan, parse_budget
from nvfp4_foundry.quant.planning import Plan, get_preset, load_recipe, make_plan, take_inventory
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity, load_sensitivity
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import ComfyServer, RejectedError, Run

NAME, FILE = "mixed", "tiny_mix"
MIX, PLAN = "NVFP4FoundryAutoMix", "NVFP4FoundryPlanLayers"
Budget = dict[str, Any]


@pytest.fixture(scope="module")
def shipped(server: ComfyServer) -> Run:
    """The shipped workflow, run once: at the preset's own size."""
    return done(server, wf.measure_and_mix(name=NAME, file_name=FILE))


def done(server: ComfyServer, workflow: wf.Workflow) -> Run:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


def kept(server: ComfyServer, kind: str, name: str) -> Path:
    return server.base / "output" / "nvfp4_foundry" / kind / f"{name}.json"


def checkpoint(server: ComfyServer, name: str) -> Path:
    return server.base / "models" / "diffusion_models" / f"{name}.safetensors"


def preset_plan() -> Plan:
    """The plan of the workflow's preset."""
    recipe = get_preset("wan2.2-14b").build({"edge_blocks": 1})
    with open_source(MODEL_PATH) as source:
        return make_plan(recipe, take_inventory(source))


def planned_by(recipe: Path) -> Plan:
    """The plan of a saved recipe."""
    with open_source(MODEL_PATH) as source:
        return make_plan(load_recipe(recipe), take_inventory(source))


def mix_of(sensitivity: Sensitivity, budget: str | None = None, **options: Any) -> Mix:
    """What the backend makes of it by itself."""
    with open_source(MODEL_PATH) as source:
        return mix_plan(
            preset_plan(),
            take_inventory(source),
            sensitivity,
            parse_budget(budget) if budget else None,
            **options,
        )


def among(*names: str) -> str:
    """Return a choice of formats."""
    return ", ".join(names)


def mixing(sensitivity: str = NAME, *, save_as: str = "", **values: Any) -> wf.Workflow:
    """Mix by a saved sensitivity, and save what that makes."""
    workflow = wf.without(
        wf.measure_and_mix(file_name="unused"),
        "DigitsTextEncoder", "CLIPTextEncode", "NVFP4FoundryCalibrationPrompts",
        "NVFP4FoundryCalibrate", "NVFP4FoundryCalibrationResult", "KSampler", "ModelSamplingSD3",
        "EmptyHunyuanLatentVideo", "NVFP4FoundryMeasureSensitivity", "NVFP4FoundryProbeLatentShift",
        "NVFP4FoundryProbeResult", "NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint",
    )  # fmt: skip
    wf.add(workflow, "load", "NVFP4FoundryProbeResult", save_as="", source=sensitivity)
    mix = wf.inputs(workflow, MIX)
    mix.update(sensitivity=["load", 0], save_as=save_as, **values)
    return workflow


def formats(plan: Plan) -> dict[str, str]:
    return {layer.name: layer.format for layer in plan.layers if layer.kind == "linear"}


def test_the_mix_is_what_the_backend_chooses(server: ComfyServer, shipped: Run) -> None:
    mix = mix_of(load_sensitivity(kept(server, "sensitivities", NAME)))
    stored = {la.name: la.format for la in inspect_checkpoint(checkpoint(server, FILE)).layers}
    wanted = {name: fmt for name, fmt in formats(mix.plan).items() if fmt != "keep"}
    assert {name: stored[name] for name in wanted} == wanted
    assert len(mix.point.counts) > 1
    assert mix.point.error < 0.9 * mix.preset.error
    # the plan is connected to the probe, which sampled this mix and the preset whole
    assert mix.sampled is not None and mix.sampled.preset is not None
    assert mix.sampled.mix < 0.9 * mix.sampled.preset and mix.sampled.mixes > 2


def test_the_file_is_not_larger_than_the_presets(server: ComfyServer, shipped: Run) -> None:
    tensors = load_file(checkpoint(server, FILE))
    assert sum(tensor.nbytes for tensor in tensors.values()) <= preset_plan().bytes_after
    assert verify_checkpoint(checkpoint(server, FILE), MODEL_PATH).problems == ()


def test_what_the_preset_never_quantizes_stays(server: ComfyServer, shipped: Run) -> None:
    source, stored = load_file(MODEL_PATH), load_file(checkpoint(server, FILE))
    untouched = [la for la in preset_plan().layers if la.format == "keep"]
    names = [n for n in source for la in untouched if n in (la.name, f"{la.name}.weight")]
    assert "head.head.weight" in names and "patch_embedding.weight" in names
    assert all(torch.equal(source[name], stored[name]) for name in names)


def test_the_file_samples_with_stock_nodes(server: ComfyServer, shipped: Run) -> None:
    for model in ("tiny_wan.safetensors", f"{FILE}.safetensors"):
        done(server, wf.sample(model, prefix=f"of-{model}"))
    exact, mixed = (
        load_file(sorted((server.base / "output").glob(f"of-{model}*.latent"))[-1])["latent_tensor"]
        for model in ("tiny_wan", FILE)
    )
    assert mixed.isfinite().all()
    assert 0 < float((mixed - exact).norm() / exact.norm()) < 0.2


def test_report_and_frontier_are_shown(server: ComfyServer, shipped: Run) -> None:
    (mix,) = (key for key, value in shipped.outputs.items() if "this mix" in str(value))
    lines = shipped.text(mix).splitlines()
    assert lines[0] == f"saved as {NAME}"
    assert lines[1].startswith("model   WAN T2V") and lines[2].startswith("budget  size ")
    assert "preset wan2.2-14b" in shipped.text(mix)
    view = shipped.view(mix)
    assert view["kind"] == "mix" and view["frontier"]["preset"]["name"] == "wan2.2-14b"
    assert len(view["frontier"]["points"]) > 3 and view["edit"]["widget"] == "rules"


def test_a_saved_mix_plans_the_same_again(server: ComfyServer, shipped: Run) -> None:
    workflow = wf.without(mixing(), MIX, "NVFP4FoundrySelectPreset", "NVFP4FoundryProbeResult")
    wf.load_recipe(workflow, "recipe", "recipe file", name=NAME)
    wf.inputs(workflow, PLAN)["recipe"] = ["recipe", 0]
    wf.add(
        workflow, "quantize", "NVFP4FoundryQuantizeFile",
        model_file="diffusion_models/tiny_wan.safetensors", recipe=["recipe", 0],
        file_name="again", folder="diffusion_models", if_exists="stop", any_architecture=False,
    )  # fmt: skip
    run = done(server, workflow)
    assert run.text("recipe").startswith("recipe  wan2.2-14b-mix\nabout   Mix for size")
    assert "recipe  wan2.2-14b-mix" in run.text(wf.node(workflow, PLAN))
    again = planned_by(kept(server, "recipes", NAME))
    mix = mix_of(load_sensitivity(kept(server, "sensitivities", NAME)))
    assert formats(again) == formats(mix.plan) and again.bytes_after == mix.point.bytes
    first, second = (
        {la.name: la.format for la in inspect_checkpoint(checkpoint(server, name)).layers}
        for name in (FILE, "again")
    )
    assert first == second


@pytest.mark.parametrize(
    ("values", "budget"),
    [
        ({"budget": "target size", "budget.gigabytes": 0.0055}, "size=5.5MB"),
        ({"budget": "average bits", "budget.bits": 5.5}, "bits=5.5"),
        ({"budget": "largest error", "budget.percent": 3.0}, "error=3%"),
    ],
    ids=["size", "bits", "error"],
)
def test_budgets(server: ComfyServer, shipped: Run, values: Budget, budget: str) -> None:
    name = budget.partition("=")[0]
    done(server, mixing(save_as=name, **values))
    mix = mix_of(load_sensitivity(kept(server, "sensitivities", NAME)), budget)
    assert formats(planned_by(kept(server, "recipes", name))) == formats(mix.plan)
    assert 0 <= mix.below_budget < 0.2


def test_allowed_formats(server: ComfyServer, shipped: Run) -> None:
    allowed = among("nvfp4_w4a16", "float8_e4m3fn")
    values = {"budget": "average bits", "budget.bits": 6.0, "formats": allowed}
    done(server, mixing(save_as="two formats", **values))
    recipe = load_recipe(kept(server, "recipes", "two formats"))
    chosen = {rule.format for rule in recipe.rules if rule.why == "mix"}
    assert chosen == {"nvfp4_w4a16", "float8_e4m3fn"}


def test_formats_that_a_workflow_does_not_mention_are_the_usual_ones(
    server: ComfyServer, shipped: Run
) -> None:
    workflow = mixing(save_as="unmentioned")
    mix = wf.inputs(workflow, MIX)
    del mix["formats"]
    done(server, workflow)
    with_all = load_recipe(kept(server, "recipes", NAME))
    assert load_recipe(kept(server, "recipes", "unmentioned")) == with_all


def test_a_save_never_overwrites(server: ComfyServer, shipped: Run) -> None:
    workflow = mixing(save_as=NAME)
    before = kept(server, "recipes", NAME).read_bytes()
    mix = wf.node(workflow, MIX)
    assert done(server, workflow).text(mix).startswith(f"saved as {NAME}\n")
    workflow[mix]["inputs"].update({"budget": "average bits", "budget.bits": 7.0})
    assert done(server, workflow).text(mix).startswith(f"saved as {NAME}_2\n")
    assert kept(server, "recipes", NAME).read_bytes() == before
    assert not kept(server, "recipes", f"{NAME}_3").exists()


def test_a_rule_of_the_node_decides_its_layers(server: ComfyServer, shipped: Run) -> None:
    values = {"rules": "blocks.1.ffn.2 = bf16", "budget": "average bits", "budget.bits": 7.0}
    done(server, mixing(save_as="with a rule", **values))
    chosen = formats(planned_by(kept(server, "recipes", "with a rule")))
    assert chosen["blocks.1.ffn.2"] == "bf16"


def test_an_error_for_each_layer(server: ComfyServer, shipped: Run) -> None:
    values = {"budget": "largest error of a layer", "budget.layer_percent": 9.0}
    done(server, mixing(save_as="each layer", **values))
    mix = mix_of(load_sensitivity(kept(server, "sensitivities", NAME)), "layer-error=9%")
    assert formats(planned_by(kept(server, "recipes", "each layer"))) == formats(mix.plan)
    assert len(mix.point.counts) > 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget": "target size", "budget.gigabytes": 0.001}, "out of reach"),
        ({"budget": "average bits", "budget.bits": 1.0}, "out of reach"),
        (
            {
                "budget": "largest error",
                "budget.percent": 0.01,
                "formats": among("nvfp4", "float8_e4m3fn"),
            },
            "out of reach",
        ),
        ({"formats": among()}, "formats to choose"),
    ],
    ids=["size", "bits", "error", "no format"],
)
def test_what_cannot_be_had_is_an_error(
    server: ComfyServer, shipped: Run, values: Budget, message: str
) -> None:
    run = server.run(mixing(**values))
    assert run.status == "error" and message in run.error


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (MIX, "sensitivity is from a different model"),
        (PLAN, "the plan was made for another model: blocks.3."),
    ],
)
def test_a_sensitivity_or_a_plan_of_another_model_is_an_error(
    server: ComfyServer, shipped: Run, node: str, message: str
) -> None:
    tensors = {n: t.clone() for n, t in load_file(MODEL_PATH).items()}
    if node == MIX:
        tensors["blocks.0.norm3.bias"] += 1
    else:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("blocks.3.")}
    save_file(tensors, checkpoint(server, f"other than of {node}"))
    workflow = mixing()
    wf.add(
        workflow, "other", "UNETLoader",
        unet_name=f"other than of {node}.safetensors", weight_dtype="default",
    )  # fmt: skip
    wf.inputs(workflow, node)["model"] = ["other", 0]
    run = server.run(workflow)
    assert run.status == "error" and message in run.error


def test_what_is_wrong_is_said_before_the_queue_starts(server: ComfyServer, shipped: Run) -> None:
    with pytest.raises(RejectedError, match="not a valid name for a recipe"):
        server.queue(mixing(save_as="../outside"))
    loading = {"recipe": {"class_type": "NVFP4FoundryLoadRecipe", "inputs": {"name": "gone"}}}
    wf.add(loading, "show", "PreviewAny", source=["recipe", 1])
    with pytest.raises(RejectedError):
        server.queue(loading)
    kept(server, "recipes", "damaged").write_text("{}{", encoding="utf-8")
    loading["recipe"]["inputs"]["name"] = "damaged"
    run = server.run(loading)
    assert run.status == "error" and "is not JSON" in run.error


def test_a_sensitivity_that_was_not_probed_is_warned_of(server: ComfyServer, shipped: Run) -> None:
    assert "of the sampled latent" in "".join(map(str, shipped.outputs.values()))
    known = load_sensitivity(kept(server, "sensitivities", NAME))
    measured = known.with_latents("nvfp4", {}).with_latents("float8_e4m3fn", {})
    kept(server, "sensitivities", "mixed by outputs").write_text(json.dumps(measured.to_json()))
    workflow = mixing("mixed by outputs")
    text = done(server, workflow).text(wf.node(workflow, MIX))
    assert "predicted, of all layers' outputs together" in text
    assert "warning: the sensitivity was not probed" in text
