"""A small trained-looking model, and what is needed to compare a source with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.conversions import Toy
from tests.helpers.quantized_files import Tensors, is_linear_in_block

#: Write a file, open it, and return the largest relative error of a weight and the notes.
Judge = Callable[..., "tuple[float, tuple[str, ...]]"]


@pytest.fixture
def model(toy_wan: Toy) -> Tensors:
    """Return a WAN of width 128, in which rows have different sizes, as in trained models."""
    generator = torch.Generator().manual_seed(5)
    made = toy_wan(blocks=2, width=128)
    for name, tensor in made.items():
        if is_linear_in_block(name, tensor):
            sizes = 0.3 + 2 * torch.rand(tensor.shape[0], 1, generator=generator)
            made[name] = (torch.randn(tensor.shape, generator=generator) * sizes * 0.02).to(
                tensor.dtype
            )
    return made


@pytest.fixture
def judge(tmp_path: Path, model: Tensors) -> Judge:
    """Return a function that opens tensors as a file and compares them with the model."""

    def compare(tensors: Tensors, name: str = "model", **options: str) -> object:
        path = tmp_path / f"{name}.safetensors"
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)
        with open_source(path, **options) as source:
            assert set(source.tensors) == set(model)
            errors = []
            for key, wanted in model.items():
                got = source.load(key).float()
                if not (is_linear_in_block(key, wanted) or source.stored_weight(key)):
                    assert torch.equal(got, wanted.float()), key
                    continue
                assert source.stored_weight(key) is not None, key
                errors.append(float((got - wanted.float()).norm() / wanted.float().norm()))
            return max(errors), source.notes

    return compare
