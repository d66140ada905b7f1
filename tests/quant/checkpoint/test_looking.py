"""``inspect`` and ``compare`` understand every source that can be quantized."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import compare_checkpoints, inspect_checkpoint
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers
from safetensors.torch import save_file

from tests.helpers import quantized_files as qf
from tests.helpers.command_line import run
from tests.helpers.conversions import Toy
from tests.helpers.source_kinds import gguf

LAYER = "blocks.0.ffn.0"
#: The name of a layer's format, and the divisor of its static input scale if it has one.
LABELS = {
    "scaled fp8": ("float8_e4m3fn (scaled_fp8)", 448),
    "scaled fp8 in 16 bits": ("float8_e4m3fn (scaled_fp8)", None),
    "scaled fp8 e5m2": ("float8_e5m2 (scaled_fp8)", None),
    "plain fp8": ("float8_e4m3fn", None),
    "ComfyUI float8": ("float8_e4m3fn", None),
    "ComfyUI nvfp4": ("nvfp4", 2688),
    "ModelOpt": ("nvfp4 (ModelOpt)", 2688),
    "compressed-tensors": ("nvfp4 (compressed-tensors)", 2688),
    "LightX2V": ("nvfp4 (LightX2V)", 2688),
    "LightX2V, older": ("nvfp4 (LightX2V)", 2688),
    "float8 by rows": ("float8_e4m3fn with weight_scale", None),
    "float8 by blocks": ("float8_e4m3fn with weight_scale_inv", None),
    "int8 by rows": ("int8 with weight_scale", None),
    "ComfyUI mxfp8": ("mxfp8", None),
    "ComfyUI int8": ("int8_convrot", None),
    "ComfyUI int8, small groups": ("int8_convrot", None),
}


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_every_kind_has_a_label() -> None:
    assert set(LABELS) == set(qf.MAKERS)


@pytest.mark.parametrize("kind", qf.MAKERS)
def test_every_kind_is_shown_and_compared_as_what_it_stands_for(
    tmp_path: Path, toy_wan: Toy, kind: str
) -> None:
    model = toy_wan(blocks=2)
    original = saved(tmp_path / "original.safetensors", model)
    made = qf.MAKERS[kind](model)
    path = saved(tmp_path / "made.safetensors", made)
    summary, expected = inspect_checkpoint(path), inspect_checkpoint(original)
    assert summary.architecture == expected.architecture
    shapes = {la.name: (la.kind, la.shape) for la in summary.layers}
    assert shapes == {la.name: (la.kind, la.shape) for la in expected.layers}
    layer = {la.name: la for la in summary.layers}[LAYER]
    label, divisor = LABELS[kind]
    assert layer.format == label
    scale = None if divisor is None else pytest.approx(qf.INPUT_AMAX / divisor, rel=1e-6)
    assert layer.input_scale == scale
    marker = sum(t.nbytes for n, t in made.items() if n == "scaled_fp8")
    assert summary.total_bytes == sum(t.nbytes for t in made.values()) - marker

    found = compare_checkpoints(original, path)
    assert found.only_a == found.only_b == found.not_compared == ()
    compared = {la.name: la for la in found.layers}[LAYER]
    assert (compared.format_a, compared.format_b) == ("bf16", label)
    with open_source(path) as source:
        wanted = model[f"{LAYER}.weight"].double()
        error = (source.load(f"{LAYER}.weight").double() - wanted).norm() / wanted.norm()
    assert compared.relative_error == pytest.approx(float(error), rel=1e-9)
    assert compared.relative_error > 0.001


def test_two_conventions_of_one_format_hardly_differ(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan(blocks=1)
    a = saved(tmp_path / "a.safetensors", qf.comfyui_nvfp4(model))
    for kind in (qf.modelopt, qf.lightx2v, qf.compressed_tensors):
        assert (
            compare_checkpoints(a, saved(tmp_path / "b.safetensors", kind(model))).relative_error
            < 1e-6
        )


def test_a_gguf_beside_a_model_of_diffusers(
    tmp_path: Path, toy_wan: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    """The GGUF lacks the patch embedding: it cannot be quantized, but it can be inspected."""
    model = toy_wan(blocks=2)
    brought = gguf(tmp_path, model, {})
    theirs = {wan_to_diffusers(name): tensor for name, tensor in qf.modelopt(model).items()}
    other = saved(tmp_path / "diffusers.safetensors", theirs)
    with pytest.raises(SourceError, match="patch_embedding"):
        open_source(brought.path)
    formats = {la.name: la.format for la in inspect_checkpoint(brought.path).layers}
    assert (formats[LAYER], formats["blocks.0.self_attn.v"]) == ("Q4_0", "Q8_0")
    found = compare_checkpoints(brought.path, other)
    assert found.only_a == () and found.only_b == ("patch_embedding",)
    assert {la.format_b for la in found.layers if "ffn" in la.name} == {"nvfp4 (ModelOpt)"}
    assert 0.05 < found.relative_error < 0.2
    code, out, error = run(capsys, "compare", brought.path, other)
    assert (code, error) == (0, "") and "nvfp4 (ModelOpt)" in out
    code, out, _ = run(capsys, "inspect", other)
    assert code == 0 and "WAN" in out and "20 nvfp4 (ModelOpt)" in out


def test_what_is_not_understood_is_shown_as_it_is_stored(tmp_path: Path, toy_wan: Toy) -> None:
    made = qf.comfyui_nvfp4(toy_wan(blocks=1))
    del made[f"{LAYER}.weight_scale"], made["blocks.0.ffn.2.comfy_quant"]
    path = saved(tmp_path / "damaged.safetensors", made)
    layers = {la.name: la for la in inspect_checkpoint(path).layers}
    assert layers[LAYER].format == "nvfp4 (not readable)"
    assert layers["blocks.0.ffn.2"].format == "uint8 (not readable)"
    assert layers[LAYER].shape == tuple(made[f"{LAYER}.weight"].shape)
    assert sum(la.bytes for la in layers.values()) == sum(t.nbytes for t in made.values())
