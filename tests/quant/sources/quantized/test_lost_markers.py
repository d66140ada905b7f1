"""int8 files that lost their markers, and scales that divide where they should multiply."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.formats import WeightFormat, get_format
from nvfp4_foundry.quant.formats.int8 import RotatedInt8
from nvfp4_foundry.quant.rounding import MaxRule
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers.odd_files import BOUNDS, E4M3, coded, per_row, per_tensor
from tests.helpers.quantized_files import Tensors, is_linear_in_block

from .conftest import Judge


def without_markers(path: Path, model: Tensors, fmt: WeightFormat) -> Path:
    made: Tensors = {}
    for name, tensor in model.items():
        if is_linear_in_block(name, tensor):
            parts = fmt.encode(tensor.float(), MaxRule()).tensors
            made |= {f"{name.removesuffix('weight')}{suffix}": t for suffix, t in parts.items()}
        else:
            made[name] = tensor
    save_file({name: tensor.contiguous() for name, tensor in made.items()}, path)
    return path


def trained() -> Tensors:
    """Return the demo model, whose weights have lighter tails than normal ones."""
    return load_file(MODEL_PATH)


def heavy() -> Tensors:
    """Return weights with heavy tails, as those of most large models."""
    torch.manual_seed(0)
    student = torch.distributions.StudentT(6.0)
    return {
        name: student.sample(tensor.shape) * 0.02 if is_linear_in_block(name, tensor) else tensor
        for name, tensor in trained().items()
    }


@pytest.mark.parametrize("make", [trained, heavy])
@pytest.mark.parametrize("group", [256, 64, 16])
def test_rotated_codes_are_recognised(tmp_path: Path, make: object, group: int) -> None:
    fmt = RotatedInt8("int8_convrot", 0.05, group=group)
    path = without_markers(tmp_path / "model.safetensors", make(), fmt)
    with pytest.raises(SourceError, match=r"model\.safetensors: .* int8_convrot .* lost its mark"):
        open_source(path)


@pytest.mark.parametrize("make", [trained, heavy])
def test_two_codes_in_a_byte_are_recognised(tmp_path: Path, make: object) -> None:
    path = without_markers(tmp_path / "model.safetensors", make(), get_format("convrot_w4a4"))
    with pytest.raises(SourceError, match=r"convrot_w4a4 \(two 4-bit codes in a byte\)"):
        open_source(path)


@pytest.mark.parametrize("make", [trained, heavy])
@pytest.mark.parametrize("name", ["int8_rowwise", "int8_tensorwise"])
def test_plain_codes_are_read(tmp_path: Path, make: object, name: str) -> None:
    model = make()
    path = without_markers(tmp_path / "model.safetensors", model, get_format(name))
    with open_source(path) as source:
        for key, tensor in model.items():
            if is_linear_in_block(key, tensor):
                wanted = tensor.float()
                assert (source.load(key) - wanted).norm() / wanted.norm() < 0.08, key


@pytest.mark.parametrize("split", [per_row, per_tensor])
@pytest.mark.parametrize("dtype", [E4M3, torch.int8])
def test_random_weights_are_read(
    judge: Judge, model: Tensors, split: object, dtype: torch.dtype
) -> None:
    error, _ = judge(coded(model, lambda w: split(w, dtype), "weight_scale"))
    assert error < BOUNDS[dtype]


@pytest.mark.parametrize("suffix", ["weight_scale", "scale_weight", "weight_scale_inv"])
def test_scales_that_divide_are_refused(judge: Judge, model: Tensors, suffix: str) -> None:
    """By convention these multiply, also those that are called inverse."""
    tensors = coded(model, lambda w: per_row(w, E4M3), suffix, change=lambda s: 1 / s)
    with pytest.raises(SourceError, match=rf"{suffix} would make the weights thousands of times"):
        judge(tensors)
