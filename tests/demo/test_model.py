"""The shipped model file: its names, shapes, dtype and size, and what reading it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import (
    MODEL_PATH,
    TinyWan,
    WanDimensions,
    load_model,
    rope_rotations,
    rotate,
    timestep_features,
)
from nvfp4_foundry.quant.errors import SourceError
from safetensors import safe_open
from safetensors.torch import load_file

BLOCK_MODULES = [
    *(f"{attn}.{part}" for attn in ("self_attn", "cross_attn") for part in ("q", "k", "v", "o")),
    *(f"{attn}.{norm}" for attn in ("self_attn", "cross_attn") for norm in ("norm_q", "norm_k")),
    "norm3",
    "ffn.0",
    "ffn.2",
]
OUTER_MODULES = [
    "patch_embedding",
    "text_embedding.0",
    "text_embedding.2",
    "time_embedding.0",
    "time_embedding.2",
    "time_projection.1",
    "head.head",
]


def wan_names(blocks: int) -> set[str]:
    """Every tensor name of a WAN 2.1 text-to-video model with that many blocks."""
    names = {f"{module}.{kind}" for module in OUTER_MODULES for kind in ("weight", "bias")}
    names.add("head.modulation")
    for block in range(blocks):
        prefix = f"blocks.{block}"
        names.add(f"{prefix}.modulation")
        for module in BLOCK_MODULES:
            names.add(f"{prefix}.{module}.weight")
            if "norm_" not in module:
                names.add(f"{prefix}.{module}.bias")
    return names


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(MODEL_PATH)


def test_file_holds_exactly_the_wan_names_in_bfloat16(weights: dict[str, torch.Tensor]) -> None:
    assert set(weights) == wan_names(blocks=4)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert MODEL_PATH.stat().st_size <= 10_000_000


def test_file_names_its_data_licence_and_seed() -> None:
    with safe_open(MODEL_PATH, framework="pt") as file:
        metadata = file.metadata()
    assert "CC BY 4.0" in metadata["data"]
    assert metadata["license"] == "Apache-2.0"
    assert metadata["seed"].isdigit()


def test_dimensions_come_from_the_shapes(weights: dict[str, torch.Tensor]) -> None:
    assert WanDimensions.from_state_dict(weights) == WanDimensions()
    other = WanDimensions(36, 16, width=128, ffn=256, blocks=2, text=64, frequency=32)
    assert WanDimensions.from_state_dict(TinyWan(other).state_dict()) == other


def test_load_model_keeps_only_the_patch_embedding_in_float32() -> None:
    model = load_model(dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    kept = {n for n, p in model.named_parameters() if p.dtype == torch.float32}
    assert kept == {"patch_embedding.weight", "patch_embedding.bias"}
    assert not model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [(1, 8, 8), (2, 4, 6)])
def test_velocity_has_the_latents_shape(dtype: torch.dtype, grid: tuple[int, int, int]) -> None:
    model = load_model(dtype=dtype)
    latent = torch.randn(2, 16, *grid)
    with torch.no_grad():
        velocity = model(latent, torch.tensor([1000.0, 10.0]), torch.randn(2, 3, 4096))
    assert velocity.shape == latent.shape
    assert velocity.dtype == dtype
    assert velocity.isfinite().all()


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    rotations = rope_rotations((3, 4, 5), torch.device("cpu"))
    assert rotations.shape == (60, 64)
    q, k = torch.randn(1, 1, 1, 128).expand(1, 1, 60, 128), torch.randn(1, 1, 1, 128)
    turned_q, turned_k = rotate(q, rotations), rotate(k.expand_as(q), rotations)
    assert torch.allclose(turned_q.norm(dim=-1), q.norm(dim=-1), rtol=1e-5)
    scores = (turned_q @ turned_k.transpose(-1, -2))[0, 0]
    # Tokens run over frames of 4x5: a step of one column is +1, of one row +5, of one frame +20.
    for step in (1, 5, 20):
        assert torch.allclose(scores[0, step], scores[26, 26 + step], rtol=1e-4, atol=1e-3)


def test_timestep_features_are_cosines_then_sines() -> None:
    features = timestep_features(torch.tensor([0.0, 500.0]), 256)
    assert torch.equal(features[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    angle = torch.tensor(500.0 * 10000.0 ** (-64 / 128), dtype=torch.float64)
    assert features[1, 64].item() == pytest.approx(angle.cos().item(), abs=1e-4)
    assert features[1, 128 + 64].item() == pytest.approx(angle.sin().item(), abs=1e-4)


def test_odd_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        load_model()(torch.zeros(1, 16, 1, 7, 8), torch.zeros(1), torch.zeros(1, 1, 4096))


def test_unreadable_models_are_refused(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(SourceError, match=r"missing\.safetensors"):
        load_model(tmp_path / "missing.safetensors")
    with pytest.raises(SourceError, match=r"patch_embedding\.weight"):
        TinyWan.from_state_dict({"some.weight": torch.zeros(1)})
    lacking = {name: t for name, t in weights.items() if name != "blocks.2.self_attn.q.weight"}
    with pytest.raises(SourceError, match=r"blocks\.2\.self_attn\.q\.weight"):
        TinyWan.from_state_dict(lacking)
