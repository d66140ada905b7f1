"""Finding the LoRAs before a node in a prompt, without ComfyUI."""

from __future__ import annotations

from typing import Any

import pytest
from nvfp4_foundry.nodes.bridge.lora_names import find_loras
from nvfp4_foundry.quant.sources import AppliedLora

FILES = ("a.safetensors", "b.safetensors", "style/c.safetensors")
A, B, C = FILES
TYPES = {
    "UNETLoader": ["MODEL"],
    "LoraLoader": ["MODEL", "CLIP"],
    "LoraLoaderModelOnly": ["MODEL"],
    "LoraLoaderBypassModelOnly": ["MODEL"],
    "ModelMergeSimple": ["MODEL"],
    "CLIPLoader": ["CLIP"],
    "PrimitiveFloat": ["FLOAT"],
    "PrimitiveString": ["STRING"],
}

Prompt = dict[str, dict[str, Any]]


def output_type(class_type: str, number: int) -> str | None:
    types = TYPES.get(class_type, [])
    return types[number] if number < len(types) else None


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def lora(model: str, name: Any, strength: Any = 1.0) -> dict[str, Any]:
    return node("LoraLoaderModelOnly", model=[model, 0], lora_name=name, strength_model=strength)


def find(prompt: Prompt, last: str, **options: Any) -> list[tuple[str, float | None]]:
    """Return what is found before a Quantize that takes the MODEL of ``last``."""
    full = {"unet": node("UNETLoader", unet_name="x"), **prompt}
    full["q"] = node("Quantize", model=[last, 0], plan=["p", 0])
    return [(lo.name, lo.strength) for lo in find_loras(full, "q", FILES, output_type, **options)]


def test_a_chain_in_the_order_of_application() -> None:
    prompt = {"1": lora("unet", A, 0.5), "2": lora("1", B, -1), "3": lora("2", C)}
    assert find(prompt, "3") == [(A, 0.5), (B, -1.0), (C, 1.0)]


def test_the_same_file_twice_counts_twice() -> None:
    assert find({"1": lora("unet", A, 0.5), "2": lora("1", A, 0.25)}, "2") == [(A, 0.5), (A, 0.25)]


def test_nodes_of_any_kind_between_and_nodes_elsewhere() -> None:
    prompt = {
        "1": lora("unet", A),
        "2": node("SomePacksPatch", thing=["1", 0]),
        "elsewhere": lora("unet", B),
    }
    assert find(prompt, "2") == [(A, 1.0)]


@pytest.mark.parametrize("strength", [0, 0.0])
def test_strength_zero_is_not_applied(strength: float) -> None:
    prompt = {"1": lora("unet", A, strength), "2": lora("1", B)}
    assert find(prompt, "2") == [(B, 1.0)]


def test_the_strength_on_the_model_counts_and_the_clip_is_not_followed() -> None:
    stock = {"strength_model": 0.7, "strength_clip": 0.2}
    prompt = {
        "clip": node("CLIPLoader", clip_name=B),
        "other": node("LoraLoader", model=["unet", 0], clip=["clip", 0], lora_name=C, **stock),
        "1": node("LoraLoader", model=["unet", 0], clip=["other", 1], lora_name=A, **stock),
    }
    assert find(prompt, "1") == [(A, 0.7)]


def test_linked_values_are_read_where_they_are_constants() -> None:
    prompt = {
        "name": node("PrimitiveString", value=A),
        "strength": node("PrimitiveFloat", value=0.3),
        "1": lora("unet", ["name", 0], ["strength", 0]),
        "sum": node("Add", a=1.0, b=["strength", 0]),
        "2": lora("1", B, ["sum", 0]),
        "3": lora("2", ["sum", 0]),
    }
    assert find(prompt, "3") == [(A, 0.3), (B, None)]


def test_loaders_of_several_loras() -> None:
    flat = node(
        "Stacker", model=["unet", 0],
        lora_name_1=A, model_weight_1=0.5, clip_weight_1=0.9, switch_1="On",
        lora_name_2=B, model_weight_2=0.6, clip_weight_2=0.9, switch_2="Off",
        lora_name_3="None", model_weight_3=1.0,
    )  # fmt: skip
    assert find({"1": flat}, "1") == [(A, 0.5)]
    rows = node(
        "PowerLoader", model=["unet", 0], clip=["clip", 0],
        lora_1={"on": True, "lora": C, "strength": 0.8},
        lora_2={"on": False, "lora": A, "strength": 0.8},
    )  # fmt: skip
    assert find({"1": rows}, "1") == [(C, 0.8)]
    stack = {
        "stack": node("LoraStack", lora_01=A, strength_01=0.4, lora_02=B, strength_02=0.5),
        "1": node("ApplyStack", model=["unet", 0], lora_stack=["stack", 0]),
    }
    assert find(stack, "1") == [(A, 0.4), (B, 0.5)]


def test_bypass_mode_is_not_in_the_weights() -> None:
    bypass = {**lora("1", B), "class_type": "LoraLoaderBypassModelOnly"}
    assert find({"1": lora("unet", A), "2": bypass}, "2") == [(A, 1.0)]


def test_both_sides_of_a_merge() -> None:
    prompt = {
        "1": lora("unet", A),
        "2": lora("unet", B),
        "3": node("ModelMergeSimple", model1=["1", 0], model2=["2", 0], ratio=0.5),
    }
    assert find(prompt, "3") == [(A, 1.0), (B, 1.0)]


def test_nodes_that_were_expanded_while_running() -> None:
    prompt = {
        "loader": node("PickedByTheServer", model=["unet", 0], how="best"),
        "loader.0.1": lora("unet", A, 0.5),
    }
    assert find(prompt, "loader") == []
    assert find(prompt, "loader", expanded={"loader.0.1": "loader"}) == [(A, 0.5)]
    named = {**prompt, "loader": lora("unet", A, 0.5)}
    assert find(named, "loader", expanded={"loader.0.1": "loader"}) == [(A, 0.5)]


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"q": {}},
        {"q": {"class_type": "Quantize", "inputs": {"model": ["gone", 0]}}},
        {"q": {"class_type": "Quantize", "inputs": {"model": "text"}}},
        {"q": node("Quantize", model=["1", 0]), "1": node("Loop", model=["1", 0], a=["2", 0]),
         "2": node("Loop", model=["1", 0], lora=["3", 0]), "3": node("Loop", x=["3", 0])},
    ],
)  # fmt: skip
def test_odd_prompts_give_none(prompt: Prompt) -> None:
    assert find_loras(prompt, "q", FILES, output_type) == ()


def test_as_text() -> None:
    assert str(AppliedLora(A, 0.75)) == "a.safetensors at 0.75"
    assert str(AppliedLora(A, None)) == "a.safetensors at unknown strength"
