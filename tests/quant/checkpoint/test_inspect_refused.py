"""``inspect`` shows files that cannot be quantized, and says why: as text, JSON and view."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.reports.view import checkpoint_view
from safetensors.torch import save_file

from tests.helpers import quantized_files as qf
from tests.helpers.command_line import run, run_json
from tests.helpers.conversions import Toy

Tensors = dict[str, torch.Tensor]
Make = Callable[[Tensors], Tensors]


def with_hole(model: Tensors) -> Tensors:
    return {n: t for n, t in model.items() if n != "blocks.1.ffn.0.weight"}


def with_unknown_scale(model: Tensors) -> Tensors:
    quantized = qf.comfyui_nvfp4(model)
    return {**quantized, "blocks.0.ffn.0.weight_global_scale": torch.ones(1)}


def with_damaged_marker(model: Tensors) -> Tensors:
    quantized = qf.comfyui_nvfp4(model)
    name = next(name for name in quantized if name.endswith(".comfy_quant"))
    return {**quantized, name: torch.tensor([123, 34], dtype=torch.uint8)}


def lora(_: Tensors) -> Tensors:
    return {
        "blocks.0.q.lora_A.weight": torch.ones(4, 64),
        "blocks.0.q.lora_B.weight": torch.ones(64, 4),
        "blocks.0.q.alpha": torch.ones(()),
    }


def vae(_: Tensors) -> Tensors:
    return {"decoder.conv_in.weight": torch.ones(4, 4, 3, 3), "encoder.conv_in.bias": torch.ones(4)}


def gptq(_: Tensors) -> Tensors:
    return {"blocks.0.q.qweight": torch.ones(8, 8, dtype=torch.int32), "a.bias": torch.ones(2)}


def two_names(model: Tensors) -> Tensors:
    return {**{f"net.{n}": t for n, t in model.items()}, "blocks.0.ffn.0.weight": torch.ones(2, 2)}


def clip(_: Tensors) -> Tensors:
    return {"text_model.encoder.layers.0.mlp.fc1.weight": torch.ones(8, 8)}


CASES: dict[str, tuple[str, Make, str]] = {
    "part": ("model-00001-of-00002.safetensors", dict, "is part 1 of 2 of a model"),
    "hole": ("m.safetensors", with_hole, "lacks blocks.1.ffn.0.weight"),
    "unknown scale": ("m.safetensors", with_unknown_scale, "weight_global_scale"),
    "damaged marker": ("m.safetensors", with_damaged_marker, "comfy_quant"),
    "LoRA": ("m.safetensors", lora, "is a LoRA"),
    "VAE": ("m.safetensors", vae, "is a VAE"),
    "GPTQ": ("m.safetensors", gptq, "GPTQ"),
    "two names": ("m.safetensors", two_names, "both with and without a prefix"),
    "CLIP": ("m.safetensors", clip, "CLIP"),
}


@pytest.mark.parametrize("kind", CASES)
def test_it_is_shown_with_the_reason(
    tmp_path: Path, toy_wan: Toy, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, make, reason = CASES[kind]
    path = tmp_path / name
    tensors = make(toy_wan())
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    summary = inspect_checkpoint(path)
    assert reason in summary.refusal
    assert summary.layers and summary.total_bytes > 0
    code, out, error = run(capsys, "inspect", path)
    assert (code, error) == (0, "")
    assert "warning: it cannot be quantized: " in out and reason in out
    code, data = run_json(capsys, "inspect", path)
    assert code == 0 and reason in data["refusal"]
    view = checkpoint_view(summary)
    assert any(m.level == "warning" and reason in m.text for m in view.messages)
    assert reason in view.text


def test_a_part_of_which_others_are_there_is_shown_with_them(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan()
    names = sorted(model)
    thirds = [names[::3], names[1::3], names[2::3]]
    for number in (1, 3):
        part = {name: model[name] for name in thirds[number - 1]}
        save_file(part, tmp_path / f"m-0000{number}-of-00003.safetensors")
    summary = inspect_checkpoint(tmp_path / "m-00001-of-00003.safetensors")
    shown = sum(model[name].nbytes for part in (thirds[0], thirds[2]) for name in part)
    assert summary.total_bytes == shown
    assert "m-00002-of-00003.safetensors is not beside it" in summary.refusal
    folder = inspect_checkpoint(tmp_path)
    assert folder.total_bytes == shown and "2 of 3 parts" in folder.refusal


def test_a_sound_file_has_no_refusal(tmp_path: Path, toy_wan: Toy) -> None:
    path = tmp_path / "m.safetensors"
    for make in (dict, qf.comfyui_nvfp4, qf.modelopt):
        save_file({n: t.contiguous() for n, t in make(toy_wan()).items()}, path)
        assert inspect_checkpoint(path).refusal == ""
