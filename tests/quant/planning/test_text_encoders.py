"""Text encoders: recognised as ComfyUI does, and only what its layers decode is quantized."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import (
    Architecture,
    Inventory,
    Recipe,
    detect_architecture,
    get_preset,
    inventory_of,
    make_plan,
)
from nvfp4_foundry.quant.planning.completeness import missing_parts
from nvfp4_foundry.quant.planning.presets import preset_for, require_architecture
from nvfp4_foundry.quant.planning.recipe import Rule
from nvfp4_foundry.quant.sources import TensorInfo

from tests.data import manifests

#: Model, what it is recognised as, what is said of it.
KNOWN = [
    ("t5-xxl-first", "t5-xxl", "24 encoder.block"),
    ("qwen2.5-3b", "qwen2.5", "width 2048, 36 model.layers"),
    ("qwen3-0.6b", "qwen3", "width 1024, 28 model.layers"),
    ("qwen3-2b", "qwen3", "width 2048, 28 model.layers"),
    ("qwen3-8b", "qwen3", "width 4096, 36 model.layers"),
    ("qwen3-vl-4b", "qwen3-vl", "width 2560, 36 model.language_model.layers"),
    ("qwen3-vl-8b", "qwen3-vl", "width 4096, 36 model.language_model.layers"),
    ("qwen3-vl-32b", "qwen3-vl", "width 5120, 50 model.layers"),
    ("qwen3.5-2b", "qwen3.5", "width 2048, 24 model.language_model.layers"),
    ("qwen3.5-9b", "qwen3.5", "width 4096, 32 model.language_model.layers"),
    ("gemma2-2b", "gemma2", "width 2304, 26 model.layers"),
    ("gemma3-4b", "gemma3", "width 2560, 34 model.layers"),
    ("gemma3-4b-vision", "gemma3", "width 2560, 34 model.layers"),
    ("gemma3-12b", "gemma3", "width 3840, 48 model.layers"),
    ("gemma4-e2b", "gemma4", "width 1536, 35 model.layers"),
    ("gemma4-e4b", "gemma4", "width 2560, 42 model.layers"),
    ("gemma4-12b", "gemma4", "width 3840, 48 model.layers"),
    ("gemma4-31b", "gemma4", "width 5376, 60 model.layers"),
    ("gpt-oss-20b", "gpt-oss", "width 2880, 24 layers"),
    ("mistral3-24b", "mistral3", "width 5120, 40 model.layers"),
    ("ministral3-3b", "mistral3", "width 3072, 26 model.layers"),
    ("llama3-8b", "llama3", "width 4096, 32 model.layers"),
    ("minimax-music3-te", "minimax-music3-te", "width 4096, 36 model.layers"),
]


def inventory(model: str, **changed: tuple[int, ...]) -> Inventory:
    """Return the inventory of a published text encoder, with some tensors of other shapes."""
    shapes = {**manifests.load_key_list(model), **changed}
    return inventory_of(TensorInfo(n, s, torch.bfloat16) for n, s in shapes.items())


@pytest.mark.parametrize(("model", "identity", "facts"), KNOWN)
def test_recognised(model: str, identity: str, facts: str) -> None:
    found = detect_architecture(inventory(model))
    assert (found.id, found.facts, found.problem) == (identity, facts, None)
    assert "text encoder" in found.title and found.folder == "text_encoders"
    assert found.is_text_encoder is (model != "minimax-music3-te")  # it multiplies natively


@pytest.mark.parametrize("model", [model for model, *_ in KNOWN])
def test_only_layers_that_decode_are_quantized(model: str) -> None:
    """The key lists say which module ComfyUI builds for each matrix and bank."""
    record = manifests.load_record(model)
    never = {
        name.removesuffix(".weight")
        for kind in ("parameter", "rewritten")
        for folded in record.get(kind, ())
        for name in manifests.expand(folded)
    }
    tables = {
        name.removesuffix(".weight")
        for folded in record.get("embedding", ())
        for name in manifests.expand(folded)
    }
    found = inventory(model)
    for preset in ("all", "smart", "auto"):
        recipe = get_preset(preset).build() if preset != "auto" else automatic(found)
        plan = make_plan(recipe, found)
        quantized = {layer.name: layer.format for layer in plan.quantized()}
        assert quantized and not never & set(quantized)
        by_row = {quantized[name] for name in tables & set(quantized)}
        assert by_row <= {"float8_e4m3fn", "int8_rowwise", "int8_tensorwise"}
        assert {found.layers[name].kind for name in set(quantized) - tables} == {"linear"}


def automatic(found: Inventory) -> Recipe:
    """Return the recipe of the preset for a model."""
    return preset_for(detect_architecture(found)).build()


def test_experts_of_gpt_oss() -> None:
    found = inventory("gpt-oss-20b")
    assert found.layers["layers.0.mlp.router"].kind == "parameter"
    bank = found.layers["layers.0.mlp.experts.gate_up_proj"]
    assert (bank.kind, bank.shape) == ("linear", (32, 5760, 2880))
    plan = make_plan(Recipe(name="all", default="nvfp4"), found)
    banks = [layer for layer in plan.quantized() if ".experts." in layer.name]
    assert len(banks) == 48 and {layer.format for layer in banks} == {"nvfp4"}
    # half a byte a weight, a scale per 16 of them in tiles of 128 rows, and one per expert
    rows, columns = 5760, 2880
    gates = next(layer for layer in banks if layer.name.endswith("0.mlp.experts.gate_up_proj"))
    marker = len(b'{"format": "nvfp4", "num_experts": 32}')
    assert gates.bytes_after == 32 * (rows * columns * 9 // 16 + 4 + 2 * rows) + marker
    rotated = make_plan(Recipe(name="r", rules=only("*experts*", "int8_convrot")), found)
    assert rotated.counts()["int8_rowwise"] == 48, "the next format that ComfyUI decodes there"
    reasons = {layer.reason for layer in rotated.quantized()}
    assert all("does not decode banks of experts in int8_convrot" in text for text in reasons)


def only(pattern: str, fmt: str) -> tuple[Rule, ...]:
    """Return a rule alone."""
    return (Rule(pattern=pattern, format=fmt),)


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        ({"model.encoder.layers.0.mixer.Wqkv.weight": (3072, 1024)}, "jina-clip-2"),
        ({"model.encoder.layers.0.pre_self_attn_layernorm.weight": (768,),
          "model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)}, "t5-gemma"),
        ({"encoder.block.0.layer.0.SelfAttention.k.weight": (384, 1472)}, "byt5"),
        ({"encoder.block.0.layer.0.SelfAttention.k.weight": (768, 768)}, "t5"),
        ({"encoder.block.0.layer.0.SelfAttention.k.weight": (2048, 2048),
          "encoder.block.23.layer.1.DenseReluDense.wi_1.weight": (5120, 2048)}, "t5"),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768)}, "clip"),
        ({"vision_model.encoder.layers.0.mlp.fc1.weight": (5120, 1280)}, "clip-vision"),
        ({"bert.encoder.layer.0.attention.self.query.weight": (1024, 1024)}, "bert"),
    ],
)  # fmt: skip
def test_plain_layers_are_refused(names: dict[str, tuple[int, ...]], identity: str) -> None:
    found = inventory_of(TensorInfo(n, s, torch.bfloat16) for n, s in names.items())
    assert detect_architecture(found).id == identity
    with pytest.raises(PlanError, match="keep it as it is"):
        make_plan(Recipe(name="r", default="nvfp4"), found)


def test_recipes_saved_for_language_models_still_fit() -> None:
    """Before each family had an id, all but Qwen2.5-VL were ``language-model``."""
    found = detect_architecture(inventory("qwen3-4b"))
    saved = Recipe(name="saved", architectures=("qwen2.5-vl", "language-model"))
    require_architecture(saved, found)
    other = replace(found, former_ids=())
    assert isinstance(other, Architecture) and not other.is_one_of(saved.architectures)


@pytest.mark.parametrize("model", ["qwen3.5-2b", "gemma4-e2b", "gemma4-12b", "gemma4-31b"])
def test_towers_for_pictures_and_sound_may_be_left_out(model: str) -> None:
    """A file for prompts of text is whole without them; without a norm of a block it is not."""
    towers = ("model.visual.", "vision_", "audio_", "multi_modal_projector.")
    shapes = manifests.load_key_list(model)
    text = {n: s for n, s in shapes.items() if not n.startswith(towers)}
    assert len(text) < len(shapes)
    lost = next(n for n in text if n.endswith(".3.input_layernorm.weight"))
    for names, missing in ((text, []), ({n: s for n, s in text.items() if n != lost}, [lost])):
        found = inventory_of(TensorInfo(n, s, torch.bfloat16) for n, s in names.items())
        assert missing_parts(found, detect_architecture(found)) == missing
