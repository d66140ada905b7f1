"""The shipped workflows, adapted from a 14B model and a text encoder to the tiny WAN."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "example_workflows" / "api"
STEPS = 4
CFG = 2.0
DIGITS = (1, 4, 7)

Workflow = dict[str, dict[str, Any]]


def load(name: str) -> Workflow:
    """Read a shipped workflow in API form."""
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def node(workflow: Workflow, class_type: str) -> str:
    """Return the id of the only node of a class."""
    (found,) = (key for key, value in workflow.items() if value["class_type"] == class_type)
    return found


def inputs(workflow: Workflow, class_type: str) -> dict[str, Any]:
    """Return the inputs of the only node of a class."""
    return workflow[node(workflow, class_type)]["inputs"]


def choose_preset(workflow: Workflow, *, edge_blocks: int = 2) -> None:
    """Choose the preset for WAN 2.2 14B and its settings instead of the automatic one."""
    settings = {
        "edge_blocks": edge_blocks,
        "edge_format": "float8_e4m3fn",
        "sensitive_format": "float8_e4m3fn",
        "attention_format": "nvfp4",
        "ffn_format": "nvfp4",
    }
    values = {f"preset.{name}": value for name, value in settings.items()}
    inputs(workflow, "NVFP4FoundrySelectPreset").update(preset="wan2.2-14b", **values)


def quantize_file() -> Workflow:
    """The shipped workflow of one node, with Select NVFP4 Preset in front and a name."""
    workflow = load("Quantize a model file")
    stem = "wan2.2_ti2v_5B"
    preset = add(
        workflow,
        "preset",
        "NVFP4FoundrySelectPreset",
        extra_rules="",
        rounding="weighted",
        input_scale="amax",
        **{"input_scale.headroom": 4.0},
    )
    choose_preset(workflow)
    inputs(workflow, "NVFP4FoundrySelectPreset")["preset"] = "wan2.2-ti2v-5b"
    inputs(workflow, "NVFP4FoundryQuantizeFile").update(
        recipe=[preset, 0], file_name=f"{stem}_nvfp4"
    )
    return workflow


def calibrate(*, seed: int = 1, name: str = "tiny", file_name: str = "tiny_nvfp4") -> Workflow:
    """The shipped calibrate-quantize-save workflow on the tiny model."""
    workflow = load("Calibrate and quantize a model")
    _tiny_calibration(workflow, seed, name, file_name)
    return workflow


def measure_and_mix(*, seed: int = 1, name: str = "mixed", file_name: str = "tiny_mix") -> Workflow:
    """The shipped workflow that mixes formats by measured sensitivity, on the tiny model."""
    workflow = load("Measure layers and mix formats")
    _tiny_calibration(workflow, seed, name, file_name)
    for class_type in ("NVFP4FoundryProbeResult", "NVFP4FoundryAutoMix"):
        inputs(workflow, class_type)["save_as"] = name
    return workflow


def _tiny_calibration(workflow: Workflow, seed: int, name: str, file_name: str) -> None:
    _tiny(workflow, seed)
    inputs(workflow, "NVFP4FoundryLoadSourceModel")["model_file"] = (
        "diffusion_models/tiny_wan.safetensors"
    )
    choose_preset(workflow, edge_blocks=1)
    deck = {"deck": "typed", "deck.text": "\n".join(f"digit {d}" for d in DIGITS), "limit": 8}
    inputs(workflow, "NVFP4FoundryCalibrationPrompts").update(deck)
    inputs(workflow, "NVFP4FoundryCalibrate")["name"] = name
    inputs(workflow, "NVFP4FoundrySaveCheckpoint").update(file_name=file_name, if_exists="stop")


def sample(model: str, *, seed: int = 1, digit: int = 3, prefix: str = "sample") -> Workflow:
    """The shipped sampling workflow with stock nodes; the latent is saved instead of a video."""
    workflow = load("Sample a quantized model")
    _tiny(workflow, seed)
    inputs(workflow, "UNETLoader")["unet_name"] = model
    positive = inputs(workflow, "KSampler")["positive"][0]
    workflow[positive]["inputs"]["text"] = f"digit {digit}"
    for class_type in ("SaveVideo", "CreateVideo", "VAEDecode", "VAELoader"):
        del workflow[node(workflow, class_type)]
    save_latent(workflow, [node(workflow, "KSampler"), 0], prefix)
    return workflow


def save_latent(workflow: Workflow, link: list[Any], prefix: str) -> str:
    """Add a stock node that saves a latent; return its id."""
    key = f"save-{prefix}"
    workflow[key] = {
        "class_type": "SaveLatent",
        "inputs": {"samples": link, "filename_prefix": prefix},
    }
    return key


def add(workflow: Workflow, key: str, class_type: str, **values: Any) -> str:
    """Add a node; return its id."""
    workflow[key] = {"class_type": class_type, "inputs": values}
    return key


def load_recipe(workflow: Workflow, key: str, source: str, **values: Any) -> str:
    """Add *Load Recipe* with the values of its source; return its id."""
    chosen = {f"source.{name}": value for name, value in values.items()}
    return add(workflow, key, "NVFP4FoundryLoadRecipe", source=source, **chosen)


def without(workflow: Workflow, *class_types: str) -> Workflow:
    """Return a copy that lacks the nodes of these classes."""
    kept = {k: v for k, v in workflow.items() if v["class_type"] not in class_types}
    return copy.deepcopy(kept)


def _tiny(workflow: Workflow, seed: int) -> None:
    workflow[node(workflow, "CLIPLoader")] = {"class_type": "DigitsTextEncoder", "inputs": {}}
    for value in workflow.values():
        if value["class_type"] == "EmptyHunyuanLatentVideo":
            value["inputs"].update(width=64, height=64, length=1)
        if value["class_type"] == "KSampler":
            value["inputs"].update(seed=seed, steps=STEPS, cfg=CFG)
        if value.get("_meta", {}).get("title") == "Negative prompt":
            value["inputs"]["text"] = ""
