"""The header of a checkpoint, before and after the layers are encoded."""

from __future__ import annotations

import json
from pathlib import Path

from nvfp4_foundry.quant.conversion.convert import quantize_to_memory
from nvfp4_foundry.quant.conversion.header_metadata import header_metadata, reserved_length
from nvfp4_foundry.quant.conversion.job import prepare_job
from nvfp4_foundry.quant.planning import Recipe
from nvfp4_foundry.quant.sources import AppliedLora, StateDictSource

from tests.helpers.conversions import Toy, plan_of


def test_formats_are_announced_layer_by_layer(toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan(), metadata={"license": "mine"})
    plan = plan_of(source, "*.ffn.0 = nvfp4_w4a16\n*.ffn.2 = float8_e4m3fn")
    metadata = header_metadata(prepare_job(source, plan, None, "cpu"), ())
    assert metadata["license"] == "mine"
    announced = json.loads(metadata["_quantization_metadata"])
    assert announced["format_version"] == "1.0"
    assert announced["layers"] == {
        la.name: {"format": "nvfp4", "full_precision_matrix_mult": True}
        if la.format == "nvfp4_w4a16"
        else {"format": "float8_e4m3fn"}
        for la in plan.quantized()
    }


def test_the_room_left_is_enough_for_what_is_known_at_the_end(toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)
    job = prepare_job(source, plan, None, "cpu")
    made = quantize_to_memory(source, plan)
    before, after = (sum(map(len, header_metadata(job, layers).values()))
                     for layers in ((), made.report.layers))  # fmt: skip
    assert 0 < after - before <= reserved_length(job)


def test_provenance_names_files_but_not_where_they_are_kept(tmp_path: Path, toy_wan: Toy) -> None:
    scales = tmp_path / "private" / "scales.json"
    scales.parent.mkdir()
    scales.write_text(json.dumps({"blocks.0.self_attn.q": 0.5}))
    source = StateDictSource(toy_wan())
    source.loras = (AppliedLora("detail.safetensors", 0.5),)
    plan = plan_of(source, input_scale=f"file={scales}")
    metadata = header_metadata(prepare_job(source, plan, None, "cpu"), ())
    assert "private" not in str(metadata)
    provenance = json.loads(metadata["nvfp4_foundry"])
    assert provenance["recipe"]["input_scale"] == "file=scales.json*4.0"
    assert provenance["loras"] == [{"name": "detail.safetensors", "strength": 0.5}]
    assert "weight_error" not in provenance["layers"] and provenance["calibration"] is None
    assert Recipe.model_validate(provenance["recipe"]).rules == plan.recipe.rules


def test_what_is_usual_of_a_recipe_is_not_recorded(toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    recipes = []
    for numbers in ({}, {"headroom": 2.0}, {"input_scale": "dynamic"}):
        job = prepare_job(source, plan_of(source, **numbers), None, "cpu")
        recipes.append(json.loads(header_metadata(job, ())["nvfp4_foundry"])["recipe"])
    assert [set(recipe) for recipe in recipes] == [
        {"rules", "rounding"},
        {"rules", "rounding", "headroom", "input_scale"},
        {"rules", "rounding", "input_scale"},
    ]
