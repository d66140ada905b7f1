"""The shipped workflows in a real ComfyUI, from loading the model to sampling the saved file."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy_workflows as wf
import pytest
import torch
from comfy_server import ROOT, ComfyServer, RejectedError, Run
from nvfp4_foundry.demo.digits import load_task
from nvfp4_foundry.demo.model import load_model
from nvfp4_foundry.demo.sampling import sample as sample_digits
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

NODES = {
    "NVFP4FoundryLoadModel",
    "NVFP4FoundrySelectPreset",
    "NVFP4FoundryLoadRecipe",
    "NVFP4FoundryPlanLayers",
    "NVFP4FoundryCalibrationPrompts",
    "NVFP4FoundryCalibrate",
    "NVFP4FoundryCalibrationResult",
    "NVFP4FoundryLoadCalibration",
    "NVFP4FoundryMergeCalibrations",
    "NVFP4FoundryMeasureSensitivity",
    "NVFP4FoundryProbeModel",
    "NVFP4FoundryProbeResult",
    "NVFP4FoundryLoadSensitivity",
    "NVFP4FoundryAutoMix",
    "NVFP4FoundryQuantize",
    "NVFP4FoundrySaveCheckpoint",
    "NVFP4FoundryQuantizeFile",
    "NVFP4FoundryInspectCheckpoint",
    "NVFP4FoundryCompare",
}
TINY = ROOT / "demo" / "tiny_wan.safetensors"
# Blocks 0 and 3 of four are edges in float8; V and ffn.2 of the others are float8 too.
FLOAT8 = {
    f"blocks.{b}.{name}"
    for b in range(4)
    for name in (
        *(f"{a}_attn.{p}" for a in ("self", "cross") for p in "qkvo"),
        "ffn.0",
        "ffn.2",
    )
    if b in (0, 3) or name.endswith((".v", "ffn.2"))
}
NVFP4 = {
    f"blocks.{b}.{name}"
    for b in (1, 2)
    for name in (*(f"{a}_attn.{p}" for a in ("self", "cross") for p in "qko"), "ffn.0")
}


@pytest.fixture(scope="module")
def first_run(server: ComfyServer) -> Run:
    """The calibrate workflow, run once; its latents and those of the quantized MODEL saved."""
    workflow = wf.calibrate(seed=1)
    observed = [wf.node(workflow, "NVFP4FoundryCalibrationResult"), 1]
    wf.save_latent(workflow, observed, "observed")
    run = server.run(workflow)
    assert run.status == "success", run.error
    return run


def saved(server: ComfyServer) -> Path:
    return server.base / "models" / "diffusion_models" / "tiny_nvfp4.safetensors"


def latents(server: ComfyServer, prefix: str) -> list[torch.Tensor]:
    """Return the latents saved under a prefix, in order."""
    files = sorted((server.base / "output").glob(f"{prefix}_*.latent"))
    assert files, f"no latent named {prefix}"
    return [load_file(path)["latent_tensor"].float() for path in files]


def sampled(server: ComfyServer, workflow: dict[str, Any], prefix: str) -> torch.Tensor:
    run = server.run(workflow)
    assert run.status == "success", run.error
    return latents(server, prefix)[-1]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_nodes_are_listed_and_the_log_has_no_warnings(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    assert {name for name in listed if name.startswith("NVFP4Foundry")} == NODES
    for name in NODES:
        assert listed[name]["category"] == "NVFP4 Foundry"
        assert listed[name]["description"] and listed[name]["search_aliases"]
        assert (ROOT / "web" / "docs" / f"{name}.md").is_file()
    startup = server.log_text().split("To see the GUI")[0]
    assert not [ln for ln in startup.splitlines() if "WARNING" in ln or "ERROR" in ln]


def test_web_files_are_served(server: ComfyServer) -> None:
    (script,) = (path for path in server.get("/extensions") if path.endswith("/reports.js"))
    base = f"http://127.0.0.1:{server.port}{script.removesuffix('reports.js')}"
    for name in ("reports.js", *(f"docs/{node}.md" for node in NODES)):
        with urllib.request.urlopen(base + name, timeout=30) as reply:
            assert reply.status == 200 and reply.read().strip()


def test_every_input_has_a_tooltip(server: ComfyServer) -> None:
    listed = server.get("/object_info")
    for name in NODES:
        for group in ("required", "optional"):
            for key, spec in listed[name]["input"].get(group, {}).items():
                if spec[0] != "COMFY_AUTOGROW_V3":
                    assert spec[1].get("tooltip"), f"{name}.{key}"


def test_saved_checkpoint_has_the_planned_formats(server: ComfyServer, first_run: Run) -> None:
    layers = {layer.name: layer for layer in inspect_checkpoint(saved(server)).layers}
    assert {n for n, la in layers.items() if la.format == "float8_e4m3fn"} == FLOAT8
    assert {n for n, la in layers.items() if la.format == "nvfp4"} == NVFP4
    assert first_run.text("4").startswith(
        "model   WAN T2V (16 input channels, width 256, 4 blocks)"
    )
    assert "26 float8_e4m3fn, 14 nvfp4" in first_run.text("4")


def test_saved_checkpoint_verifies_against_the_source(server: ComfyServer, first_run: Run) -> None:
    assert verify_checkpoint(saved(server), TINY).problems == ()


def test_input_scales_equal_an_independent_computation(server: ComfyServer, first_run: Run) -> None:
    """Plain hooks on the plain-torch model, sampling the same seeds, give the same amax."""
    model, task = load_model(), load_task()
    amax: dict[str, float] = {}

    def watch(name: str):
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            amax[name] = max(amax.get(name, 0.0), float(args[0].abs().max()))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(watch(name))
    for digit in wf.DIGITS:
        sample_digits(model, torch.tensor([digit]), seed=1, steps=wf.STEPS, cfg=wf.CFG, task=task)
    with safe_open(saved(server), "pt") as file:
        stored = {
            key.removesuffix(".input_scale"): float(file.get_tensor(key))
            for key in file.keys()  # noqa: SIM118 - not a dict
            if key.endswith(".input_scale")
        }
    assert set(stored) == FLOAT8 | NVFP4
    for name, scale in stored.items():
        divisor = 448.0 if name in FLOAT8 else 2688.0
        assert scale == pytest.approx(amax[name] * 4 / divisor, rel=1e-4), name


def test_observed_sampling_is_bit_equal(server: ComfyServer, first_run: Run) -> None:
    for index, digit in enumerate(wf.DIGITS):
        plain = wf.sample("tiny_wan.safetensors", seed=1, digit=digit, prefix=f"plain{digit}")
        assert torch.equal(
            sampled(server, plain, f"plain{digit}"), latents(server, "observed")[index]
        )


def test_stock_loader_samples_the_saved_file(server: ComfyServer, first_run: Run) -> None:
    exact = sampled(server, wf.sample("tiny_wan.safetensors", prefix="exact"), "exact")
    quantized = sampled(server, wf.sample("tiny_nvfp4.safetensors", prefix="stock"), "stock")
    assert bool(torch.isfinite(quantized).all())
    # weights in float8 and NVFP4, activations in 16 bits as on any CPU
    assert 1e-4 < relative(quantized, exact) < 0.06


def test_quantized_model_in_the_graph_equals_the_saved_file(
    server: ComfyServer, first_run: Run
) -> None:
    workflow = wf.calibrate(seed=1)
    workflow = wf.without(workflow, "NVFP4FoundrySaveCheckpoint")
    sampler = wf.inputs(workflow, "KSampler")
    clip, quantize = (wf.node(workflow, n) for n in ("DigitsTextEncoder", "NVFP4FoundryQuantize"))
    positive = wf.add(workflow, "digit", "CLIPTextEncode", text="digit 3", clip=[clip, 0])
    shifted = wf.add(workflow, "shift", "ModelSamplingSD3", model=[quantize, 0], shift=8.0)
    preview = wf.add(
        workflow,
        "preview",
        "KSampler",
        **{**sampler, "model": [shifted, 0], "positive": [positive, 0]},
    )
    wf.save_latent(workflow, [preview, 0], "in_graph")
    run = server.run(workflow)
    assert run.status == "success", run.error
    stock = sampled(server, wf.sample("tiny_nvfp4.safetensors", prefix="again"), "again")
    assert torch.equal(latents(server, "in_graph")[-1], stock)


def test_queue_runs_accumulate_and_reports_are_never_stale(server: ComfyServer) -> None:
    def build(seed: int) -> dict[str, Any]:
        workflow = wf.calibrate(seed=seed, name="accumulating")
        return wf.without(
            workflow, "NVFP4FoundryQuantize", "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers"
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
    workflow = wf.load("quantize_file")
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
    wf.inputs(workflow, "NVFP4FoundryLoadModel")["model_file"] = f"diffusion_models/{large_model}"
    del wf.inputs(workflow, "NVFP4FoundryQuantize")["statistics"]
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
    loader = wf.node(workflow, "NVFP4FoundryLoadModel")
    count = {
        loader: workflow[loader],
        "count": {"class_type": "HookCount", "inputs": {"model": [loader, 0], "nonce": 1}},
    }
    counted = server.run(count)
    assert loader not in counted.executed  # the very model that was interrupted
    assert counted.text("count") == "0"


def test_calibration_survives_a_restart(server: ComfyServer) -> None:
    workflow = wf.without(
        wf.calibrate(seed=7, name="restarted"), "NVFP4FoundryQuantize",
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
            wf.calibrate(seed=seed, name="forgotten"), "NVFP4FoundryQuantize",
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
    removed = ("NVFP4FoundryQuantize", "NVFP4FoundrySaveCheckpoint", "NVFP4FoundryPlanLayers")
    first = wf.without(wf.calibrate(seed=41, name="experts"), *removed)
    second = {f"b{key}": value for key, value in wf.without(first).items()}
    for entry in second.values():
        entry["inputs"] = {
            k: [f"b{v[0]}", v[1]] if isinstance(v, list) else v for k, v in entry["inputs"].items()
        }
    wf.inputs(second, "NVFP4FoundryLoadModel")["model_file"] = "diffusion_models/expert.safetensors"
    run = server.run({**first, **second})
    assert run.status == "error"
    assert "a name of its own" in run.error or "another name" in run.error


def test_saved_calibrations_load_and_merge(server: ComfyServer) -> None:
    for name, seed in (("monday", 11), ("tuesday", 12)):
        workflow = wf.without(
            wf.calibrate(seed=seed, name=name), "NVFP4FoundryQuantize",
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


@pytest.mark.parametrize("kind", ["index", "folder", "prefixed"])
def test_every_source_kind_loads_and_quantizes(server: ComfyServer, kind: str) -> None:
    tensors = load_file(TINY)
    folder = server.base / "models/diffusion_models" / kind
    folder.mkdir()
    if kind == "prefixed":
        prefixed = {f"model.diffusion_model.{k}": v for k, v in tensors.items()}
        save_file(prefixed, folder / "prefixed.safetensors")
        name = f"diffusion_models/{kind}/prefixed.safetensors"
    else:
        names = sorted(tensors)
        weight_map = {}
        for i, part in enumerate((names[::2], names[1::2]), 1):
            shard = f"m-0000{i}-of-00002.safetensors"
            save_file({n: tensors[n] for n in part}, folder / shard)
            weight_map |= dict.fromkeys(part, shard)
        name = f"diffusion_models/{kind}/"
        if kind == "index":
            index = folder / "m.safetensors.index.json"
            index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
            name += index.name
    workflow = wf.calibrate(seed=1, name=f"kind-{kind}", file_name=f"out-{kind}")
    wf.inputs(workflow, "NVFP4FoundryLoadModel")["model_file"] = name
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = server.base / "models/diffusion_models" / f"out-{kind}.safetensors"
    assert verify_checkpoint(made, TINY).problems == ()


def test_quantize_file_and_inspect(server: ComfyServer) -> None:
    workflow = wf.load("quantize_file")
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "wan2.2-14b"
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file="diffusion_models/tiny_wan.safetensors",
        file_name="sub/from_file",
        folder="output",
    )
    run = server.run(workflow)
    assert run.status == "success", run.error
    made = server.base / "output/sub/from_file.safetensors"
    assert verify_checkpoint(made, TINY).problems == ()
    inspect: dict[str, Any] = {}
    tiny = "diffusion_models/tiny_wan.safetensors"
    wf.add(inspect, "i", "NVFP4FoundryInspectCheckpoint", model_file=tiny)
    assert "46 bf16" in server.run(inspect).text("i")


def test_an_existing_file_is_never_overwritten_unless_told(server: ComfyServer) -> None:
    workflow = wf.load("quantize_file")
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "all"
    recipe = wf.inputs(workflow, "NVFP4FoundrySelectPreset")
    for key in [k for k in recipe if k.startswith("preset.")]:
        del recipe[key]
    recipe["preset.format"] = "nvfp4"
    target = wf.inputs(workflow, "NVFP4FoundryQuantizeFile")
    target.update(model_file="diffusion_models/tiny_wan.safetensors", file_name="taken")
    taken = server.base / "models/diffusion_models/taken.safetensors"
    taken.write_bytes(b"precious")
    assert server.run(workflow).status == "success"
    assert taken.read_bytes() == b"precious"
    assert taken.with_name("taken_2.safetensors").is_file()
    target["if_exists"] = "stop"
    with pytest.raises(RejectedError, match="exists"):
        server.run(workflow)
    target["if_exists"] = "overwrite"
    assert server.run(workflow).status == "success"
    target["file_name"] = "tiny_wan"  # the source itself
    assert "source itself" in server.run(workflow).error
    assert verify_checkpoint(taken, TINY).problems == ()


def rejected(server: ComfyServer, class_type: str, **changes: Any) -> str:
    workflow = wf.calibrate(seed=1, file_name="rejected")
    wf.inputs(workflow, class_type).update(changes)
    with pytest.raises(RejectedError) as caught:
        server.queue(workflow)
    return str(caught.value)


def test_bad_input_is_refused_before_the_queue_starts(server: ComfyServer) -> None:
    assert "not in ComfyUI's model folders" in rejected(
        server, "NVFP4FoundryLoadModel", model_file="diffusion_models/never_was.safetensors"
    )
    assert "pattern = format" in rejected(
        server, "NVFP4FoundrySelectPreset", extra_rules="blocks.0 nvfp4"
    )
    assert "unknown format" in rejected(
        server, "NVFP4FoundrySelectPreset", extra_rules="blocks.* = int3"
    )
    assert "outside of" in rejected(server, "NVFP4FoundrySaveCheckpoint", file_name="../../escape")
    assert "no name" in rejected(server, "NVFP4FoundryCalibrate", name="../x")
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
    shift["model"] = [wf.node(workflow, "NVFP4FoundryLoadModel"), 0]
    run = server.run(workflow)
    assert run.status == "error" and "has seen no sampling" in run.error


def test_quantized_model_is_refused_as_a_source(server: ComfyServer, first_run: Run) -> None:
    workflow = wf.calibrate(seed=1, file_name="requantized")
    wf.inputs(workflow, "NVFP4FoundryLoadModel")["model_file"] = (
        "diffusion_models/tiny_nvfp4.safetensors"
    )
    run = server.run(workflow)
    assert run.status == "error" and "quantized already" in run.error


def test_loras_on_the_model_are_in_the_checkpoint(server: ComfyServer) -> None:
    """A LoRA applied by the stock node, against the merge worked out by hand."""
    source = load_file(TINY)
    generator = torch.Generator().manual_seed(0)
    layer = "blocks.1.ffn.0"
    out, inn = source[f"{layer}.weight"].shape
    down, up = torch.randn(4, inn, generator=generator), torch.randn(out, 4, generator=generator)
    (server.base / "models/loras").mkdir(exist_ok=True)
    save_file(
        {
            f"diffusion_model.{layer}.lora_A.weight": down * 0.05,
            f"diffusion_model.{layer}.lora_B.weight": up * 0.05,
        },
        server.base / "models/loras/tiny.safetensors",
    )
    workflow = wf.calibrate(file_name="with_lora")
    workflow = wf.without(
        workflow, "DigitsTextEncoder", "CLIPTextEncode", "NVFP4FoundryCalibrationPrompts",
        "NVFP4FoundryCalibrate", "NVFP4FoundryCalibrationResult", "KSampler", "ModelSamplingSD3",
        "EmptyHunyuanLatentVideo",
    )  # fmt: skip
    lora = wf.add(
        workflow, "lora", "LoraLoaderModelOnly", lora_name="tiny.safetensors", strength_model=0.5,
        model=[wf.node(workflow, "NVFP4FoundryLoadModel"), 0],
    )  # fmt: skip
    wf.inputs(workflow, "NVFP4FoundryPlanLayers")["model"] = [lora, 0]
    quantize = wf.inputs(workflow, "NVFP4FoundryQuantize")
    quantize["model"] = [lora, 0]
    del quantize["statistics"]
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["extra_rules"] = f"{layer} = bf16"
    run = server.run(workflow)
    assert run.status == "success", run.error
    assert "LoRAs or merges" in run.text(wf.node(workflow, "NVFP4FoundryPlanLayers"))
    made = load_file(server.base / "models/diffusion_models/with_lora.safetensors")
    merged = source[f"{layer}.weight"].float() + 0.5 * (up * 0.05) @ (down * 0.05)
    difference = (made[f"{layer}.weight"].float() - merged).abs().max()
    assert float(difference) <= 2.0**-8 * float(merged.abs().max())  # one rounding to bf16
    assert not torch.equal(made[f"{layer}.weight"], source[f"{layer}.weight"])
    assert torch.equal(made["head.head.weight"], source["head.head.weight"])
