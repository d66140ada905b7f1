"""Calibrations over several queue runs: they accumulate, survive, merge, and stay apart."""

from __future__ import annotations

from typing import Any

from nvfp4_foundry.quant.calibration import load_statistics
from safetensors.torch import load_file, save_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import TINY, ComfyServer


def test_queue_runs_accumulate_and_reports_are_never_stale(server: ComfyServer) -> None:
    def build(seed: int) -> dict[str, Any]:
        workflow = wf.calibrate(seed=seed, name="accumulating")
        return wf.without(
            workflow,
            "NVFP4FoundryQuantizeModel",
            "NVFP4FoundrySaveCheckpoint",
            "NVFP4FoundryPlanLayers",
        )

    result = wf.node(build(1), "NVFP4FoundryCalibrationResult")
    first, second = server.run(build(1)), server.run(build(2))
    calls = len(wf.DIGITS) * wf.STEPS
    assert first.text(result).startswith(f"3 runs, {calls} model calls, 46 layers")
    assert second.text(result).startswith(f"6 runs, {2 * calls} model calls, 46 layers")
    assert first.text(result).splitlines()[6:] != second.text(result).splitlines()[9:]

    path = server.base / "output/nvfp4_foundry/calibrations/accumulating.safetensors"
    statistics = load_statistics(path)
    assert [run.prompts for run in statistics.runs] == [(f"digit {d}",) for d in wf.DIGITS] * 2
    assert all(layer.calls == 2 * calls for layer in statistics.layers.values())

    cached = server.run(build(2))  # nothing new: nothing runs, nothing is counted twice
    assert result not in cached.executed
    assert len(load_statistics(path).runs) == 6


def test_calibration_survives_a_restart(server: ComfyServer) -> None:
    workflow = wf.without(
        wf.calibrate(seed=7, name="restarted"), "NVFP4FoundryQuantizeModel",
        "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers",
    )  # fmt: skip
    result = wf.node(workflow, "NVFP4FoundryCalibrationResult")
    assert server.run(workflow).text(result).startswith("3 runs")
    server.stop()
    server.start()
    assert server.run(workflow).text(result).startswith("6 runs")
    wf.inputs(workflow, "NVFP4FoundryCalibrate")["accumulate"] = "start over"
    assert server.run(workflow).text(result).startswith("3 runs")
    kept = list((server.base / "output/nvfp4_foundry/calibrations").glob("restarted.*-*"))
    assert len(kept) == 1 and len(load_statistics(kept[0]).runs) == 6


def test_deleting_the_file_forgets_a_calibration(server: ComfyServer) -> None:
    def build(seed: int) -> dict[str, Any]:
        return wf.without(
            wf.calibrate(seed=seed, name="forgotten"), "NVFP4FoundryQuantizeModel",
            "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers",
        )  # fmt: skip

    result = wf.node(build(1), "NVFP4FoundryCalibrationResult")
    assert server.run(build(31)).text(result).startswith("3 runs")
    (server.base / "output/nvfp4_foundry/calibrations/forgotten.safetensors").unlink()
    assert server.run(build(32)).text(result).startswith("3 runs")


def test_two_calibrations_of_one_name_never_overwrite_each_other(server: ComfyServer) -> None:
    """Two models under one name, as the two experts of a 14B model would be by mistake."""
    other = {k: v + 0.1 if v.dim() == 1 else v for k, v in load_file(TINY).items()}
    save_file(other, server.base / "models/diffusion_models/expert.safetensors")
    removed = ("NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers")
    first = wf.without(wf.calibrate(seed=41, name="experts"), *removed)
    second = {f"b{key}": value for key, value in wf.without(first).items()}
    for entry in second.values():
        entry["inputs"] = {
            k: [f"b{v[0]}", v[1]] if isinstance(v, list) else v for k, v in entry["inputs"].items()
        }
    wf.inputs(second, "NVFP4FoundryLoadSourceModel")["model_file"] = (
        "diffusion_models/expert.safetensors"
    )
    run = server.run({**first, **second})
    assert run.status == "error"
    assert "a name of its own" in run.error or "another name" in run.error


def test_saved_calibrations_load_and_merge(server: ComfyServer) -> None:
    for name, seed in (("monday", 11), ("tuesday", 12)):
        workflow = wf.without(
            wf.calibrate(seed=seed, name=name), "NVFP4FoundryQuantizeModel",
            "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers",
        )  # fmt: skip
        assert server.run(workflow).status == "success"
    merge: dict[str, Any] = {}
    wf.add(merge, "a", "NVFP4FoundryLoadCalibration", name="monday")
    wf.add(merge, "b", "NVFP4FoundryLoadCalibration", name="tuesday")
    links = {"statistics.statistics_0": ["a", 0], "statistics.statistics_1": ["b", 0]}
    wf.add(merge, "m", "NVFP4FoundryMergeCalibrations", save_as="both", **links)
    wf.add(merge, "show", "PreviewAny", source=["m", 1])
    run = server.run(merge)
    assert run.status == "success", run.error
    assert run.text("m").startswith("6 runs")
    path = server.base / "output/nvfp4_foundry/calibrations/both.safetensors"
    assert len(load_statistics(path).runs) == 6

    twice = {**merge}
    links["statistics.statistics_1"] = ["a", 0]
    wf.add(twice, "m", "NVFP4FoundryMergeCalibrations", save_as="twice", **links)
    failed = server.run(twice)
    assert failed.status == "error" and "run" in failed.error
