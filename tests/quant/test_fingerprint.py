"""Telling models apart, and the same model from itself in another dtype."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from nvfp4_foundry.quant.fingerprint import ModelFingerprint, compute_fingerprint
from nvfp4_foundry.quant.sources import StateDictSource

Toy = Callable[..., dict[str, torch.Tensor]]


def fingerprint(tensors: dict[str, torch.Tensor]) -> ModelFingerprint:
    return StateDictSource(tensors).fingerprint()


def test_shapes_are_those_of_the_2d_weights(toy_wan: Toy) -> None:
    tensors = toy_wan()
    found = fingerprint(tensors)
    assert len(found.shapes) == 4 * 10 + 6
    assert found.shapes["blocks.1.ffn.0"] == (128, 64)
    assert "patch_embedding" not in found.shapes
    for name, values in found.probe.items():
        assert torch.equal(torch.tensor(values), tensors[name][:16].float())
    assert len(found.probe) == 8


def test_only_the_probe_is_loaded(toy_wan: Toy) -> None:
    tensors = toy_wan()
    loaded = []
    compute_fingerprint(
        {n: tuple(t.shape) for n, t in tensors.items()}, lambda n: loaded.append(n) or tensors[n]
    )
    assert len(loaded) == 8
    assert all(tensors[name].dim() == 1 for name in loaded)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_model_in_another_dtype_is_the_same(toy_wan: Toy, dtype: torch.dtype) -> None:
    exact = toy_wan(dtype=torch.float32)
    rounded = {name: tensor.to(dtype) for name, tensor in exact.items()}
    assert fingerprint(exact).difference(fingerprint(rounded)) is None
    assert fingerprint(rounded).difference(fingerprint(exact)) is None


def test_the_order_of_tensors_does_not_matter(toy_wan: Toy) -> None:
    tensors = toy_wan()
    reordered = dict(reversed(tensors.items()))
    assert fingerprint(tensors).difference(fingerprint(reordered)) is None
    assert fingerprint(tensors).digest == fingerprint(reordered).digest


def test_other_weights_of_the_same_architecture(toy_wan: Toy) -> None:
    high, low = fingerprint(toy_wan(seed=1)), fingerprint(toy_wan(seed=2))
    assert "same architecture, other weights" in str(high.difference(low))
    assert high.digest == low.digest


def test_other_architectures_are_named(toy_wan: Toy) -> None:
    small, deep, wide = (
        fingerprint(toy_wan(**changes)) for changes in ({}, {"blocks": 5}, {"width": 128})
    )
    assert str(small.difference(deep)).startswith("0 layers are missing and 10 are new (e.g. ")
    assert str(deep.difference(small)).startswith("10 layers are missing and 0 are new (e.g. ")
    assert "text_embedding.0 is (64, 64) here and (128, 64) there" in str(small.difference(wide))
    assert len({small.digest, deep.digest, wide.digest}) == 3


def test_json_round_trip(toy_wan: Toy) -> None:
    found = fingerprint(toy_wan())
    again = ModelFingerprint.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.digest == found.digest


def test_a_model_without_1d_tensors() -> None:
    a = fingerprint({"a.weight": torch.ones(2, 2)})
    assert a.probe == {}
    assert a.difference(fingerprint({"a.weight": torch.zeros(2, 2)})) is None
