"""Prompts with the node ids and inputs of earlier versions."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from nvfp4_foundry.nodes.prompts.migrations import MIGRATIONS, migrate


def migrated(class_type: str, **inputs: Any) -> dict[str, Any]:
    data = {"prompt": {"1": {"class_type": class_type, "inputs": inputs, "_meta": {"title": "x"}}}}
    return migrate(copy.deepcopy(data))["prompt"]["1"]


def test_renamed_nodes_keep_their_inputs_and_titles() -> None:
    node = migrated("NVFP4FoundryLoadModel", model_file="a", complete_from="nothing")
    assert node == {
        "class_type": "NVFP4FoundryLoadSourceModel",
        "inputs": {"model_file": "a", "complete_from": "nothing"},
        "_meta": {"title": "x"},
    }


def test_a_clip_goes_into_the_model_socket() -> None:
    node = migrated(
        "NVFP4FoundryPlanTextEncoder", clip=["2", 0], recipe=["3", 0], encoder="t5xxl",
        any_architecture=False,
    )  # fmt: skip
    assert node["class_type"] == "NVFP4FoundryPlanLayers"
    assert node["inputs"] == {
        "model": ["2", 0], "recipe": ["3", 0], "encoder": "t5xxl", "any_architecture": False,
    }  # fmt: skip
    node = migrated("NVFP4FoundryQuantizeTextEncoder", clip=["2", 0], plan=["4", 0], encoder="")
    assert node["class_type"] == "NVFP4FoundryQuantizeModel"
    assert node["inputs"] == {
        "model": ["2", 0], "plan": ["4", 0], "preview": "as this machine runs it",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "source", "inputs"),
    [
        ("NVFP4FoundryRecipeFromGguf", "GGUF", {"gguf_file": "a.gguf", "bits_limit": 4}),
        ("NVFP4FoundryRecipeFromCheckpoint", "checkpoint", {"model_file": "a"}),
        ("NVFP4FoundryRecipeFromCalibration", "calibration", {"careful": "keep"}),
        ("NVFP4FoundryLoadRecipe", "recipe file", {"name": "mine"}),
    ],
)
def test_all_sources_of_recipes_become_one_node(
    old: str, source: str, inputs: dict[str, Any]
) -> None:
    node = migrated(old, **inputs)
    assert node["class_type"] == "NVFP4FoundryLoadRecipe" and node["inputs"]["source"] == source
    for name, value in inputs.items():
        assert node["inputs"][f"source.{name}"] == value


def test_a_node_of_this_version_is_left_alone() -> None:
    inputs = {"source": "recipe file", "source.name": "mine"}
    assert migrated("NVFP4FoundryLoadRecipe", **inputs)["inputs"] == inputs
    formats = "nvfp4"
    assert migrated("NVFP4FoundryAutoMix", formats=formats)["inputs"]["formats"] == formats
    assert migrated("KSampler", seed=1)["inputs"] == {"seed": 1}


def test_switches_of_formats_become_a_list() -> None:
    node = migrated("NVFP4FoundryAutoMix", allow_bf16=False, allow_int8_rowwise=True, save_as="")
    assert node["inputs"] == {
        "formats": "nvfp4, float8_e4m3fn, int8_rowwise", "save_as": "",
    }  # fmt: skip


def test_single_steps_are_gone() -> None:
    node = migrated("NVFP4FoundryProbeModel", unit="each input", sigmas=4, measure="single steps")
    assert node["inputs"] == {"unit": "each input", "sigmas": 4}


def test_odd_prompts_pass_through() -> None:
    for prompt in (None, [], {"1": None}, {"1": {"inputs": {}}}, {"1": {"class_type": "x"}}):
        assert migrate({"prompt": prompt}) == {"prompt": prompt}


def test_the_page_can_read_the_table() -> None:
    table = {old: new.to_json() for old, new in MIGRATIONS.items()}
    assert json.loads(json.dumps(table))["NVFP4FoundryLoadModel"]["id"] in str(table)
