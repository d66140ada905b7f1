"""A CHECKPOINT is made when it is saved, and a quantized MODEL only where it is connected."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, Run

LATER, ERRORS = "encodes the layers one by one", "weight err"


def promising(name: str, model: str = "tiny_wan.safetensors") -> wf.Workflow:
    """Load with a stock node, plan, quantize and save."""
    workflow: wf.Workflow = {}
    wf.add(workflow, "model", "UNETLoader", unet_name=model, weight_dtype="default")
    wf.add(
        workflow, "preset", "NVFP4FoundrySelectPreset", preset="auto", extra_rules="",
        rounding="max", input_scale="dynamic",
    )  # fmt: skip
    wf.add(
        workflow, "plan", "NVFP4FoundryPlanLayers", model=["model", 0], recipe=["preset", 0],
        any_architecture=False,
    )  # fmt: skip
    wf.add(
        workflow, "quantize", "NVFP4FoundryQuantizeModel", model=["model", 0], plan=["plan", 0],
        preview="as this machine runs it",
    )  # fmt: skip
    saving(workflow, "save", name)
    return workflow


def saving(workflow: wf.Workflow, key: str, name: str) -> None:
    wf.add(
        workflow, key, "NVFP4FoundrySaveCheckpoint", checkpoint=["quantize", 1], file_name=name,
        folder="diffusion_models", if_exists="add a number",
    )  # fmt: skip


def preview(workflow: wf.Workflow, model: str = "quantize") -> None:
    """Connect MODEL to something that runs."""
    wf.add(workflow, "preview", "HookCount", model=[model, 0], nonce=0)


def done(server: ComfyServer, workflow: wf.Workflow) -> Run:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


def saved(server: ComfyServer, name: str) -> Path:
    return server.base / "models/diffusion_models" / f"{name}.safetensors"


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    same = one.keys() == other.keys()
    return same and all(torch.equal(one[n], other[n]) for n in one)


def test_nothing_is_encoded_before_it_is_saved(server: ComfyServer) -> None:
    run = done(server, promising("promised"))
    assert LATER in run.text("quantize") and ERRORS not in run.text("quantize")
    assert ERRORS in run.text("save")
    assert verify_checkpoint(saved(server, "promised"), TINY).problems == ()


def test_a_preview_that_is_connected_later_is_made_and_nothing_is_saved_twice(
    server: ComfyServer,
) -> None:
    workflow = promising("connected_later")
    done(server, workflow)
    before = saved(server, "connected_later").stat()
    preview(workflow)
    run = done(server, workflow)
    assert {"quantize", "preview"} <= run.executed and run.text("preview") == "0"
    assert ERRORS in run.text("quantize")
    assert "was saved before" in run.text("save")
    assert saved(server, "connected_later").stat() == before
    assert not saved(server, "connected_later_2").exists()
    assert not {"quantize", "save", "preview"} & done(server, workflow).executed


def test_the_preview_is_the_same_whether_it_is_encoded_or_read_from_the_saved_file(
    server: ComfyServer,
) -> None:
    """Saved from memory, the file is the one that was streamed."""
    workflow = promising("previewed")
    preview(workflow)
    workflow["plan"]["inputs"]["rules"] = "head.head = bf16"  # another checkpoint than elsewhere
    done(server, workflow)
    file = saved(server, "previewed")
    previewed = load_file(file)
    del workflow["preview"]
    file.unlink()
    done(server, workflow)
    assert equal(load_file(file), previewed)
    again = promising("previewed_again")
    again["plan"]["inputs"]["rules"] = "head.head = bf16"
    preview(again)
    done(server, again)
    assert equal(load_file(saved(server, "previewed_again")), previewed)


def test_two_files_from_one_promise_and_one_more_under_another_name(server: ComfyServer) -> None:
    workflow = promising("twice")
    saving(workflow, "other", "twice_other")
    done(server, workflow)
    workflow["save"]["inputs"]["file_name"] = "renamed"
    run = done(server, workflow)
    assert run.executed == {"save"}
    assert ERRORS in run.text("save")
    made = [load_file(saved(server, name)) for name in ("twice", "twice_other", "renamed")]
    assert equal(made[0], made[1]) and equal(made[0], made[2])
    assert verify_checkpoint(saved(server, "renamed"), TINY).problems == ()


def test_the_model_may_be_unloaded_and_patched_meanwhile(server: ComfyServer) -> None:
    workflow = promising("unloaded")
    done(server, workflow)
    file = saved(server, "unloaded")
    first = load_file(file)
    server.post("/free", {"unload_models": True})
    sampled = done(server, wf.sample("tiny_wan.safetensors", prefix="between"))
    assert sampled.executed
    file.unlink()
    assert "save" in done(server, workflow).executed
    assert equal(load_file(file), first)


def test_a_source_that_was_replaced_meanwhile_is_refused(server: ComfyServer) -> None:
    """The stock loader does not notice it, so ComfyUI keeps the MODEL and the promise."""
    source = saved(server, "replaced_source")
    shutil.copy(TINY, source)
    workflow = promising("replaced", source.name)
    done(server, workflow)
    saved(server, "replaced").unlink()
    later = source.stat().st_mtime + 10
    os.utime(source, (later, later))
    run = server.run(workflow)
    assert run.status == "error"
    assert str(source) in run.error and "load the model again" in run.error
    assert not list(source.parent.glob("*replaced.safetensors*"))


def test_a_report_that_is_used_has_its_figures(server: ComfyServer) -> None:
    workflow = promising("with_report")
    workflow["plan"]["inputs"]["rules"] = "head.head = float8_e4m3fn"
    wf.add(workflow, "shown", "PreviewAny", source=["quantize", 2])
    run = done(server, workflow)
    assert ERRORS in run.text("quantize") and ERRORS in run.text("shown")
    assert verify_checkpoint(saved(server, "with_report"), TINY).problems == ()
    alone = wf.without(workflow, "NVFP4FoundrySaveCheckpoint", "PreviewAny")
    assert ERRORS in done(server, alone).text("quantize")


def test_only_what_runs_counts_as_connected(server: ComfyServer) -> None:
    workflow = promising("in_part")
    preview(workflow)

    def part(*targets: str) -> Run:
        data = {"prompt": workflow, "partial_execution_targets": list(targets)}
        return server.wait(json.loads(server.post("/prompt", data))["prompt_id"])

    assert LATER in part("save", "quantize").text("quantize")
    run = part("preview", "quantize")
    assert ERRORS in run.text("quantize") and run.text("preview") == "0"


def test_a_graph_within_the_graph_gets_its_model(server: ComfyServer) -> None:
    workflow = wf.without(promising("x"), "NVFP4FoundrySaveCheckpoint")
    wf.add(workflow, "within", "ExpandedQuantize", model=["model", 0], plan=["plan", 0])
    preview(workflow, "within")
    run: Any = done(server, workflow)
    assert run.text("preview") == "0"
