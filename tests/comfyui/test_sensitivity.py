"""Measuring and probing in a real ComfyUI, and that the samples do not change."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH, load_model
from nvfp4_foundry.demo.sampling import sample
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity, load_sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED, LatentProbe
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file

from tests.comfyui import comfy_workflows as wf
from tests.comfyui.comfy_server import ComfyServer, RejectedError, Run

NAME = "for-sensitivity"
QUANTIZING = (
    "NVFP4FoundrySelectPreset", "NVFP4FoundryPlanLayers", "NVFP4FoundryQuantizeModel",
    "NVFP4FoundrySaveCheckpoint",
)  # fmt: skip


def measuring(save_as: str = "", *, seed: int = 1) -> wf.Workflow:
    """Calibrate the tiny model and measure its sensitivity; the sampler is KSampler."""
    workflow = wf.without(wf.calibrate(seed=seed, name=NAME), *QUANTIZING)
    wf.add(
        workflow,
        "measure",
        "NVFP4FoundryMeasureSensitivity",
        model=[wf.node(workflow, "NVFP4FoundryLoadSourceModel"), 0],
        statistics=[wf.node(workflow, "NVFP4FoundryCalibrationResult"), 0],
        formats="nvfp4, nvfp4_w4a16, float8_e4m3fn",
        rounding="weighted",
        save_as=save_as,
    )
    return workflow


def probing(
    prefix: str,
    *,
    unit: str = "each input",
    sigmas: int = 2,
    save_as: str = "",
    sampler: str = "euler",
    formats: str = "nvfp4",
    extent: str = "every unit",
    minutes: float = 0.0,
) -> wf.Workflow:
    """Sample a digit with a probed model; its latents are saved."""
    workflow = wf.sample("tiny_wan.safetensors", prefix=prefix)
    settings = wf.inputs(workflow, "KSampler")
    settings["sampler_name"] = sampler
    wf.add(workflow, "sensitivity", "NVFP4FoundryProbeResult", save_as="", source="measured")
    wf.add(workflow, "statistics", "NVFP4FoundryLoadCalibration", name=NAME)
    wf.add(
        workflow,
        "probe",
        "NVFP4FoundryProbeLatentShift",
        model=settings["model"],
        sensitivity=["sensitivity", 0],
        unit=unit,
        sigmas=sigmas,
        statistics=["statistics", 0],
        formats=formats,
        extent=extent,
        minutes=minutes,
    )
    settings["model"] = ["probe", 0]
    wf.add(
        workflow,
        "result",
        "NVFP4FoundryProbeResult",
        probe=["probe", 1],
        latent=[wf.node(workflow, "KSampler"), 0],
        save_as=save_as,
    )
    return workflow


def done(server: ComfyServer, workflow: wf.Workflow) -> Run:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


def folder(server: ComfyServer) -> Path:
    return server.base / "output" / "nvfp4_foundry" / "sensitivities"


def latent(server: ComfyServer, prefix: str) -> torch.Tensor:
    path = sorted((server.base / "output").glob(f"{prefix}_*.latent"))[-1]
    return load_file(path)["latent_tensor"]


@pytest.fixture(scope="module")
def measured(server: ComfyServer) -> Run:
    """The sensitivity of the tiny model, saved as ``measured``."""
    return done(server, measuring("measured"))


@pytest.fixture(scope="module")
def plain(server: ComfyServer) -> torch.Tensor:
    """What the model samples without a probe."""
    done(server, wf.sample("tiny_wan.safetensors", prefix="plain"))
    return latent(server, "plain")


def test_measured_is_what_the_command_line_measures(server: ComfyServer, measured: Run) -> None:
    found = load_sensitivity(folder(server) / "measured.json")
    path = server.base / "output" / "nvfp4_foundry" / "calibrations" / f"{NAME}.safetensors"
    with open_source(MODEL_PATH) as source:
        wanted = measure_sensitivity(source, load_statistics(path))
    assert set(found.layers) == set(wanted.layers)
    for name, layer in wanted.layers.items():
        assert found.layers[name].input_id == layer.input_id
        for fmt, errors in layer.candidates.items():
            ours = found.candidates(name)[fmt]
            # Another version of torch may add up in another order.
            assert ours.weight == pytest.approx(errors.weight, rel=1e-5)
            assert ours.w4a16 == pytest.approx(errors.w4a16, rel=1e-4)
            assert ours.w4a4 == pytest.approx(errors.w4a4, rel=1e-3)
    assert len(found.layers) == 46 and not found.unknown("nvfp4")


def test_report_and_map_are_shown(measured: Run) -> None:
    text = measured.text("measure")
    assert text.startswith("saved as measured\n46 layers")
    assert "blocks.0.cross_attn.v" in text
    view = measured.view("measure")
    assert view["kind"] == "sensitivity" and len(view["layers"]["name"]) == 46
    assert {"nvfp4", "float8_e4m3fn"} <= set(view["errors"])


def test_a_save_never_overwrites(server: ComfyServer, measured: Run) -> None:
    before = (folder(server) / "measured.json").read_bytes()
    again = measuring("measured")
    wf.inputs(again, "NVFP4FoundryMeasureSensitivity")["rounding"] = "max"
    assert done(server, again).text("measure").startswith("saved as measured_2\n")
    assert (folder(server) / "measured.json").read_bytes() == before
    assert load_sensitivity(folder(server) / "measured_2.json").rounding == "max"


def test_measuring_the_same_again_makes_no_second_file(server: ComfyServer, measured: Run) -> None:
    loading = {"load": {"class_type": "NVFP4FoundryLoadCalibration", "inputs": {"name": NAME}}}
    workflow = {**wf.without(measuring("measured"), "KSampler", "CLIPTextEncode"), **loading}
    for class_type in ("NVFP4FoundryCalibrationResult", "NVFP4FoundryCalibrate"):
        workflow.pop(wf.node(workflow, class_type))
    wf.inputs(workflow, "NVFP4FoundryMeasureSensitivity")["statistics"] = ["load", 0]
    workflow = {
        key: value
        for key, value in workflow.items()
        if key in ("load", "measure") or value["class_type"] == "NVFP4FoundryLoadSourceModel"
    }
    count = len(list(folder(server).iterdir()))
    assert done(server, workflow).text("measure").startswith("saved as measured\n")
    assert len(list(folder(server).iterdir())) == count


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_sde"])
def test_short_samplings_leave_the_samples_as_they_are(
    server: ComfyServer, measured: Run, sampler: str
) -> None:
    """Ancestral and SDE samplers draw noise between the model calls."""
    workflow = wf.sample("tiny_wan.safetensors", prefix="unprobed")
    wf.inputs(workflow, "KSampler")["sampler_name"] = sampler
    done(server, workflow)
    run = done(server, probing(f"short-{sampler}", sampler=sampler, sigmas=1))
    assert torch.equal(latent(server, f"short-{sampler}"), latent(server, "unprobed"))
    assert run.text("result").startswith("1 sampling probed: 31 of 31 units\n46 layers")
    assert "shift of the sampled latent" in run.text("result")


def test_shifts_of_short_samplings_are_those_of_plain_torch(
    server: ComfyServer, measured: Run
) -> None:
    """Two of the four steps, guided, with float8 as well as NVFP4."""
    run = done(server, probing("both", save_as="both", formats="nvfp4, float8_e4m3fn"))
    assert run.text("result").startswith(
        "1 sampling probed: 62 of 62 units\nsaved as both\n46 layers"
    )
    found = load_sensitivity(folder(server) / "both.json")
    assert found.is_of_samplings

    base = load_sensitivity(folder(server) / "measured.json")
    path = server.base / "output" / "nvfp4_foundry" / "calibrations" / f"{NAME}.safetensors"
    model, formats = load_model(), ("nvfp4", "float8_e4m3fn")
    cfg = wf.inputs(probing("unused"), "KSampler")["cfg"]
    with open_source(MODEL_PATH) as source, torch.no_grad():
        probe = LatentProbe(source, base, formats=formats, statistics=load_statistics(path))

        def short() -> torch.Tensor:
            return sample(model, [3], seed=1, steps=2, cfg=cfg)

        probe.probe(model, short, short(), SAMPLED)
    wanted = probe.result()
    for fmt in formats:
        for name in ("blocks.0.cross_attn.k", "blocks.3.ffn.0", "blocks.2.self_attn.v"):
            ours = found.candidates(name)[fmt].latent
            assert ours == pytest.approx(wanted.candidates(name)[fmt].latent, rel=0.05), (name, fmt)


def test_16_bit_activations_can_be_probed(server: ComfyServer, measured: Run) -> None:
    """For GPUs that multiply NVFP4 in 16 bits, only the errors of the weights count."""
    done(server, probing("both", save_as="both", formats="nvfp4, float8_e4m3fn"))
    done(server, probing("w4a16", save_as="w4a16", formats="nvfp4_w4a16, float8_e4m3fn"))
    shifts = [
        [
            layer.candidates[fmt].latent or 0.0
            for layer in saved.layers.values()
            if fmt in layer.candidates
        ]
        for saved, fmt in (
            (load_sensitivity(folder(server) / "both.json"), "nvfp4"),
            (load_sensitivity(folder(server) / "w4a16.json"), "nvfp4_w4a16"),
        )
    ]
    rounded, exact = (sum(shift**2 for shift in found) for found in shifts)
    assert 0 < exact < 0.7 * rounded


def test_as_needed_measures_what_matters_and_estimates_the_rest(
    server: ComfyServer, whole: Sensitivity
) -> None:
    """Shifts that were measured are those of a probe of every unit."""
    for path in records(server):
        path.unlink()
    run, messages = server.watch(resumable("needed", extent="as needed"))
    assert run.status == "success", run.error
    text = run.text("result")
    measured = int(re.match(r"1 sampling probed: (\d+) of 62 units", text)[1])
    assert 3 <= measured < 31 and "are estimated from those of similar units" in text
    found = load_sensitivity(folder(server) / "needed.json")
    for name, layer in found.layers.items():
        for fmt, errors in layer.candidates.items():
            if errors.latent and not errors.is_estimated:
                assert errors == whole.candidates(name)[fmt], (name, fmt)
    said = [m["data"]["text"] for m in messages if m.get("type") == "progress_text"]
    assert "probe: at most 63 short samplings of 2 steps come first" in said
    cost = r"probe: at most 62 samplings, 124 model calls, \d+ "
    assert any(re.match(cost, line) for line in said)
    assert f"probe complete: {measured} of 62 units, {62 - measured} estimated" in said
    last = live_events(messages)[-1]
    assert (last["unit"], last["units"], last["at_most"]) == (measured, 62, True)


def test_a_probe_ends_when_its_minutes_are_over(server: ComfyServer, whole: Sensitivity) -> None:
    """It goes on with more minutes, and ends with the numbers of a probe without a limit."""
    for path in records(server):
        path.unlink()
    run = done(server, resumable("short", minutes=1e-5))
    assert run.text("result").startswith("1 sampling probed: 1 of 62 units\n")
    found = load_sensitivity(folder(server) / "short.json")
    assert found.candidates("blocks.3.ffn.0")["nvfp4"].latent
    run = done(server, resumable("long", minutes=60.0))
    assert run.text("result").startswith("1 sampling probed: 62 of 62 units")
    assert load_sensitivity(folder(server) / "long.json") == whole


def test_another_seed_adds_to_the_result(server: ComfyServer, measured: Run) -> None:
    workflow = probing("twice", sigmas=1)
    done(server, workflow)
    wf.inputs(workflow, "KSampler")["seed"] = 77
    run = done(server, workflow)
    assert "probe" not in run.executed
    assert run.text("result").startswith("2 samplings probed")
    assert count_hooks(server, workflow) == "0"


def count_hooks(server: ComfyServer, workflow: wf.Workflow) -> str:
    """Return the hooks on the very MODEL that a workflow has sampled with."""
    counting = wf.without(workflow, "KSampler", "SaveLatent", "CLIPTextEncode")
    del counting["result"]
    wf.add(counting, "count", "HookCount", model=["probe", 0], nonce=time.time_ns() % 2**31)
    run = done(server, counting)
    assert "probe" not in run.executed
    return run.text("count")


def test_interruption_while_probing_leaves_nothing_behind(
    server: ComfyServer, measured: Run, plain: torch.Tensor
) -> None:
    """Every step is probed, for far longer than the step itself takes."""
    workflow = probing("interrupted", unit="each layer", sigmas=40)
    wf.inputs(workflow, "KSampler")["steps"] = 40
    sampler = wf.node(workflow, "KSampler")

    def is_sampling(message: dict[str, Any]) -> bool:
        is_progress = message.get("type") == "executing"
        return is_progress and str(message.get("data", {}).get("node")) == sampler

    assert server.interrupt_when(workflow, is_sampling).status == "interrupted"
    assert count_hooks(server, workflow) == "0"
    done(server, wf.sample("tiny_wan.safetensors", seed=1, prefix="afterwards"))
    assert torch.equal(latent(server, "afterwards"), plain)


def resumable(save_as: str, **others: Any) -> wf.Workflow:
    """A probe in two formats, with ``others`` of its inputs."""
    settings = {"formats": "nvfp4, float8_e4m3fn", **others}
    return probing("resumed", save_as=save_as, **settings)


def records(server: ComfyServer) -> list[Path]:
    return sorted((server.base / "output/nvfp4_foundry/probes").iterdir())


def live_events(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m["data"] for m in messages if m.get("type") == "nvfp4_foundry.live"]


@pytest.fixture(scope="module")
def whole(server: ComfyServer, measured: Run) -> Sensitivity:
    """The result of a probe that nothing interrupts; its records are deleted."""
    for path in records(server):
        path.unlink()
    run = done(server, resumable("whole"))
    assert run.text("result").startswith("1 sampling probed: 62 of 62 units")
    return load_sensitivity(folder(server) / "whole.json")


@pytest.mark.parametrize("restarted", [False, True])
def test_an_interrupted_probe_goes_on_and_ends_with_the_same_numbers(
    server: ComfyServer, whole: Sensitivity, restarted: bool
) -> None:
    name = f"resumed-{restarted}"
    workflow = resumable(name, unit="each input" if restarted else "each block")
    for path in records(server):
        path.unlink()
    sampler = wf.node(workflow, "KSampler")

    def is_half_way(message: dict[str, Any]) -> bool:
        return message.get("type") == "nvfp4_foundry.live" and message["data"]["unit"] >= 20

    run, messages = server.watch(workflow, is_half_way)
    assert run.status == "interrupted"
    last = live_events(messages)[-1]
    assert (last["node"], last["kind"], last["state"]) == ("probe", "probe", "interrupted")
    assert last["units"] == 62 and last["steps"] == 2
    texts = [m["data"] for m in messages if m.get("type") == "progress_text"]
    begun = "probe: 63 short samplings of 2 steps come first"
    assert {d["node"] for d in texts if d["text"] == begun} == {"probe", sampler}
    assert any(re.match(r"unit \d+ of 62: \S+ in nvfp4", d["text"]) for d in texts)
    (record,) = records(server)
    finished = len(json.loads(record.read_text())["units"])
    assert 19 <= finished < 62

    if restarted:
        server.stop()
        server.start()
    run, messages = server.watch(workflow)
    assert run.status == "success", run.error
    assert max(d["known"] for d in live_events(messages)) == finished
    assert run.text("result").startswith("1 sampling probed: 62 of 62 units")
    assert load_sensitivity(folder(server) / f"{name}.json") == whole


def test_workflows_of_older_versions_run_as_documented(server: ComfyServer, measured: Run) -> None:
    """Blocks become inputs, and single steps short samplings."""
    workflow = probing("older", unit="each block", sigmas=1)
    del workflow["probe"]["inputs"]["extent"], workflow["probe"]["inputs"]["minutes"]
    workflow["probe"]["class_type"] = "NVFP4FoundryProbeModel"
    workflow["probe"]["inputs"]["measure"] = "single steps"
    text = done(server, workflow).text("result")
    assert re.match(r"1 sampling probed: \d+ of 31 units", text)
    with pytest.raises(RejectedError, match="choose one of each input, each layer"):
        server.queue(probing("odd", unit="each planet"))
    with pytest.raises(RejectedError, match="choose one of as needed, every unit"):
        server.queue(probing("odd", extent="a bit"))
    with pytest.raises(RejectedError, match="formats: 'fp3' not in"):
        server.queue(probing("odd", formats="fp3"))


def test_without_sampling_there_is_no_result(server: ComfyServer, measured: Run) -> None:
    workflow = probing("unconnected")
    settings = wf.inputs(workflow, "KSampler")
    settings["model"] = workflow["probe"]["inputs"]["model"]  # around the probe
    run = server.run(workflow)
    assert run.status == "error" and "no model call was probed" in run.error


def test_compiling_or_calibrating_a_probed_model_is_refused(
    server: ComfyServer, measured: Run
) -> None:
    workflow = probing("compiled")
    wf.add(workflow, "compile", "TorchCompileModel", model=["probe", 0], backend="inductor")
    wf.inputs(workflow, "KSampler")["model"] = ["compile", 0]
    run = server.run(workflow)
    assert run.status == "error" and "remove torch.compile" in run.error

    workflow = probing("calibrated")
    settings = {"name": "both", "accumulate": "continue", "rows_per_layer": 8}
    wf.add(
        workflow, "observe", "NVFP4FoundryCalibrate",
        model=["probe", 0], memory_budget_mb=64, **settings,
    )  # fmt: skip
    wf.inputs(workflow, "KSampler")["model"] = ["observe", 0]
    run = server.run(workflow)
    assert run.status == "error" and "calibrate first" in run.error


def test_what_is_wrong_is_said_before_the_queue_starts(server: ComfyServer, measured: Run) -> None:
    with pytest.raises(RejectedError, match="not a valid name for a sensitivity"):
        server.queue(measuring("../outside"))
    with pytest.raises(RejectedError, match="not a valid name for a sensitivity"):
        server.queue(probing("named", save_as="a/b"))
    workflow = probing("gone")
    workflow["sensitivity"]["inputs"]["source"] = "gone"
    with pytest.raises(RejectedError, match="'gone' no longer exists"):
        server.queue(workflow)
