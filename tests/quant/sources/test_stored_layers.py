"""Files of other tools, and damaged ones: read as they are meant, or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.errors import CheckpointError, SourceError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.rounding import MaxRule
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import Toy

PREFIX = "model.diffusion_model."
MARKER = {"format": "nvfp4"}


def announcing(layers: object) -> dict[str, str]:
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def marker_tensor(marker: object) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(marker).encode()), dtype=torch.uint8)


def two_blocks() -> dict[str, torch.Tensor]:
    """Return quantized layers without markers, two per block."""
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


@pytest.mark.parametrize("layers", [{"m": "nvfp4"}, {"m": None}, "nvfp4", None])
def test_a_damaged_announcement_is_named(tmp_path: Path, layers: object) -> None:
    save_file({"m.weight": torch.zeros(4, 4)}, tmp_path / "bad", announcing(layers))
    with pytest.raises(CheckpointError, match="_quantization_metadata"):
        open_source(tmp_path / "bad")
    summary = inspect_checkpoint(tmp_path / "bad")
    assert "_quantization_metadata" in summary.refusal
    assert [layer.name for layer in summary.layers] == ["m"]


@pytest.mark.parametrize(
    "marker",
    [torch.tensor(1.0), torch.ones(3), marker_tensor([1]), torch.zeros(0)],
    ids=["scalar", "floats", "list", "empty"],
)
def test_a_damaged_marker_is_named(tmp_path: Path, marker: torch.Tensor) -> None:
    save_file({"m.weight": torch.zeros(4, 4), "m.comfy_quant": marker}, tmp_path / "bad")
    with pytest.raises(CheckpointError, match=r"m\.comfy_quant"):
        open_source(tmp_path / "bad")
    assert "m.comfy_quant" in inspect_checkpoint(tmp_path / "bad").refusal
    assert "m.comfy_quant" in verify_checkpoint(tmp_path / "bad").problems[0]


@pytest.mark.parametrize("announced", [True, False])
def test_a_marker_without_a_format_is_shown_but_not_fine(tmp_path: Path, announced: bool) -> None:
    """ComfyUI refuses it, so verify does. What it stands for can be inspected all the same."""
    path = tmp_path / "odd.safetensors"
    marker = {} if announced else {"m.comfy_quant": marker_tensor({})}
    save_file({"m.weight": torch.ones(4, 4), **marker}, path, announcing({"m": {}}))
    assert inspect_checkpoint(path).counts() == {"fp32": 1}
    assert "no format" in verify_checkpoint(path).problems[0]


def test_a_marker_on_a_vector_is_a_problem(tmp_path: Path) -> None:
    tensors = {
        "m.weight": torch.zeros(4, dtype=torch.uint8),
        "m.comfy_quant": marker_tensor(MARKER),
    }
    save_file(tensors, tmp_path / "bad")
    (problem,) = verify_checkpoint(tmp_path / "bad").problems
    assert problem.startswith("m: ") and "dimensions" in problem


def without_markers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in tensors.items() if not name.endswith("comfy_quant")}


def test_every_shard_may_announce_its_own_layers(tmp_path: Path, toy_wan: Toy) -> None:
    """128 x 64 is a shape at which ModelOpt's scales and ComfyUI's tiles look alike."""
    model = toy_wan(blocks=2, width=128)
    made = without_markers(qf.comfyui_nvfp4(model))
    for number in range(2):
        part = {n: t for n, t in made.items() if n.startswith(f"blocks.{number}.")}
        layers = {n.removesuffix(".weight_scale_2"): MARKER for n in part if "_scale_2" in n}
        rest = {} if number else {n: t for n, t in made.items() if not n.startswith("blocks.")}
        path = tmp_path / f"{number}.safetensors"
        save_file({n: t.contiguous() for n, t in (rest | part).items()}, path, announcing(layers))
    with open_source(tmp_path) as source:
        for name in model:
            stored = source.stored_weight(name)
            assert not name.endswith("ffn.0.weight") or stored is not None
            assert stored is None or stored.label == "nvfp4"


@pytest.mark.parametrize("announced", [True, False])
def test_what_files_of_comfyui_leave_unmarked_is_not_guessed(
    tmp_path: Path, toy_wan: Toy, announced: bool
) -> None:
    made = qf.comfyui_nvfp4(toy_wan(blocks=1, width=128))
    if announced:  # by names that are not those of the file
        metadata = announcing({f"{PREFIX}blocks.0.ffn.0": MARKER})
        made = without_markers(made)
    else:
        metadata = None
        del made["blocks.0.ffn.0.comfy_quant"]
    path = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in made.items()}, path, metadata)
    with pytest.raises(SourceError, match=r"does not belong to any known quantized weight"):
        open_source(path)


@pytest.mark.parametrize(
    ("fmt", "weight", "message"),
    [
        ("float8_e4m3fn", torch.ones(64, 64).bfloat16(), "its weight is torch.bfloat16"),
        ("float8_e4m3fn", torch.ones(64, 64).to(torch.float8_e5m2), "its weight is .*e5m2"),
        ("int8_tensorwise", torch.ones(64, 64).to(torch.float8_e4m3fn), "its weight is .*e4m3"),
        ("float8_e4m3fn", torch.ones(2, 64, 64).to(torch.float8_e4m3fn), "3 dimensions"),
        ("nvfp4", torch.ones(2, 64, 32).byte(), "3 dimensions"),
    ],
)
def test_a_marker_that_does_not_fit_its_weight_is_named(
    tmp_path: Path, fmt: str, weight: torch.Tensor, message: str
) -> None:
    tensors = {"m.weight": weight, "m.weight_scale": torch.ones(())}
    tensors["m.comfy_quant"] = marker_tensor({"format": fmt})
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(
        (SourceError, CheckpointError), match=rf": m is (marked|stored) as .*{message}"
    ):
        open_source(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("marker", "kept"),
    [
        ({"format": "float8_e5m2"}, "float8_e5m2"),
        ({"format": "float8_e5m2", "full_precision_matrix_mult": True}, "float8_e5m2"),
        ({"format": "float8_e4m3fn"}, "float8_e4m3fn"),
        ({"format": "float8_e4m3fn", "full_precision_matrix_mult": True}, "float8_e4m3fn_w8a16"),
        ({"format": "int8_tensorwise", "full_precision_matrix_mult": True}, ""),
    ],
)
def test_what_keep_makes_of_a_marker(tmp_path: Path, marker: dict[str, object], kept: str) -> None:
    """Weights that no format multiplies in the same way are decoded, if they would run at all."""
    dtype = torch.int8 if "int8" in str(marker) else getattr(torch, str(marker["format"]))
    tensors = {"m.weight": torch.ones(32, 32).to(dtype), "m.weight_scale": torch.ones(())}
    path = tmp_path / "model.safetensors"
    save_file({**tensors, "m.comfy_quant": marker_tensor(marker)}, path)
    with open_source(path) as source:
        stored = source.info("m.weight").stored
        assert stored is not None and stored.format == kept
