"""Workflows that cannot work are refused before they are queued, or end in a clear error."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer, RejectedError


def rejected(server: ComfyServer, class_type: str, **changes: Any) -> str:
    workflow = wf.calibrate(seed=1, file_name="rejected")
    wf.inputs(workflow, class_type).update(changes)
    with pytest.raises(RejectedError) as caught:
        server.queue(workflow)
    return str(caught.value)


def test_bad_input_is_refused_before_the_queue_starts(server: ComfyServer) -> None:
    assert "not in ComfyUI's model folders" in rejected(
        server, "NVFP4FoundryLoadSourceModel", model_file="diffusion_models/never_was.safetensors"
    )
    assert "pattern = format" in rejected(
        server, "NVFP4FoundrySelectPreset", extra_rules="blocks.0 nvfp4"
    )
    assert "unknown format" in rejected(
        server, "NVFP4FoundrySelectPreset", extra_rules="blocks.* = int3"
    )
    assert "outside the" in rejected(server, "NVFP4FoundrySaveCheckpoint", file_name="../../escape")
    assert "not a valid name" in rejected(server, "NVFP4FoundryCalibrate", name="../x")
    assert "value_bigger_than_max" in rejected(
        server, "NVFP4FoundrySelectPreset", **{"preset.edge_blocks": 999}
    )


def test_wrong_preset_says_what_the_model_is(server: ComfyServer) -> None:
    workflow = wf.calibrate(seed=1, file_name="wrong")
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "wan2.2-ti2v-5b"
    run = server.run(workflow)
    assert run.status == "error"
    assert "WAN T2V (16 input channels" in run.error and "wan2.2-14b" in run.error


def test_unsampled_calibration_is_an_error(server: ComfyServer) -> None:
    workflow = wf.calibrate(seed=21, name="unconnected", file_name="unconnected")
    shift = wf.inputs(workflow, "ModelSamplingSD3")
    shift["model"] = [wf.node(workflow, "NVFP4FoundryLoadSourceModel"), 0]
    run = server.run(workflow)
    assert run.status == "error" and "has seen no sampling" in run.error


@pytest.mark.parametrize(
    ("file", "lost", "missing"),
    [
        ("with_a_hole.safetensors", "blocks.1.ffn.0.", "blocks.1.ffn.0.weight"),
        ("alone-00001-of-00002.safetensors", "blocks.3.", "alone-00002-of-00002.safetensors"),
    ],
)
def test_a_part_of_a_model_is_refused_before_the_queue_starts(
    server: ComfyServer, file: str, lost: str, missing: str
) -> None:
    tensors = {n: t for n, t in load_file(TINY).items() if not n.startswith(lost)}
    save_file(tensors, server.base / "models/diffusion_models" / file)
    workflow = wf.quantize_file()
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile")["model_file"] = f"diffusion_models/{file}"
    with pytest.raises(RejectedError, match=missing):
        server.queue(workflow)
