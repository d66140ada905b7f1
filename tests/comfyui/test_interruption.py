"""Cancel leaves no file and no hook behind, and a cancelled sampling does not count."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.calibration import load_statistics
from safetensors.torch import load_file, save_file

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


#: Steps that take long enough to cancel a sampling in the middle.
SLOW = 60


def calibrating(name: str, *, seed: int = 1) -> wf.Workflow:
    """Calibrate with a deck of four prompts, slowly enough to cancel in a prompt of choice."""
    workflow = wf.without(
        wf.calibrate(seed=seed, name=name), "NVFP4FoundryQuantizeModel",
        "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers", "NVFP4FoundrySelectPreset",
    )  # fmt: skip
    deck = wf.inputs(workflow, "NVFP4FoundryCalibrationPrompts")
    deck["deck.text"] = "\n".join(f"digit {d}" for d in range(4))
    wf.inputs(workflow, "KSampler")["steps"] = SLOW
    return workflow


def in_prompt(number: int, sampler: str) -> Callable[[dict[str, Any]], bool]:
    """Accept a message of a step of the ``number``-th prompt, after its first step.

    Steps may have no message, and a run that ends before any step has nothing to leave out.
    """
    begun, last = [0], [SLOW]

    def accept(message: dict[str, Any]) -> bool:
        data = message.get("data", {})
        is_step = message.get("type") == "progress" and str(data.get("node")) == sampler
        if not is_step:
            return False
        begun[0] += data["value"] <= last[0]
        last[0] = data["value"]
        return begun[0] == number and data["value"] > 1

    return accept


def test_a_cancelled_deck_keeps_what_finished_and_counts_no_prompt_twice(
    server: ComfyServer,
) -> None:
    workflow = calibrating("cancelled-deck")
    path = server.base / "output/nvfp4_foundry/calibrations/cancelled-deck.safetensors"
    result = wf.node(workflow, "NVFP4FoundryCalibrationResult")
    run, messages = server.watch(workflow, in_prompt(3, wf.node(workflow, "KSampler")))
    assert run.status == "interrupted"
    live = [m["data"] for m in messages if m.get("type") == "nvfp4_foundry.live"]
    assert {d["node"] for d in live} == {wf.node(workflow, "NVFP4FoundryCalibrate")}
    assert (live[-1]["state"], live[-1]["runs"], live[-1]["left_out"]) == ("interrupted", 2, 1)
    assert [r.prompts for r in load_statistics(path).runs] == [("digit 0",), ("digit 1",)]

    again = server.run(workflow)
    assert again.status == "success", again.error
    text = again.text(result)
    assert text.startswith("1 interrupted run left out (")
    assert "set interrupted_runs of Calibrate to 'take in'" in text
    assert f"\n4 runs, {4 * SLOW} model calls, 46 layers" in text
    saved = load_statistics(path)
    assert [r.prompts for r in saved.runs] == [(f"digit {d}",) for d in range(4)]
    assert not any(r.interrupted for r in saved.runs)
    assert all(layer.calls == 4 * SLOW for layer in saved.layers.values())

    server.stop()  # kept aside on disk
    server.start()
    more = calibrating("cancelled-deck", seed=2)
    wf.inputs(more, "NVFP4FoundryCalibrate")["interrupted_runs"] = "take in"
    text = server.run(more).text(result)
    assert text.startswith("9 runs") and "interrupted runs that were taken in: " in text
    taken = [r for r in load_statistics(path).runs if r.interrupted]
    assert [r.prompts for r in taken] == [("digit 2",)] and taken[0].calls < SLOW


def test_progress_is_said_and_shown(server: ComfyServer) -> None:
    """Which layer of how many, and what the calibration has seen, on the websocket."""
    workflow = wf.calibrate(seed=21, name="progress", file_name="progress")
    run, messages = server.watch(workflow)
    assert run.status == "success", run.error
    lines: dict[str, list[str]] = {}
    for message in messages:
        if message.get("type") == "progress_text":
            lines.setdefault(message["data"]["node"], []).append(message["data"]["text"])
    assert wf.node(workflow, "NVFP4FoundryQuantizeModel") not in lines  # it makes a promise
    saved = lines[wf.node(workflow, "NVFP4FoundrySaveCheckpoint")]
    assert re.fullmatch(r"layer \d+ of \d+: \S+", saved[0]), saved
    number, total = re.findall(r"\d+", saved[-1])[:2]  # of the verification that follows
    assert number == total
    live = [m["data"] for m in messages if m.get("type") == "nvfp4_foundry.live"]
    last = live[-1]
    assert (last["kind"], last["state"], last["name"]) == ("calibration", "done", "progress")
    assert (last["prompts_done"], last["prompts"], last["steps_done"]) == (3, 3, wf.STEPS)
    assert (last["layers_seen"], last["layers"], last["runs"]) == (46, 46, 3)
    assert last["verdict"] and last["verdict"] in run.text(
        wf.node(workflow, "NVFP4FoundryCalibrationResult")
    )


def resuming(name: str) -> wf.Workflow:
    """Quantize the tiny model's file with ``gptq`` and a calibration with Hessians."""
    workflow = wf.calibrate(seed=9, name="resuming", file_name=name)
    wf.inputs(workflow, "NVFP4FoundryCalibrate").update(hessians_mb=512, rows_per_layer=64)
    workflow = wf.without(
        workflow,
        "NVFP4FoundryQuantizeModel",
        "NVFP4FoundrySaveCheckpoint",
        "NVFP4FoundryPlanLayers",
    )
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["rounding"] = "gptq"
    wf.add(
        workflow, "file", "NVFP4FoundryQuantizeFile",
        model_file="diffusion_models/tiny_wan.safetensors", file_name=name,
        folder="diffusion_models", if_exists="stop", any_architecture=False,
        recipe=[wf.node(workflow, "NVFP4FoundrySelectPreset"), 0],
        statistics=[wf.node(workflow, "NVFP4FoundryCalibrationResult"), 0],
    )  # fmt: skip
    return workflow


def test_an_interrupted_file_conversion_goes_on(server: ComfyServer) -> None:
    workflow, node = resuming("resumed"), "file"
    run, messages = server.watch(workflow, progress_of(node))
    assert run.status == "interrupted", run.error
    (journal,) = files_named(server, "resumed")
    assert journal.name.endswith(".resumable")
    said = [m["data"]["text"] for m in messages if m.get("type") == "progress_text"][-1]
    assert said.startswith(f"finished layers are kept in {journal} (") and "queue again" in said

    again = server.run(workflow)
    assert again.status == "success", again.error
    reused, layers = re.findall(
        r"(\d+) of (\d+) layers \(.*\) are from an earlier run", again.text(node)
    )[0]
    assert 0 < int(reused) < int(layers)
    assert [p.name for p in files_named(server, "resumed")] == ["resumed.safetensors"]

    assert server.run(resuming("undisturbed")).status == "success"
    folder = server.base / "models/diffusion_models"
    found, wanted = (load_file(folder / f"{n}.safetensors") for n in ("resumed", "undisturbed"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)
