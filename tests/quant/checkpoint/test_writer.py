"""The streaming writer: files are valid, and complete or absent."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import CheckpointWriter, check_target
from nvfp4_foundry.quant.checkpoint.digests import without_digests
from nvfp4_foundry.quant.errors import CheckpointError, FileError
from nvfp4_foundry.quant.formats import TensorSpec
from nvfp4_foundry.quant.sources import DTYPES
from safetensors import safe_open
from safetensors.torch import load_file

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.uint8).view(2, 3),
    "a.weight_scale_2": torch.tensor(0.5),
    "b.bias": torch.randn(5).bfloat16(),
    "empty": torch.empty(0),
    "d": torch.randn(3, 7, dtype=torch.float64),
}


def specs_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tuple(t.shape), t.dtype) for name, t in tensors.items()}


def write(target: Path, tensors: Mapping[str, torch.Tensor] = TENSORS, **options: bool) -> None:
    with CheckpointWriter(target, specs_of(tensors), {"k": "v"}, **options) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.commit()


def header_of(path: Path) -> tuple[dict[str, dict[str, object]], int]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), 8 + length


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)


def test_the_library_reads_it(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    write(target)
    loaded = load_file(target)
    assert set(loaded) == set(TENSORS)
    assert all(same_bits(loaded[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(target, "pt") as file:
        assert without_digests(file.metadata()) == {"k": "v"}
    assert os.listdir(tmp_path) == ["out.safetensors"]


def test_every_dtype_is_aligned_to_its_size(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    tensors = {}
    for i, (name, dtype) in enumerate(DTYPES.items()):
        for count in (1, 3, 0):
            tensors[f"{name}.{count}"] = torch.zeros(count, i % 3 + 1).to(dtype)
    write(target, tensors)
    header, data_start = header_of(target)
    assert data_start % 8 == 0
    for name, tensor in tensors.items():
        begin, end = header[name]["data_offsets"]  # type: ignore[misc]
        assert (data_start + begin) % tensor.dtype.itemsize == 0
        assert end - begin == tensor.nbytes
    loaded = load_file(target)
    assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())


def test_order_of_writing_is_free_and_strides_do_not_matter(tmp_path: Path) -> None:
    matrix = torch.randn(6, 4)
    tensors = {"t": matrix.t(), "slice": matrix[::2, 1:3], "grad": matrix.clone().requires_grad_()}
    target = tmp_path / "out.safetensors"
    with CheckpointWriter(target, specs_of(tensors), {}) as writer:
        for name in reversed(tensors):
            writer.write(name, tensors[name])
        writer.commit()
    loaded = load_file(target)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_metadata_may_grow_into_the_slack(tmp_path: Path) -> None:
    specs = specs_of({"a": torch.ones(2)})
    longer = {"k": "v" * 101, "ü": "ß"}
    with CheckpointWriter(tmp_path / "a", specs, {"k": "v"}, header_slack=200) as writer:
        writer.write("a", torch.ones(2))
        writer.commit(longer)
    with safe_open(tmp_path / "a", "pt") as file:
        assert without_digests(file.metadata()) == longer
        assert torch.equal(file.get_tensor("a"), torch.ones(2))
    with CheckpointWriter(tmp_path / "b", specs, {"k": "v"}, header_slack=10) as writer:
        writer.write("a", torch.ones(2))
        with pytest.raises(CheckpointError, match="longer than the space reserved"):
            writer.commit(longer)
    assert os.listdir(tmp_path) == ["a"]


def test_an_existing_target_is_refused_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(FileError, match="exists; choose another name"):
        CheckpointWriter(target, specs_of(TENSORS), {})
    assert target.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == [target.name]


def test_overwriting_replaces_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"precious")
    with CheckpointWriter(target, specs_of(TENSORS), {}, overwrite=True) as writer:
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)
        assert target.read_bytes() == b"precious"
        writer.commit()
    assert set(load_file(target)) == set(TENSORS)
    assert os.listdir(tmp_path) == [target.name]


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_target_that_appears_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    target = tmp_path / "out.safetensors"
    if not hard_links:
        monkeypatch.setattr(os, "link", _no_links)
    with CheckpointWriter(target, specs_of(TENSORS), {}) as writer:
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)
        target.write_bytes(b"somebody else's")
        with pytest.raises(FileError, match=r"created .* while it was being written"):
            writer.commit()
    assert target.read_bytes() == b"somebody else's"
    assert os.listdir(tmp_path) == [target.name]


def _no_links(*_args: object, **_kwargs: object) -> None:
    raise OSError("this file system has no hard links")


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    write(tmp_path / "out.safetensors")
    assert set(load_file(tmp_path / "out.safetensors")) == set(TENSORS)
    assert os.listdir(tmp_path) == ["out.safetensors"]


def test_missing_folder_and_folder_as_target(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist; create it"):
        write(tmp_path / "missing" / "out.safetensors")
    with pytest.raises(FileError, match="is a folder; give a file name"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("unknown", torch.ones(1), "unknown was not announced"),
        ("b.bias", torch.ones(5), "b.bias is torch.float32 .5,., announced as torch.bfloat16"),
        ("b.bias", torch.ones(4).bfloat16(), r"b.bias is torch.bfloat16 \(4,\), announced"),
        ("a.weight", torch.zeros(3, 2, dtype=torch.uint8), r"\(3, 2\), announced as .*\(2, 3\)"),
    ],
)
def test_unexpected_tensors_are_refused(
    tmp_path: Path, name: str, tensor: torch.Tensor, message: str
) -> None:
    with CheckpointWriter(tmp_path / "out", specs_of(TENSORS), {}) as writer:
        with pytest.raises(CheckpointError, match=message):
            writer.write(name, tensor)
        with pytest.raises(CheckpointError, match="5 announced tensors were not written"):
            writer.commit()
    assert os.listdir(tmp_path) == []


def test_writing_twice_is_refused(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path / "out", specs_of(TENSORS), {}) as writer:
        writer.write("empty", TENSORS["empty"])
        with pytest.raises(CheckpointError, match="empty was not announced or is written twice"):
            writer.write("empty", TENSORS["empty"])


def test_missing_tensors_are_named_at_commit(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path / "out", specs_of(TENSORS), {}) as writer:
        for name in ("a.weight", "a.weight_scale_2", "empty", "d"):
            writer.write(name, TENSORS[name])
        with pytest.raises(CheckpointError, match=r"1 announced tensors .* e\.g\. b\.bias"):
            writer.commit()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out.safetensors"
    with pytest.raises(error), CheckpointWriter(target, specs_of(TENSORS), {}) as writer:
        writer.write("d", TENSORS["d"])
        assert len(os.listdir(tmp_path)) == 1
        raise error
    assert os.listdir(tmp_path) == []


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path / "out", specs_of(TENSORS), {}) as writer:
        writer.write("d", TENSORS["d"])
    assert os.listdir(tmp_path) == []
    with pytest.raises(CheckpointError, match="not open"):
        writer.write("a.weight", TENSORS["a.weight"])


def test_a_failing_disk_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="the disk is full"):
        write(tmp_path / "out.safetensors")
    assert os.listdir(tmp_path) == []


Usage = namedtuple("Usage", "total used free")


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3_000_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**12, 0, needed))
    with pytest.raises(FileError, match=r"needs 3\.00 GB, but only 3\.00 GB are free"):
        check_target(tmp_path / "out", needed, overwrite=False)
    check_target(tmp_path / "out", needed - (64 << 20), overwrite=False)
    with pytest.raises(FileError, match=r"needs 4\.00 GB"):
        CheckpointWriter(
            tmp_path / "out", {"w": TensorSpec((10**9,), torch.float32)}, {}, overwrite=True
        )
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
                    reason="permissions bind nobody here")  # fmt: skip
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FileError, match="you may not write there"):
            check_target(tmp_path / "out", 1, overwrite=False)
    finally:
        tmp_path.chmod(0o700)
