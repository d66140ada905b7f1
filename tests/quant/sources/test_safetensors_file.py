"""Our reader against safetensors' own, and against damaged files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import (
    DTYPES,
    SafetensorsFile,
    ShardedSource,
    StateDictSource,
    open_source,
    open_tensors,
)
from safetensors.torch import load_file, save_file

SHAPES = [(), (0,), (1,), (3, 0, 2), (7, 5), (2, 3, 4), (1, 6, 128)]


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    count = torch.empty(shape, dtype=dtype).nbytes
    data = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    return data.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


def raw_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_every_dtype_and_shape_equals_the_library(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.safetensors"
    saved = {f"t{i}": random_tensor(shape, dtype, i) for i, shape in enumerate(SHAPES)}
    save_file(saved, path)
    expected = load_file(path)
    with SafetensorsFile(path) as source:
        assert set(source.tensors) == set(expected)
        for name, tensor in expected.items():
            loaded = source.load(name)
            assert loaded.dtype == tensor.dtype == source.info(name).dtype
            assert tuple(loaded.shape) == tuple(tensor.shape) == source.info(name).shape
            assert source.info(name).nbytes == tensor.nbytes
            assert torch.equal(
                loaded.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_parts_are_read_by_themselves(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"a.weight": random_tensor((6, 7), dtype)}
    save_file(tensors, path)
    full = tmp_path / "full.safetensors"
    save_file({f"model.diffusion_model.{name}": t for name, t in tensors.items()}, full)
    starts, length = [0, 11, 38], 4
    flat = tensors["a.weight"].flatten().view(torch.uint8).view(dtype)
    expected = torch.stack([flat[start : start + length] for start in starts])
    sharded = ShardedSource([path], str(path))
    with SafetensorsFile(path) as file, open_source(full) as prefixed, sharded:
        for source in (file, prefixed, sharded):
            source.load = None  # type: ignore[method-assign] - the whole is not read
        for found in (file, prefixed, sharded, StateDictSource(tensors)):
            parts = found.load_runs("a.weight", starts, length)
            assert parts.dtype == dtype
            assert torch.equal(parts.view(torch.uint8), expected.view(torch.uint8))
        with pytest.raises(SourceError, match="no tensor named b"):
            prefixed.load_runs("b", starts, length)


def test_loaded_tensors_are_independent_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(4)}, path)
    with SafetensorsFile(path) as source:
        source.load("a").zero_()
        assert torch.equal(source.load("a"), torch.ones(4))


def test_metadata_and_size(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(4), "b": torch.ones(2, 2).bfloat16()}, path, {"key": "välue"})
    with open_source(path) as source:
        assert source.metadata == {"key": "välue"}
        assert source.nbytes == 16 + 8
        assert source.description == str(path)
        with pytest.raises(SourceError, match="holds no tensor named missing"):
            source.load("missing")


@settings(max_examples=150, deadline=None)
@given(
    header=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.lists(st.integers(), max_size=2),
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F32", "U8", "F4", 3, None]),
                    "shape": st.one_of(
                        st.lists(st.integers(-3, 3) | st.none(), max_size=3), st.text(max_size=2)
                    ),
                    "data_offsets": st.lists(st.integers(-8, 40) | st.text(max_size=1), max_size=3),
                }
            ),
        ),
        max_size=3,
    ),
    data=st.binary(max_size=32),
)
def test_any_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], data: bytes
) -> None:
    path = raw_file(tmp_path_factory.mktemp("fuzz") / "model.safetensors", header, data)
    try:
        source = open_tensors(path)
    except SourceError as error:
        assert str(path) in str(error)
        return
    with source:
        for name, info in source.tensors.items():
            assert tuple(source.load(name).shape) == info.shape


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"no json at all", b"", "bad header"),
        (b"\xff\xfe{}", b"", "bad header"),
        ([1, 2], b"", "not a JSON object"),
        ({"__metadata__": ["x"]}, b"", "metadata"),
        ({"w": entry("F4", offsets=(0, 1))}, b"\0" * 8, "entry of tensor .* is not valid"),
        ({"w": {"dtype": "F32"}}, b"\0" * 8, "entry of tensor .* is not valid"),
        ({"w": 7}, b"\0" * 8, "entry of tensor .* is not valid"),
        ({"w": entry(shape="x")}, b"\0" * 8, "entry of tensor .* is not valid"),
        ({"w": entry(offsets=(0,))}, b"\0" * 8, "entry of tensor .* is not valid"),
        ({"w": entry(shape=(3,))}, b"\0" * 8, "has 8 bytes, not 12"),
        ({"w": entry(shape=(-1, -2))}, b"\0" * 8, "negative size or offset"),
        ({"w": entry(offsets=(-8, 0))}, b"\0" * 8, "negative size or offset"),
        ({"w": entry()}, b"\0" * 7, "truncated: tensor w ends at byte"),
    ],
)
def test_malformed_headers_are_named(
    tmp_path: Path, header: Any, data: bytes, message: str
) -> None:
    path = raw_file(tmp_path / "broken.safetensors", header, data)
    with pytest.raises(SourceError, match=message) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.touch()
    with pytest.raises(SourceError, match="has only 0 bytes"):
        open_tensors(path)


def test_header_longer_than_the_file(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "cut.safetensors", {"w": entry()}, b"", length=4000)
    with pytest.raises(SourceError, match="header claims 4000 bytes"):
        open_tensors(path)


def test_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "huge.safetensors", b"{}", length=2**63)
    with pytest.raises(SourceError, match=f"claims {2**63} bytes"):
        open_tensors(path)


def test_file_cut_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(1000)}, path)
    with SafetensorsFile(path) as source:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 8)
        with pytest.raises(SourceError, match="ends inside tensor w"):
            source.load("w")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_tensors(tmp_path / "nothing.safetensors")
