"""Tensors that one source lacks, taken from another; refusals that say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from nvfp4_foundry.quant.sources.completed import CompletedSource
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers
from safetensors.torch import save_file

from tests.helpers.gguf_files import write_gguf

Toy = Callable[..., dict[str, torch.Tensor]]
PATCH = "patch_embedding.weight"


def without_patch(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != PATCH}


@pytest.fixture
def lacking(toy_wan: Toy, tmp_path: Path) -> Path:
    """A WAN GGUF without its patch embedding, as they usually are."""
    return write_gguf(tmp_path / "wan.gguf", without_patch(toy_wan()), "F16")


def test_a_missing_patch_embedding_is_named_with_the_way_out(lacking: Path) -> None:
    with pytest.raises(SourceError) as refused:
        open_source(lacking)
    text = str(refused.value)
    assert "WAN (4 blocks of width 64), but lacks patch_embedding.weight" in text
    assert "five dimensions" in text and "--complete-from" in text and "complete_from" in text


@pytest.mark.parametrize("kind", ["original", "diffusers", "prefixed", "part", "gguf"])
def test_it_is_taken_from_a_second_file(
    kind: str, lacking: Path, toy_wan: Toy, tmp_path: Path
) -> None:
    tensors = toy_wan()
    second = tmp_path / "second.safetensors"
    if kind == "original":
        save_file(tensors, second)
    elif kind == "diffusers":
        save_file({wan_to_diffusers(n): t for n, t in tensors.items()}, second)
    elif kind == "prefixed":
        save_file({f"model.diffusion_model.{n}": t for n, t in tensors.items()}, second)
    elif kind == "part":
        save_file({PATCH: tensors[PATCH]}, second)
    else:
        second = write_gguf(tmp_path / "s.gguf", tensors, "F16", flattened=(PATCH,))
    with open_source(lacking, second) as source:
        assert set(source.tensors) == set(tensors)
        wanted = tensors[PATCH].half() if kind == "gguf" else tensors[PATCH]
        assert torch.equal(source.load(PATCH), wanted)
        assert torch.equal(source.load_runs(PATCH, [5], 7)[0], wanted.flatten()[5:12])
        assert source.info("head.head.weight").dtype == torch.float16  # the first's own
        assert source.paths == (lacking, second)
        assert f"1 tensors are taken from {second} (patch_embedding.weight)" in source.notes
        assert not any("not the same model" in note for note in source.notes)


def test_another_model_is_refused(lacking: Path, toy_wan: Toy, tmp_path: Path) -> None:
    second = tmp_path / "second.safetensors"
    save_file(toy_wan(width=128), second)
    with pytest.raises(SourceError, match=r"another model than .*\(128,\) there and \(64,\) here"):
        open_source(lacking, second)
    part = tmp_path / "part.safetensors"
    save_file({PATCH: torch.ones(128, 16, 1, 2, 2)}, part)
    with pytest.raises(SourceError, match=r"patch_embedding\.weight is \(128,\) there and \(64,\)"):
        open_source(lacking, part)


def test_other_values_are_noted(lacking: Path, toy_wan: Toy, tmp_path: Path) -> None:
    second = tmp_path / "second.safetensors"
    save_file(toy_wan(seed=1), second)
    with open_source(lacking, second) as source:
        assert any("same architecture, but not the same model" in note for note in source.notes)


def test_useless_seconds_are_refused(toy_wan: Toy, lacking: Path, tmp_path: Path) -> None:
    whole = StateDictSource(toy_wan(), "whole")
    with pytest.raises(SourceError, match="has no tensor that whole lacks"):
        CompletedSource(whole, StateDictSource(toy_wan(), "again"))
    stranger = tmp_path / "stranger.safetensors"
    save_file({"other.weight": torch.ones(2, 2)}, stranger)
    with pytest.raises(SourceError, match="no name in common"):
        open_source(lacking, stranger)


def test_the_second_may_not_help(lacking: Path, toy_wan: Toy, tmp_path: Path) -> None:
    second = tmp_path / "second.safetensors"
    save_file({**without_patch(toy_wan()), "another.bias": torch.ones(3)}, second)
    with pytest.raises(SourceError, match="lacks patch_embedding"):
        open_source(lacking, second)


def test_any_weight_whose_bias_is_there_is_missed_in_a_gguf(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(4, 32), "conv_in.bias": torch.ones(4)}
    path = write_gguf(tmp_path / "m.gguf", tensors)
    with pytest.raises(SourceError, match=r"is a model, but lacks conv_in\.weight"):
        open_source(path)
    plain = tmp_path / "m.safetensors"
    save_file(tensors, plain)
    with open_source(plain) as source:  # elsewhere a parameter may be named so
        assert set(source.tensors) == set(tensors)


def test_a_umt5_gguf_lacks_its_tokenizer(tmp_path: Path) -> None:
    tensors = {"shared.weight": torch.ones(256384, 1),
               "encoder.final_layer_norm.weight": torch.ones(1)}  # fmt: skip
    path = write_gguf(tmp_path / "umt5.gguf", tensors)
    with pytest.raises(SourceError, match="T5 text encoder, but lacks spiece_model"):
        open_source(path)


def test_files_are_closed_after_a_refusal(
    lacking: Path, toy_wan: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvfp4_foundry.quant.sources import GgufFile, SafetensorsFile

    closed: list[str] = []
    for kind in (GgufFile, SafetensorsFile):
        original = kind.close
        monkeypatch.setattr(
            kind, "close", lambda self, o=original: (closed.append(self.path.name), o(self))[1]
        )
    second = tmp_path / "second.safetensors"
    save_file(toy_wan(width=128), second)
    with pytest.raises(SourceError):
        open_source(lacking, second)
    assert sorted(closed) == ["second.safetensors", "wan.gguf"]
