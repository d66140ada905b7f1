"""Names with a prefix, and full checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.planning.architectures import known_models
from nvfp4_foundry.quant.sources import StateDictSource, find_prefix, open_source
from safetensors.torch import save_file

KNOWN_MODELS = Path(known_models.__file__).with_name("known")
MODEL = {"blocks.0.q.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.full((2,), 7.0)}


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model.", "net."])
def test_prefixes_are_removed(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in MODEL.items()}, path, {"kept": "yes"})
    with open_source(path) as source:
        assert set(source.tensors) == set(MODEL)
        assert all(name == info.name for name, info in source.tensors.items())
        assert torch.equal(source.load("blocks.0.q.weight"), MODEL["blocks.0.q.weight"])
        assert source.metadata == {"kept": "yes"}
        assert source.nbytes == 24 + 8
        assert source.notes == (f"layer names are used without their prefix {prefix!r}",)
        with pytest.raises(SourceError, match=f"no tensor named {prefix}"):
            source.load(prefix + "head.bias")


def test_other_parts_of_a_full_checkpoint_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    parts = {"first_stage_model.head.bias": torch.ones(2), "text_encoders.a.b": torch.ones(1)}
    full = {f"model.diffusion_model.{name}": tensor for name, tensor in MODEL.items()}
    save_file({**full, **parts, "text_encoders.c": torch.ones(1)}, path)
    with open_source(path) as source:
        assert set(source.tensors) == set(MODEL)
        for name, tensor in MODEL.items():
            assert torch.equal(source.load(name), tensor)
        assert source.notes[1] == (
            "3 tensors are not part of the diffusion model (first_stage_model, text_encoders)"
        )
        assert source.rest is not None
        assert set(source.rest.tensors) == {*parts, "text_encoders.c"}


@pytest.mark.parametrize("prefix", ["model.", "net."])
def test_a_short_prefix_counts_only_when_all_names_have_it(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {prefix + "a.weight": torch.ones(2), "b.weight": torch.ones(2)}
    save_file(tensors, path)
    with open_source(path) as source:
        assert set(source.tensors) == set(tensors)
        assert source.notes == ()


def test_no_names_have_no_prefix() -> None:
    assert find_prefix({}) == ""


def test_state_dict_source() -> None:
    weight = torch.randn(3, 2, requires_grad=True)
    source = StateDictSource({"a.weight": weight}, "MODEL", {"k": "v"})
    assert (source.description, source.metadata, source.nbytes) == ("MODEL", {"k": "v"}, 24)
    assert source.info("a.weight").shape == (3, 2)
    loaded = source.load("a.weight")
    assert torch.equal(loaded, weight)
    assert not loaded.requires_grad
    with pytest.raises(SourceError, match="MODEL holds no tensor named b"):
        source.load("b")


@pytest.mark.parametrize("first", ["model.embed_tokens", "model.language_model.embed_tokens"])
def test_language_models_keep_their_names(first: str) -> None:
    """All of their names start with ``model.``, by which ComfyUI recognises them."""
    tensors = {f"{first}.weight": torch.ones(4, 2), "model.norm.weight": torch.ones(2)}
    assert find_prefix(StateDictSource(tensors).tensors) == ""


@pytest.mark.parametrize("model", sorted(path.stem for path in KNOWN_MODELS.glob("*.json")))
def test_the_names_of_a_model_that_comfyui_knows_have_no_prefix(model: str) -> None:
    known = known_models.known_model(model)
    assert known is not None
    # as published: the tensors that are most, in each of a few blocks
    every = [name.replace("#", str(block)) for name in known.every for block in range(20)]
    assert find_prefix(dict.fromkeys(every)) == ""
