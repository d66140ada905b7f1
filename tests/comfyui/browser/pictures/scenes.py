"""The workflows that the pictures show, in API form."""

from __future__ import annotations

from typing import Any

from tests.comfyui import comfy_workflows as wf

MODEL, LOG, NAME = "wan_small_bf16", "wan_small.log.xz", "wan_small"
FILE = f"diffusion_models/{MODEL}.safetensors"
QUANTIZED = f"{MODEL}_nvfp4"
QUANTIZED_FILE = f"diffusion_models/{QUANTIZED}.safetensors"
RULES = "blocks.*.ffn.2 = float8_e4m3fn\nblocks.* @ first:1 = bf16"
PROMPTS = ("a handwritten digit 1", "a handwritten digit 4", "a handwritten digit 7")
_SCALE = {"input_scale": "amax", "input_scale.headroom": 4.0}


def calibrate(seed: int = 1) -> wf.Workflow:
    """Plan, calibrate, quantize, save."""
    workflow = wf.calibrate(seed=seed, name=NAME, file_name="")
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = FILE
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset.edge_blocks"] = 2
    wf.inputs(workflow, "NVFP4FoundryCalibrationPrompts")["deck.text"] = "\n".join(PROMPTS)
    wf.inputs(workflow, "NVFP4FoundrySaveCheckpoint").update(
        file_name="", if_exists="add a number", model_card=True
    )
    return workflow


def plan() -> wf.Workflow:
    """Only the first three nodes of `calibrate`."""
    names = ("NVFP4FoundryLoadSourceModel", "NVFP4FoundrySelectPreset", "NVFP4FoundryPlanLayers")
    workflow = calibrate()
    return {key: node for key, node in workflow.items() if node["class_type"] in names}


def measure() -> wf.Workflow:
    """Measure and probe with the saved calibration, then mix formats."""
    calibration = "NVFP4FoundryCalibrationResult"
    workflow = wf.measure_and_mix(name=NAME, file_name="mixed")
    wf.inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = FILE
    wf.inputs(workflow, "NVFP4FoundrySelectPreset")["preset.edge_blocks"] = 2
    result = wf.node(workflow, calibration)
    workflow = wf.without(
        workflow, calibration, "NVFP4FoundryCalibrate", "NVFP4FoundryCalibrationPrompts",
        "NVFP4FoundryQuantizeModel", "NVFP4FoundrySaveCheckpoint",
    )  # fmt: skip
    workflow = _only_connected(workflow)
    wf.add(workflow, result, "NVFP4FoundryLoadCalibration", name=NAME)
    wf.inputs(workflow, "NVFP4FoundryMeasureSensitivity")["statistics"] = [result, 0]
    probe = wf.inputs(workflow, "NVFP4FoundryProbeLatentShift")
    probe.update(sigmas=1, statistics=[result, 0])
    return workflow


def recipes() -> wf.Workflow:
    """Take a recipe from a checkpoint, change and save it."""
    workflow: wf.Workflow = {}
    wf.load_recipe(workflow, "1", "checkpoint", model_file=QUANTIZED_FILE)
    wf.add(
        workflow, "2", "NVFP4FoundryEditRecipe",
        recipe=["1", 0], rules=RULES, rounding="as in the recipe",
    )  # fmt: skip
    wf.add(workflow, "3", "NVFP4FoundrySaveRecipe", recipe=["2", 0], name="wan_small_ffn8")
    return workflow


def files() -> wf.Workflow:
    """Inspect and rescale a checkpoint; import, merge and export calibrations."""
    workflow: wf.Workflow = {}
    wf.add(workflow, "1", "NVFP4FoundryInspectCheckpoint", model_file=QUANTIZED_FILE)
    wf.add(workflow, "2", "NVFP4FoundryLoadSourceModel", model_file=FILE)
    wf.add(
        workflow, "3", "NVFP4FoundryImportActivationLog", log_file=LOG, model=["2", 0],
        ignore_unknown=False, save_as="from_log",
    )  # fmt: skip
    wf.add(workflow, "4", "NVFP4FoundryLoadCalibration", name=NAME)
    links = {"statistics.statistics_0": ["4", 0], "statistics.statistics_1": ["3", 0]}
    wf.add(workflow, "5", "NVFP4FoundryMergeCalibrations", save_as="merged", **links)
    wf.add(
        workflow, "6", "NVFP4FoundryRescaleCheckpoint", statistics=["5", 0], **_SCALE,
        model_file=QUANTIZED_FILE, file_name=f"{QUANTIZED}_rescaled", folder="diffusion_models",
        if_exists="add a number",
    )  # fmt: skip
    wf.add(
        workflow, "7", "NVFP4FoundryExportInputScales", statistics=["4", 0], **_SCALE,
        name="wan_small_scales", layout="layers", format="nvfp4", prefix="",
    )  # fmt: skip
    return workflow


def quantize_file() -> wf.Workflow:
    """One node, model, Run."""
    workflow = wf.load("Quantize a model file")
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(model_file=FILE)
    return workflow


def compare() -> wf.Workflow:
    """The demo model and its quantized version, sampled and compared."""
    workflow = wf.sample("tiny_wan.safetensors", prefix="exact")
    sampler, shift = wf.inputs(workflow, "KSampler"), wf.inputs(workflow, "ModelSamplingSD3")
    first = wf.node(workflow, "KSampler")
    del workflow[wf.node(workflow, "SaveLatent")]
    wf.add(workflow, "91", "UNETLoader", unet_name="tiny_nvfp4.safetensors", weight_dtype="default")
    wf.add(workflow, "92", "ModelSamplingSD3", **{**shift, "model": ["91", 0]})
    wf.add(workflow, "93", "KSampler", **{**sampler, "model": ["92", 0]})
    wf.add(
        workflow, "94", "NVFP4FoundryCompareSamples",
        reference=[first, 0], other=["93", 0], gain=20.0,
    )  # fmt: skip
    return workflow


def quantize_tiny() -> wf.Workflow:
    """Quantize the demo model, for `compare`."""
    workflow = wf.load("Quantize a model file")
    wf.inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        model_file="diffusion_models/tiny_wan.safetensors", file_name="tiny_nvfp4"
    )
    return workflow


def _only_connected(workflow: dict[str, Any]) -> wf.Workflow:
    """Leave out text encodings whose prompt came from a node that is gone."""
    lost = {
        key for key, node in workflow.items() for value in node["inputs"].values()
        if node["class_type"] == "CLIPTextEncode"
        and isinstance(value, list) and value[0] not in workflow
    }  # fmt: skip
    users = {
        key for key, node in workflow.items()
        if node["class_type"] in ("KSampler", "ModelSamplingSD3")
        and any(isinstance(v, list) and (v[0] in lost or v[0] not in workflow)
                for v in node["inputs"].values())
    }  # fmt: skip
    gone = lost | users
    gone |= {
        key for key, node in workflow.items() if node["class_type"] == "KSampler"
        and any(isinstance(v, list) and v[0] in gone for v in node["inputs"].values())
    }  # fmt: skip
    return {key: node for key, node in workflow.items() if key not in gone}
