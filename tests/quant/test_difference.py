"""Figures of two samples, and two checkpoints side by side."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant import difference as compare
from nvfp4_foundry.quant.checkpoint import compare_checkpoints
from nvfp4_foundry.quant.checkpoint.layer_record import read_records
from nvfp4_foundry.quant.checkpoint.provenance import read_provenance
from nvfp4_foundry.quant.cli import main
from nvfp4_foundry.quant.difference import Difference, difference, differences
from nvfp4_foundry.quant.errors import CheckpointError, CompareError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.reports.comparison import describe_comparison
from nvfp4_foundry.quant.reports.pictures.side_by_side import (
    GAP,
    LABEL_HEIGHT,
    enlargement,
    image_pixels,
    latent_pixels,
    side_by_side,
)
from nvfp4_foundry.quant.reports.samples import describe_samples
from nvfp4_foundry.quant.rounding import get_rounding
from nvfp4_foundry.quant.sources import open_tensors
from nvfp4_foundry.quant.sources.stored_layers import read_layout
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TINY = str(MODEL_PATH)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Toy = Callable[..., dict[str, torch.Tensor]]


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5), st.sampled_from(DTYPES), st.integers(0, 99)
)
def test_figures_equal_numpy(shape: list[int], dtype: torch.dtype, seed: int) -> None:
    a = random(*shape, seed=seed, dtype=dtype)
    b = random(*shape, seed=seed + 100, dtype=dtype)
    found = difference(a, b)
    x, y = a.double().numpy(), b.double().numpy()
    assert found.relative_error == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x))
    assert found.mean_squared_error == pytest.approx(((y - x) ** 2).mean())
    assert found.largest == np.abs(y - x).max()
    assert found.psnr(2.0) == pytest.approx(10 * np.log10(4 / ((y - x) ** 2).mean()))
    assert found.count == x.size


def test_steps_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random(5, 7, 11, seed=1), random(5, 7, 11, seed=2)
    whole = difference(a, b)
    monkeypatch.setattr(compare, "_STEP", 13)
    for stepwise in (difference(a, b), sum(differences(a, b), Difference())):
        assert (stepwise.count, stepwise.largest) == (whole.count, whole.largest)
        assert stepwise.relative_error == pytest.approx(whole.relative_error, rel=1e-12)


def test_equal_tensors_have_no_error() -> None:
    a = random(2, 3, 4, seed=3)
    same = difference(a, a.clone())
    assert (same.relative_error, same.mean_squared_error, same.largest) == (0, 0, 0)
    assert same.psnr() == math.inf
    assert difference(torch.zeros(3), torch.zeros(3)).relative_error == 0
    assert difference(torch.zeros(3), torch.ones(3)).relative_error == math.inf
    assert difference(torch.zeros(0), torch.zeros(0)) == Difference()


def test_nan_is_not_lost() -> None:
    a, b = torch.ones(2, 3), torch.ones(2, 3)
    b[0, 1] = math.nan
    whole = sum(differences(a, b), Difference())
    assert math.isnan(whole.relative_error) and math.isnan(whole.largest) and not whole.is_finite
    assert "NaN" in describe_samples("latents", differences(a, b))


@pytest.mark.parametrize("shape", [(1, 4), (3, 2), (2, 3, 1)])
def test_shapes_must_agree(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        CompareError, match="the reference is 2x3, the other is " + "x".join(map(str, shape))
    ):
        differences(torch.zeros(2, 3), torch.zeros(shape))


def test_samples_are_described_together_and_one_by_one() -> None:
    items = differences(torch.full((2, 4), 0.5), torch.tensor([[0.5] * 4, [0.6] * 4]))
    lines = describe_samples("images 2x4", items, peak=1.0, ssim=[1.0, 0.5]).splitlines()
    assert lines[0] == "images 2x4"
    assert "relative error     14.142%" in lines
    assert "PSNR               23.01 dB" in lines
    assert "SSIM               0.7500" in lines
    assert lines[-2].split() == ["0", "0.000%", "0", "0", "inf", "dB", "1.0000"]
    assert lines[-1].split() == ["1", "20.000%", "0.01", "0.1", "20.00", "dB", "0.5000"]
    alone = describe_samples("latents", items[:1])
    assert "item" not in alone and "PSNR" not in alone


@pytest.mark.parametrize(("height", "width"), [(8, 8), (300, 300), (64, 90), (2000, 4)])
def test_picture_shows_both_and_the_amplified_difference(height: int, width: int) -> None:
    reference, other = torch.full((height, width, 3), 0.25), torch.full((height, width, 3), 0.35)
    picture = side_by_side(reference, other, 5.0, ("a", "b", "c"))
    factor = enlargement(height, width)
    panel = factor * width
    assert picture.shape == (LABEL_HEIGHT + factor * height, 3 * panel + 2 * GAP, 3)
    for column, value in enumerate((0.25, 0.35, 0.5)):
        left = column * (panel + GAP)
        shown = picture[LABEL_HEIGHT:, left : left + panel]
        assert torch.allclose(shown, torch.tensor(value), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("shape", [(16, 8, 6), (16, 3, 8, 6), (1, 8, 6)])
def test_latents_become_pixels(shape: tuple[int, ...]) -> None:
    a, b = random(*shape, seed=4), random(*shape, seed=5)
    pixels, others = latent_pixels(a, b)
    assert pixels.shape == others.shape == (8, 6, 3)
    assert (float(pixels.min()), float(pixels.max())) == (0.0, pytest.approx(1.0))
    frame_a, frame_b = (x[:, 1] if x.dim() == 4 else x for x in (a, b))
    spread = frame_a[:3].max() - frame_a[:3].min()
    expected = ((frame_b - frame_a)[:3] / spread).movedim(0, -1).expand(8, 6, 3)
    assert torch.allclose(others - pixels, expected, atol=1e-5)


def test_unusual_pixels() -> None:
    assert latent_pixels(torch.ones(4, 5), torch.ones(4, 5))[0].shape == (1, 5, 3)  # flat, audio
    assert image_pixels(torch.rand(4, 5, 1)).shape == image_pixels(torch.rand(4, 5, 4)).shape


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code, out, _ = run(capsys, "compare", *arguments, "--json")
    assert code == 0
    return json.loads(out)


@pytest.fixture
def quantized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The tiny model: NVFP4, float8 at the edges, one layer in fp32."""
    target = tmp_path / "quantized.safetensors"
    options = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")
    cast = ("--set", "blocks.1.ffn.2 = fp32")
    assert run(capsys, "quantize", TINY, target, *options, *cast)[0] == 0
    return target


def test_errors_equal_those_recorded_when_it_was_written(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_json(capsys, TINY, quantized)
    with open_tensors(quantized) as source:
        records = read_records(read_provenance(source))
    recorded = {n: r.weight_error for n, r in records.items() if r.weight_error is not None}
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert len(recorded) == 39
    for name, error in recorded.items():
        assert layers[name]["relative_error"] == pytest.approx(error, rel=1e-4), name
        assert layers[name]["bias_error"] == 0
    assert all(la["relative_error"] == 0 for n, la in layers.items() if n not in recorded)
    one = layers["blocks.1.self_attn.q"]
    assert (one["format_a"], one["format_b"], one["shape"]) == ("bf16", "nvfp4", [256, 256])
    assert layers["blocks.1.ffn.2"]["format_b"] == "fp32"
    assert found["only_a"] == found["only_b"] == found["not_compared"] == []
    for key, path in (("bytes_a", TINY), ("bytes_b", quantized)):
        assert found[key] == sum(t.nbytes for t in load_file(path).values())
        assert found[key] == sum(layer[key] for layer in layers.values())


def test_overall_error_is_of_all_values_as_one_vector(quantized: Path) -> None:
    source = load_file(TINY)
    with open_tensors(quantized) as checkpoint:
        error = norm = 0.0
        for name, layer in read_layout(checkpoint).items():
            key = f"{name}.weight" if "weight" in layer.tensors else name
            tensors = {s: checkpoint.load(i.name) for s, i in layer.tensors.items()}
            decoded = tensors.get("weight", tensors.get(""))
            if layer.format:
                decoded = layer.format.decode(tensors, layer.shape())
            assert decoded is not None
            wanted = source[key].double()
            error += float((decoded.double() - wanted).square().sum())
            bias = source.get(f"{name}.bias", torch.zeros(())).double()
            norm += float(wanted.square().sum() + bias.square().sum())
    found = compare_checkpoints(TINY, quantized).relative_error
    assert found == pytest.approx((error / norm) ** 0.5, rel=1e-9)


def test_a_file_equals_itself(quantized: Path) -> None:
    same = compare_checkpoints(quantized, quantized)
    assert same.relative_error == 0 and all(la.relative_error == 0 for la in same.layers)
    assert "0 differ" in describe_comparison(same)


def test_text_lists_the_largest_error_first(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = run(capsys, "compare", TINY, quantized)
    assert (code, error) == (0, "")
    rows = out.split("---\n")[1].split("\n\n")[0].splitlines()
    errors = [float(row.split()[4].rstrip("%")) for row in rows]
    assert errors == sorted(errors, reverse=True) and 7 < errors[0] < 11 and errors[-1] == 0
    assert f"{len(rows)} layers compared, 39 differ" in out.splitlines()[-1]


def test_what_one_side_lacks_is_named(tmp_path: Path, toy_wan: Toy) -> None:
    a, b = toy_wan(), toy_wan()
    del a["blocks.0.modulation"], b["blocks.1.ffn.0.bias"], b["head.head.weight"]
    del b["head.head.bias"]
    save_file(a, tmp_path / "a.safetensors")
    save_file(
        {f"model.diffusion_model.{name}": tensor for name, tensor in b.items()},
        tmp_path / "b.safetensors",
    )
    found = compare_checkpoints(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found.only_a == ("blocks.1.ffn.0.bias", "head.head")
    assert found.only_b == ("blocks.0.modulation",)
    assert found.relative_error == 0
    text = describe_comparison(found)
    assert "only in A: blocks.1.ffn.0.bias, head.head\n" in text
    assert "only in B: blocks.0.modulation\n" in text


def test_a_changed_bias_shows(tmp_path: Path, toy_wan: Toy) -> None:
    tensors = toy_wan()
    save_file(tensors, tmp_path / "a.safetensors")
    tensors["blocks.0.ffn.0.bias"] = tensors["blocks.0.ffn.0.bias"] * 2
    tensors["blocks.1.ffn.0.bias"] = torch.full_like(tensors["blocks.1.ffn.0.bias"], math.nan)
    save_file(tensors, tmp_path / "b.safetensors")
    found = compare_checkpoints(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    layers = {layer.name: layer for layer in found.layers}
    assert layers["blocks.0.ffn.0"].bias_error == pytest.approx(1)
    assert layers["blocks.0.ffn.0"].relative_error == 0
    layers = {layer["name"]: layer for layer in found.to_json()["layers"]}
    assert layers["blocks.1.ffn.0"]["bias_error"] is None
    assert json.dumps(found.to_json(), allow_nan=False)


def test_padded_rows_without_a_bias(tmp_path: Path) -> None:
    """24 rows are stored as 32 and nothing in the layer says so; the other file does."""
    fmt, weight = get_format("nvfp4"), random(24, 64, seed=6, dtype=torch.bfloat16)
    encoded = fmt.encode(weight, get_rounding("max"), measure_error=True)
    marker = torch.tensor(list(json.dumps(fmt.marker).encode()), dtype=torch.uint8)
    stored = {f"layer.{suffix}": tensor for suffix, tensor in encoded.tensors.items()}
    save_file({**stored, "layer.comfy_quant": marker}, tmp_path / "b.safetensors")
    save_file({"layer.weight": weight}, tmp_path / "a.safetensors")
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for pair in ((a, b), (b, a)):
        (layer,) = compare_checkpoints(*pair).layers
        assert layer.shape == (24, 64)
        assert layer.relative_error == pytest.approx(encoded.relative_error, rel=0.02)
    assert compare_checkpoints(b, b).relative_error == 0


def changed(path: Path, target: Path, **tensors: torch.Tensor | None) -> Path:
    """Copy a checkpoint with some tensors of ``blocks.1.self_attn.q`` replaced or removed."""
    stored = load_file(path)
    for suffix, tensor in tensors.items():
        del stored[f"blocks.1.self_attn.q.{suffix}"]
        if tensor is not None:
            stored[f"blocks.1.self_attn.q.{suffix}"] = tensor
    with safe_open(path, "pt") as file:
        save_file(stored, target, file.metadata())
    return target


def test_unknown_formats_are_named_and_not_guessed(quantized: Path, tmp_path: Path) -> None:
    marker = torch.tensor(list(b'{"format": "int3"}'), dtype=torch.uint8)
    other = changed(quantized, tmp_path / "other.safetensors", comfy_quant=marker)
    found = compare_checkpoints(TINY, other)
    assert found.not_compared == ("blocks.1.self_attn.q",)
    assert "cannot decode: blocks.1.self_attn.q\n" in describe_comparison(found)
    bare = load_file(other)
    del bare["blocks.1.self_attn.q.comfy_quant"], bare["blocks.0.ffn.0.comfy_quant"]
    save_file(bare, other)
    assert set(compare_checkpoints(TINY, other).not_compared) == {
        "blocks.0.ffn.0",
        "blocks.1.self_attn.q",
    }


def test_nothing_to_compare_is_no_zero_error(tmp_path: Path) -> None:
    scaled = {"a.weight": torch.ones(2, 2), "a.weight_scale": torch.ones(())}
    save_file(scaled, tmp_path / "scaled.safetensors")
    with pytest.raises(CompareError, match="can decode"):
        compare_checkpoints(tmp_path / "scaled.safetensors", tmp_path / "scaled.safetensors")


@pytest.mark.parametrize("scales", [None, torch.ones(3)])
def test_damaged_layers_are_an_error(
    quantized: Path, tmp_path: Path, scales: torch.Tensor | None
) -> None:
    damaged = changed(quantized, tmp_path / "damaged.safetensors", weight_scale=scales)
    with pytest.raises(CheckpointError, match=r"damaged.*blocks.1.self_attn.q .*its weight_scale"):
        compare_checkpoints(TINY, damaged)


def test_files_of_different_models_are_an_error(
    tmp_path: Path, toy_wan: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    small, other, text = (tmp_path / f"{n}.safetensors" for n in ("small", "other", "text"))
    save_file(toy_wan(), small)
    save_file({"something.else": torch.ones(3)}, other)
    text.write_text("no checkpoint")
    for pair, message in (
        ((TINY, small), r"256x\d+ in the first"),
        ((TINY, other), "no layer in common"),
        ((TINY, text), "text.safetensors"),
        ((tmp_path / "gone.safetensors", TINY), "gone.safetensors does not exist"),
    ):
        code, _, error = run(capsys, "compare", *pair)
        assert code == 1 and "Traceback" not in error
        assert re.search(message, error), error
