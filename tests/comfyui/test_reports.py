"""Reports that never lie: kept for pages that load again, errors with remedies, saved files."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nvfp4_foundry.quant.calibration import CalibrationStatistics, save_statistics
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.sources import open_source

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_python import ComfyUI
from tests.comfyui.comfy_server import TINY, ComfyServer, RejectedError, Run, make_base
from tests.comfyui.test_nodes import NODES

PLAN, PRESET = "NVFP4FoundryPlanLayers", "NVFP4FoundrySelectPreset"
MODEL = "diffusion_models/tiny_wan.safetensors"


@pytest.fixture(scope="module")
def own(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI of these tests alone: they delete files, and restart it."""
    running = ComfyServer(
        comfyui.python, comfyui.path, make_base(tmp_path_factory.mktemp("reports") / "base")
    )
    running.start()
    yield running
    running.stop()


def planning(preset: str = "auto", rules: str = "", **settings: Any) -> wf.Workflow:
    workflow: wf.Workflow = {}
    wf.add(workflow, "model", "NVFP4FoundryLoadSourceModel", model_file=MODEL)
    wf.add(
        workflow, "preset", PRESET, preset=preset, extra_rules="", rounding="weighted",
        input_scale="dynamic", **settings,
    )  # fmt: skip
    wf.add(
        workflow, "plan", PLAN, model=["model", 0], recipe=["preset", 0], rules=rules,
        any_architecture=False,
    )  # fmt: skip
    return workflow


def one_node(name: str = "", **values: Any) -> wf.Workflow:
    """*Quantize File* alone, as it is when it is dragged in."""
    workflow: wf.Workflow = {}
    given = {"model_file": MODEL, "file_name": name, "folder": "diffusion_models"}
    given |= {"if_exists": "add a number", "any_architecture": False, **values}
    wf.add(workflow, "file", "NVFP4FoundryQuantizeFile", **given)
    return workflow


def done(server: ComfyServer, workflow: wf.Workflow) -> Run:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


def models(server: ComfyServer) -> Path:
    return server.base / "models" / "diffusion_models"


def problems(server: ComfyServer, workflow: wf.Workflow) -> dict[str, list[str]]:
    """Return the messages of a refused workflow by node."""
    with pytest.raises(RejectedError) as refused:
        server.run(workflow)
    found = json.loads(str(refused.value))
    errors = found.get("node_errors", found)
    return {node: [e["details"] for e in entry["errors"]] for node, entry in errors.items()}


def test_every_node_with_a_report_is_an_output_node(own: ComfyServer) -> None:
    listed = own.get("/object_info")
    reporting = {"report", "table", "path"}
    for name in NODES:
        if reporting & set(listed[name]["output_name"]):
            assert listed[name]["output_node"], name


def test_a_report_is_kept_for_pages_that_load_later(own: ComfyServer) -> None:
    run = done(own, planning())
    view, (kept,) = run.view("plan"), run.outputs["plan"]["nvfp4_report"]
    assert own.get(f"/nvfp4_foundry/reports/{kept['id']}") == {"at": kept["at"], "view": view}
    own.stop()
    own.start()
    assert own.get(f"/nvfp4_foundry/reports/{kept['id']}")["view"] == view
    again = done(own, planning())
    assert again.outputs["plan"]["nvfp4_report"][0]["id"] == kept["id"]


@pytest.mark.parametrize("report", ["0" * 32, "..%2f..%2fcomfy.settings", "a/b", "%00"])
def test_a_report_that_is_not_kept_is_not_found(own: ComfyServer, report: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
        own.get(f"/nvfp4_foundry/reports/{report}")


def test_the_automatic_preset_is_the_one_for_the_model(own: ComfyServer) -> None:
    run = done(own, planning("auto"))
    assert "recipe  wan2.2-14b" in run.text("plan")


def test_rules_of_the_plan_change_only_what_follows(own: ComfyServer) -> None:
    done(own, planning())
    run = done(own, planning(rules="blocks.1.ffn.2 = bf16"))
    assert "plan" in run.executed and not {"model", "preset"} & run.executed
    view = run.view("plan")
    layers = view["layers"]
    index = layers["name"].index("blocks.1.ffn.2")
    assert layers["format"]["of"][layers["format"]["at"][index]] == "bf16"


def test_one_node_and_a_model_are_enough(own: ComfyServer) -> None:
    run = done(own, one_node())
    path = models(own) / "tiny_wan_nvfp4.safetensors"
    assert run.outputs["file"]["nvfp4_saved"] == [str(path)]
    text = run.text("file")
    assert text.startswith(f"saved {path}\n") and "verified: " in text.splitlines()[1]
    assert inspect_checkpoint(path).counts()["float8_e4m3fn"] > 5  # 4 blocks: all are edges
    assert "tiny_wan_nvfp4.safetensors" in json.dumps(own.get("/object_info/UNETLoader"))


@pytest.mark.parametrize("save", ["file", "checkpoint"])
def test_a_deleted_file_is_saved_again(own: ComfyServer, save: str) -> None:
    if save == "file":
        workflow, node = one_node("deleted"), "file"
    else:
        workflow, node = planning(), "save"
        wf.add(
            workflow, "quantize", "NVFP4FoundryQuantizeModel", model=["model", 0],
            plan=["plan", 0], preview="as this machine runs it",
        )  # fmt: skip
        wf.add(
            workflow, node, "NVFP4FoundrySaveCheckpoint", checkpoint=["quantize", 1],
            file_name="deleted_too", folder="diffusion_models", if_exists="add a number",
        )  # fmt: skip
    (saved,) = done(own, workflow).outputs[node]["nvfp4_saved"]
    content = Path(saved).read_bytes()
    assert node not in done(own, workflow).executed  # still there: nothing to do
    Path(saved).unlink()
    again = done(own, workflow)
    assert node in again.executed and again.outputs[node]["nvfp4_saved"] == [saved]
    assert len(Path(saved).read_bytes()) == len(content)
    assert node not in done(own, workflow).executed


def test_a_deleted_recipe_is_saved_again(own: ComfyServer) -> None:
    workflow = planning()
    wf.add(workflow, "save", "NVFP4FoundrySaveRecipe", recipe=["preset", 0], name="deleted")
    done(own, workflow)
    path = own.base / "output" / "nvfp4_foundry" / "recipes" / "deleted.json"
    path.unlink()
    assert "save" in done(own, workflow).executed and path.exists()


def test_a_card_lies_beside_the_checkpoint(own: ComfyServer) -> None:
    run = done(own, one_node("with_card", model_card=True))
    card = models(own) / "with_card.md"
    assert f"model card {card}" in run.text("file")
    assert card.read_text(encoding="utf-8").startswith("---\n")
    assert (models(own) / "with_card.png").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a|b"}, "is not a valid file name"),
        ({"name": "../outside"}, "points outside"),
        ({"model_file": "diffusion_models/absent.safetensors"}, "refresh the list"),
        ({"complete_from": "diffusion_models/absent.safetensors"}, "absent.safetensors"),
        ({"name": "tiny_wan", "if_exists": "stop"}, "already exists"),
    ],
    ids=["name", "outside", "source", "completing", "exists"],
)
def test_one_problem_is_one_message(own: ComfyServer, values: dict[str, Any], message: str) -> None:
    details = problems(own, one_node(**values))["file"]
    assert len(details) == 1 and message in details[0]


def test_a_wrong_rule_is_one_message(own: ComfyServer) -> None:
    details = problems(own, planning(rules="blocks.0"))["plan"]
    assert len(details) == 1 and "pattern = format" in details[0]


def test_a_wrong_preset_says_which_one_is_right(own: ComfyServer) -> None:
    settings = {"edge_blocks": 0, "edge_format": "bf16", "modulation_format": "keep"}
    named = {f"preset.{name}": value for name, value in settings.items()}
    run, messages = own.watch(planning("flux1", **named, **{"preset.sensitive_format": "nvfp4"}))
    assert run.status == "error"
    (sent,) = (m["data"] for m in messages if m.get("type") == "nvfp4_foundry.error")
    assert sent["node"] == "plan" and "this model is WAN T2V" in sent["message"]
    assert sent["remedy"] == {
        "label": "Use preset wan2.2-14b", "node": PRESET, "widget": "preset",
        "value": "wan2.2-14b",
    }  # fmt: skip
    order = [m.get("type") for m in messages]
    assert order.index("nvfp4_foundry.error") < order.index("execution_error")


def test_a_name_that_is_taken_can_be_solved_with_a_button(own: ComfyServer) -> None:
    import websocket

    socket = websocket.create_connection(f"ws://127.0.0.1:{own.port}/ws?clientId=test", timeout=20)
    try:
        problems(own, one_node("tiny_wan", if_exists="stop"))
        while True:
            received = socket.recv()
            message = json.loads(received) if isinstance(received, str) else {}
            if message.get("type") == "nvfp4_foundry.error":
                break
    finally:
        socket.close()
    remedy = message["data"]["remedy"]
    assert message["data"]["node"] == "file"
    assert remedy["widget"] == "if_exists" and remedy["value"] == "add a number"
    done(own, one_node("tiny_wan", if_exists=remedy["value"]))
    assert (models(own) / "tiny_wan_2.safetensors").exists()


def test_a_calibration_of_another_model_offers_a_name(own: ComfyServer) -> None:
    folder = own.base / "output" / "nvfp4_foundry" / "calibrations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "taken.safetensors").write_bytes(b"no calibration")
    workflow: wf.Workflow = {}
    wf.add(workflow, "model", "NVFP4FoundryLoadSourceModel", model_file=MODEL)
    wf.add(
        workflow, "calibrate", "NVFP4FoundryCalibrate", model=["model", 0], name="taken",
        accumulate="continue", rows_per_layer=8, memory_budget_mb=64,
    )  # fmt: skip
    wf.add(
        workflow, "result", "NVFP4FoundryCalibrationResult", calibration=["calibrate", 1],
        latent=["latent", 0],
    )  # fmt: skip
    wf.add(workflow, "latent", "EmptyLatentImage", width=64, height=64, batch_size=1)
    run, messages = own.watch(workflow)
    assert run.status == "error"
    (sent,) = (m["data"] for m in messages if m.get("type") == "nvfp4_foundry.error")
    assert sent["remedy"]["widget"] == "name" and sent["remedy"]["value"] == "taken_2"
    assert (folder / "taken.safetensors").read_bytes() == b"no calibration"


def test_the_calibration_of_the_model_is_offered_instead_of_another(own: ComfyServer) -> None:
    folder = own.base / "output" / "nvfp4_foundry" / "calibrations"
    folder.mkdir(parents=True, exist_ok=True)
    with open_source(TINY) as source:
        model = source.fingerprint()
    other = replace(model, shapes={**model.shapes, "blocks.0.ffn.0": (512, 257)})
    for name, fingerprint in (("right", model), ("wrong", other)):
        empty = CalibrationStatistics({}, fingerprint, (), 8, ("test",))
        save_statistics(empty, folder / f"{name}.safetensors")
    workflow = planning()
    wf.add(workflow, "calibration", "NVFP4FoundryLoadCalibration", name="wrong")
    wf.add(
        workflow, "quantize", "NVFP4FoundryQuantizeModel", model=["model", 0], plan=["plan", 0],
        statistics=["calibration", 0], preview="as this machine runs it",
    )  # fmt: skip
    run, messages = own.watch(workflow)
    assert run.status == "error" and "from a different model" in run.error
    (sent,) = (m["data"] for m in messages if m.get("type") == "nvfp4_foundry.error")
    assert sent["node"] == "quantize" and sent["remedy"] == {
        "label": "Use calibration right", "node": "NVFP4FoundryLoadCalibration",
        "widget": "name", "value": "right",
    }  # fmt: skip
    workflow["calibration"]["inputs"]["name"] = "right"
    done(own, workflow)
