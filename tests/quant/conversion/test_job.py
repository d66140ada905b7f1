"""Decisions before the first weight is read: tensors, scales, order, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import quantize_to_memory
from nvfp4_foundry.quant.conversion.job import prepare_job
from nvfp4_foundry.quant.errors import CalibrationError, PlanError
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from safetensors.torch import save_file

from tests.helpers.conversions import Toy, plan_of


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_announced_is_what_is_written(name: str, toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan(width=256))
    plan = plan_of(source, f"blocks.1.ffn.0 = {name}\nblocks.* = nvfp4", input_scale="fixed=0.5")
    specs = prepare_job(source, plan, None, "cpu").specs()
    made = quantize_to_memory(source, plan).tensors
    found = {n: (tuple(t.shape), t.dtype) for n, t in made.items()}
    assert {n: (spec.shape, spec.dtype) for n, spec in specs.items()} == found
    assert list(specs) == list(made)


def test_a_plan_of_another_model_is_refused(toy_wan: Toy) -> None:
    plan = plan_of(StateDictSource(toy_wan(blocks=4)))
    with pytest.raises(PlanError, match="another model"):
        prepare_job(StateDictSource(toy_wan(blocks=3)), plan, None, "cpu")


def test_scales_the_source_has_serve_where_nothing_else_does(tmp_path: Path, toy_wan: Toy) -> None:
    path = tmp_path / "quantized.safetensors"
    source = StateDictSource(toy_wan())
    rules = "blocks.* = nvfp4"
    made = quantize_to_memory(source, plan_of(source, rules, input_scale="fixed=0.25"))
    save_file(dict(made.tensors), path, dict(made.metadata))
    layer = "blocks.1.self_attn.q"
    with open_source(path) as again:
        decision = prepare_job(again, plan_of(again, rules), None, "cpu").decisions[layer]
        assert decision.amax == pytest.approx(0.25 * 2688)
        assert "the source's own" in decision.reason
        dynamic = prepare_job(again, plan_of(again, rules, input_scale="dynamic"), None, "cpu")
        assert not any(d.is_static for d in dynamic.decisions.values())


def test_only_linear_layers_that_take_a_scale_get_a_decision(toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    rules = "*.self_attn.q = nvfp4_w4a16\n*.self_attn.k = float8_e4m3fn\n*.self_attn.v = bf16"
    plan = plan_of(source, f"{rules}\n*.self_attn.o = nvfp4", input_scale="fixed=0.5")
    decisions = prepare_job(source, plan, None, "cpu").decisions
    assert {name.rpartition(".")[2] for name in decisions} == {"k", "o"}


def test_a_file_of_scales_for_other_layers_is_refused(tmp_path: Path, toy_wan: Toy) -> None:
    scales = tmp_path / "scales.json"
    scales.write_text(json.dumps({"blocks.0.self_attn.qq": 0.5}))
    source = StateDictSource(toy_wan())
    plan = plan_of(source, input_scale=f"file={scales}")
    with pytest.raises(CalibrationError, match=r"blocks\.0\.self_attn\.qq"):
        prepare_job(source, plan, None, "cpu")


def test_nothing_is_loaded(toy_wan: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)

    def refuse(name: str) -> torch.Tensor:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(source, "load", refuse)
    job = prepare_job(source, plan, None, "cpu")
    assert len(job.layers) == len(plan.layers) and job.prefix == "" and job.rest is None
