"""Files of other tools, and damaged ones: read as they are meant, or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.errors import CheckpointError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.rounding import MaxRule
from safetensors.torch import save_file

PREFIX = "model.diffusion_model."
MARKER = {"format": "nvfp4"}


def announcing(layers: object) -> dict[str, str]:
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def marker_tensor(marker: object) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(marker).encode()), dtype=torch.uint8)


def two_blocks() -> dict[str, torch.Tensor]:
    """Two layers a block, quantized, without markers."""
    tensors = {}
    for name in ("blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b"):
        encoded = get_format("nvfp4").encode(torch.randn(32, 64), MaxRule()).tensors
        tensors |= {f"{name}.{suffix}": value for suffix, value in encoded.items()}
    return tensors


@pytest.mark.parametrize("with_markers", [False, True])
def test_full_checkpoints_announce_layers_by_their_names_in_the_file(
    tmp_path: Path, with_markers: bool
) -> None:
    tensors = two_blocks()
    names = {name.rpartition(".")[0] for name in tensors}
    if with_markers:
        tensors |= {f"{name}.comfy_quant": marker_tensor(MARKER) for name in names}
    prefixed = {PREFIX + name: tensor for name, tensor in tensors.items()}
    prefixed["text_encoder.weight"] = torch.zeros(4, 4)
    layers = {**{PREFIX + name: MARKER for name in names}, "text_encoder": MARKER}
    save_file(prefixed, tmp_path / "full", announcing(layers))
    assert verify_checkpoint(tmp_path / "full").problems == ()
    assert inspect_checkpoint(tmp_path / "full").counts() == {"nvfp4": 4}


@pytest.mark.parametrize("layers", [{"m": "nvfp4"}, {"m": {}}, {"m": None}, "nvfp4", None])
def test_a_damaged_announcement_is_named(tmp_path: Path, layers: object) -> None:
    save_file({"m.weight": torch.zeros(4, 4)}, tmp_path / "bad", announcing(layers))
    with pytest.raises(CheckpointError, match="_quantization_metadata"):
        inspect_checkpoint(tmp_path / "bad")


@pytest.mark.parametrize(
    "marker",
    [torch.tensor(1.0), torch.ones(3), marker_tensor([1]), marker_tensor({}), torch.zeros(0)],
    ids=["scalar", "floats", "list", "no format", "empty"],
)
def test_a_damaged_marker_is_named(tmp_path: Path, marker: torch.Tensor) -> None:
    save_file({"m.weight": torch.zeros(4, 4), "m.comfy_quant": marker}, tmp_path / "bad")
    with pytest.raises(CheckpointError, match=r"m\.comfy_quant"):
        inspect_checkpoint(tmp_path / "bad")
    assert "m.comfy_quant" in verify_checkpoint(tmp_path / "bad").problems[0]


def test_a_marker_on_a_vector_is_a_problem(tmp_path: Path) -> None:
    tensors = {
        "m.weight": torch.zeros(4, dtype=torch.uint8),
        "m.comfy_quant": marker_tensor(MARKER),
    }
    save_file(tensors, tmp_path / "bad")
    (problem,) = verify_checkpoint(tmp_path / "bad").problems
    assert problem.startswith("m: ") and "dimensions" in problem
