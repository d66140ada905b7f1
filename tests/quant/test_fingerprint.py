"""Fingerprints of different models, and of one model in different dtypes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
import torch
from nvfp4_foundry.quant.fingerprint import ModelFingerprint, compute_fingerprint
from nvfp4_foundry.quant.planning import Inventory
from nvfp4_foundry.quant.sources import StateDictSource

Toy = Callable[..., dict[str, torch.Tensor]]


def fingerprint(tensors: dict[str, torch.Tensor]) -> ModelFingerprint:
    return StateDictSource(tensors).fingerprint()


def with_lora(tensors: dict[str, torch.Tensor], change: float) -> dict[str, torch.Tensor]:
    """Merge a random LoRA of rank 16 that changes every 2-D weight by this share of its norm."""
    generator = torch.Generator().manual_seed(1)
    merged = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and name.endswith(".weight"):
            rows, columns = tensor.shape
            up, down = (torch.randn(n, 16, generator=generator) for n in (rows, columns))
            delta = up @ down.T
            merged[name] = tensor.float() + change * tensor.float().norm() / delta.norm() * delta
    return merged


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
    loaded, parts = [], []

    def load_runs(name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        parts.append((name, len(starts) * length))
        return StateDictSource(tensors).load_runs(name, starts, length)

    shapes = {n: tuple(t.shape) for n, t in tensors.items()}
    compute_fingerprint(shapes, lambda n: loaded.append(n) or tensors[n], load_runs)
    assert len(loaded) == 8
    assert all(tensors[name].dim() == 1 for name in loaded)
    assert len(parts) == 8
    assert all(count == 64 for _, count in parts)


def test_matrices_are_attention_projections_over_the_whole_depth(
    inventory_named: Callable[[str], Inventory],
) -> None:
    for model in ("wan2.2-t2v-14b", "qwen-image-2512"):
        layers = inventory_named(model).layers.values()
        shapes = {la.tensor.name: la.tensor.shape for la in layers}
        found = compute_fingerprint(shapes, lambda _: torch.zeros(1), lambda *_: torch.zeros(1))
        assert all("attn" in name for name in found.matrices), found.matrices
        blocks = [int(name.split(".")[1]) for name in found.matrices]
        assert len(blocks) == 8
        assert (blocks[0], blocks[-1]) == (0, max(la.block.count for la in layers if la.block) - 1)
        assert len({name.split(".", 2)[2] for name in found.matrices}) > 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", [0.01, 0.05])
def test_a_merged_lora_is_drift_and_no_other_model(
    toy_wan: Toy, dtype: torch.dtype, change: float
) -> None:
    base = {name: tensor.to(dtype) for name, tensor in toy_wan(dtype=torch.float32).items()}
    merged = with_lora(base, change)
    assert fingerprint(base).difference(fingerprint(merged)) is None
    for a, b in ((base, merged), (merged, base)):
        drift = fingerprint(a).drift(fingerprint(b))
        assert drift is not None
        assert "8 of 8 compared weights differ" in drift
    assert fingerprint(merged).drift(fingerprint(merged)) is None


def test_a_lora_on_the_queries_alone_is_drift(toy_wan: Toy) -> None:
    base = toy_wan()
    merged = with_lora(base, 0.02)
    queries = {n: merged[n] if n.endswith("self_attn.q.weight") else base[n] for n in base}
    assert "blocks." in str(fingerprint(base).drift(fingerprint(queries)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_dtype_is_no_drift(toy_wan: Toy, dtype: torch.dtype) -> None:
    exact = toy_wan(dtype=torch.float32)
    rounded = {name: tensor.to(dtype) for name, tensor in exact.items()}
    assert fingerprint(exact).drift(fingerprint(rounded)) is None


def test_stochastic_rounding_is_no_drift(toy_wan: Toy) -> None:
    exact = toy_wan(dtype=torch.float32)
    low = {name: (tensor.view(torch.int32) & -65536) for name, tensor in exact.items()}
    up = {name: bits + (torch.rand(bits.shape) * 2).int() * 65536 for name, bits in low.items()}
    rounded = {name: bits.view(torch.float32) for name, bits in up.items()}
    assert fingerprint(exact).drift(fingerprint(rounded)) is None


def test_fingerprints_saved_before_matrices_were_probed(toy_wan: Toy) -> None:
    base = toy_wan()
    saved = fingerprint(base).to_json()
    del saved["matrices"]
    old, new = ModelFingerprint.from_json(saved), fingerprint(with_lora(base, 0.05))
    assert old.matrices == {}
    for a, b in ((old, new), (new, old)):
        assert a.difference(b) is None
        assert a.drift(b) is None


def test_zero_and_empty_matrices() -> None:
    zero = {"blocks.0.a.weight": torch.zeros(4, 4)}
    assert fingerprint(zero).drift(fingerprint(zero)) is None
    assert fingerprint({"blocks.0.a.weight": torch.zeros(0, 4)}).matrices == {}


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
