"""Full checkpoints: only the diffusion model is quantized, the rest is copied bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers import quantized_files as qf
from tests.helpers.command_line import run
from tests.helpers.conversions import Toy, bits, metadata_of, plan_of

PREFIX = "model.diffusion_model."
LINES = "blocks.*.ffn.0 = nvfp4"
BESIDE = {
    "first_stage_model.decoder.conv_in.weight": torch.randn(4, 4, 3, 3).half(),
    "text_encoders.t5.shared.weight": torch.randn(8, 4).to(torch.float8_e4m3fn),
    "text_encoders.t5.scaled_fp8": torch.zeros(0).to(torch.float8_e4m3fn),
    "text_encoders.t5.block.0.q.weight": torch.randn(8, 4).to(torch.float8_e4m3fn),
    "text_encoders.t5.block.0.q.scale_weight": torch.tensor(0.25),
    "text_encoders.t5.block.0.k.quant_state.bitsandbytes__nf4": torch.zeros(2).byte(),
}


@pytest.fixture
def checkpoint(tmp_path: Path, toy_wan: Toy) -> Path:
    """A full checkpoint whose text encoder is quantized, partly announced in its header."""
    path = tmp_path / "full.safetensors"
    model = {PREFIX + name: tensor for name, tensor in toy_wan(blocks=2).items()}
    announced = {"text_encoders.t5.block.0.q": {"format": "float8_e4m3fn"}}
    metadata = {"_quantization_metadata": json.dumps({"layers": announced}), "title": "mine"}
    save_file({**model, **BESIDE}, path, metadata)
    return path


def test_the_rest_is_copied_and_names_stay(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    with open_source(checkpoint) as source:
        report = convert(source, plan_of(source, LINES), target, whole_file=True)
    before, after = load_file(checkpoint), load_file(target)
    for name in BESIDE:
        assert after[name].dtype == before[name].dtype
        assert torch.equal(bits(after[name]), bits(before[name])), name
    added = {f"{PREFIX}blocks.{i}.ffn.0.{s}" for i in range(2)
             for s in ("comfy_quant", "weight_scale", "weight_scale_2")}  # fmt: skip
    assert set(after) == set(before) | added
    layers = json.loads(metadata_of(target)["_quantization_metadata"])["layers"]
    assert set(layers) == {
        "text_encoders.t5.block.0.q", *(f"{PREFIX}blocks.{i}.ffn.0" for i in range(2))
    }  # fmt: skip
    assert metadata_of(target)["title"] == "mine"
    assert any("6 tensors beside" in w and "copied as they are" in w for w in report.notes)
    assert verify_checkpoint(target, checkpoint).problems == ()


def test_only_the_model_is_taken_unless_asked(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    with open_source(checkpoint) as source:
        report = convert(source, plan_of(source, LINES), target)
    assert not any(
        name.startswith((PREFIX, "text_encoders.", "first")) for name in load_file(target)
    )
    assert any("6 tensors beside" in w and "left out" in w for w in report.notes)
    assert verify_checkpoint(target, checkpoint).problems == ()


def test_verify_sees_damage_beside_the_model(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    with open_source(checkpoint) as source:
        convert(source, plan_of(source, LINES), target, whole_file=True)
    tensors, metadata = load_file(target), metadata_of(target)
    changed = {**tensors, "first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)}
    save_file(changed, target, metadata)
    (problem,) = verify_checkpoint(target, checkpoint).problems
    assert problem.startswith("first_stage_model.decoder.conv_in.weight: the tensor is not quant")
    del tensors["text_encoders.t5.shared.weight"]
    save_file(tensors, target, metadata)
    (problem,) = verify_checkpoint(target, checkpoint).problems
    assert problem.startswith("text_encoders.t5.shared.weight: only one of source and checkpoint")


@pytest.mark.parametrize("kind", ["scaled fp8", "ModelOpt"])
def test_a_quantized_full_checkpoint(tmp_path: Path, toy_wan: Toy, kind: str) -> None:
    path, target = tmp_path / "full.safetensors", tmp_path / "out.safetensors"
    model = qf.MAKERS[kind](toy_wan(blocks=2))
    tensors = {PREFIX + name: tensor.contiguous() for name, tensor in model.items()}
    save_file({**tensors, **BESIDE}, path)
    with open_source(path) as source:
        convert(source, plan_of(source, "blocks.* = nvfp4"), target, whole_file=True)
    after = load_file(target)
    assert {n for n in after if not n.startswith(PREFIX)} == set(BESIDE)
    assert not any(n.endswith(".scale_weight") and n.startswith(PREFIX) for n in after)
    with open_source(path) as a, open_source(target) as b:
        assert set(a.tensors) == set(b.tensors)


def test_a_file_of_the_model_alone_stays_one(tmp_path: Path, toy_wan: Toy) -> None:
    path, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file(toy_wan(blocks=2), path)
    with open_source(path) as source:
        convert(source, plan_of(source, LINES), target, whole_file=True)
    assert set(load_file(path)) <= set(load_file(target))


def test_on_the_command_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.safetensors"
    code, _, error = run(capsys, "quantize", checkpoint, target, "--preset", "all",
                         "--whole-checkpoint")  # fmt: skip
    assert code == 0, error
    assert set(BESIDE) <= set(load_file(target))
    assert run(capsys, "verify", target, "--source", checkpoint)[0] == 0
