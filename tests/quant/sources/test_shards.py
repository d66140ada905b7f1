"""Models in several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source, open_tensors
from safetensors.torch import save_file

FIRST = {"blocks.0.q.weight": torch.full((2, 2), 1.0), "blocks.0.q.bias": torch.full((2,), 2.0)}
SECOND = {"blocks.1.q.weight": torch.full((2, 2), 3.0)}
NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write_shards(folder: Path, prefix: str = "") -> None:
    for file, tensors in zip(NAMES, (FIRST, SECOND), strict=True):
        named = {prefix + name: tensor for name, tensor in tensors.items()}
        save_file(named, folder / file, {"from": file})


def write_index(folder: Path, weight_map: Any, name: str = "model") -> Path:
    path = folder / f"{name}.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    return path


def full_map() -> dict[str, str]:
    return {**dict.fromkeys(FIRST, NAMES[0]), **dict.fromkeys(SECOND, NAMES[1])}


def assert_is_whole(path: Path) -> None:
    with open_source(path) as source:
        assert set(source.tensors) == {*FIRST, *SECOND}
        for name, tensor in {**FIRST, **SECOND}.items():
            assert torch.equal(source.load(name), tensor)
        assert source.nbytes == 16 + 8 + 16
        assert source.metadata == {"from": NAMES[0]}
        with pytest.raises(SourceError, match="no tensor named nothing"):
            source.load("nothing")


def test_index(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert_is_whole(write_index(tmp_path, full_map()))


def test_folder_with_one_index_ignores_other_files(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_index(tmp_path, full_map())
    save_file({"unrelated": torch.ones(1)}, tmp_path / "lora.safetensors")
    assert_is_whole(tmp_path)


def test_folder_without_index(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert_is_whole(tmp_path)


def test_folder_with_one_file(tmp_path: Path) -> None:
    save_file(FIRST, tmp_path / "model.safetensors")
    with open_source(tmp_path) as source:
        assert set(source.tensors) == set(FIRST)


def test_prefixed_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, "model.diffusion_model.")
    with open_source(tmp_path) as source:
        assert set(source.tensors) == {*FIRST, *SECOND}
        assert torch.equal(source.load("blocks.1.q.weight"), SECOND["blocks.1.q.weight"])


def test_several_indices_ask_for_a_choice(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_index(tmp_path, full_map(), "high")
    write_index(tmp_path, full_map(), "low")
    with pytest.raises(SourceError, match=r"several models.*high\.safe.*low\.safe"):
        open_tensors(tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no \.safetensors file"):
        open_tensors(tmp_path)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(SourceError, match=f"not beside it: {NAMES[1]}"):
        open_tensors(write_index(tmp_path, full_map()))


def test_index_listing_absent_tensors(tmp_path: Path) -> None:
    write_shards(tmp_path)
    path = write_index(tmp_path, {**full_map(), "blocks.2.q.weight": NAMES[1]})
    with pytest.raises(SourceError, match=r"1 tensors that its shards lack, e\.g\. blocks\.2\.q"):
        open_tensors(path)


def test_one_name_in_two_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    save_file(SECOND, tmp_path / "copy.safetensors")
    with pytest.raises(SourceError, match=r"blocks\.1\.q\.weight is in both copy\.safetensors and"):
        open_tensors(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(b"<html>")
    with pytest.raises(SourceError, match=NAMES[1]):
        open_tensors(write_index(tmp_path, full_map()))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', '{"weight_map": 3}',
        '{"weight_map": {"a": ["b"]}}', '{"weight_map": {"a": 1, "b": "c"}}', "null", "\x00",
    ],
)  # fmt: skip
def test_malformed_index(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match="not a safetensors index") as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)
