"""Files that are not what their names say, and headers made to do harm."""

from __future__ import annotations

import bz2
import gzip
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source, open_tensors
from safetensors.torch import save_file

from tests.helpers.conversions import Toy
from tests.helpers.gguf_files import write_gguf

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"
IMPOSTORS: dict[str, tuple[bytes, str]] = {
    "page": (b"<!doctype html><html><body>Not found</body></html>", "a web page"),
    "page with a mark": (b"\xef\xbb\xbf\n <HTML lang=en><body>Log in</body></html>", "a web page"),
    "pointer": (POINTER, "pointer of Git LFS.*git lfs pull"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML document"),
    "json": (b'{"error": "Repository not found"}', "a JSON document"),
    "list": (b"[1, 2, 3]", "a JSON document"),
    "gzip": (gzip.compress(b"x" * 100), "a gzip archive; unpack it"),
    "bzip2": (bz2.compress(b"x" * 100), "a bzip2 archive; unpack it"),
    "zeros": (b"\0" * 5000, "filled with zeros.*fetch it again"),
}


@pytest.mark.parametrize("ending", [".safetensors", ".gguf", ".pt", ".sft"])
@pytest.mark.parametrize("kind", IMPOSTORS)
def test_what_was_saved_under_the_name_of_a_model(tmp_path: Path, kind: str, ending: str) -> None:
    content, message = IMPOSTORS[kind]
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message) as refused:
        open_source(path)
    assert str(path) in str(refused.value)


def test_a_zip_archive(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", b"x" * 100)
    with pytest.raises(SourceError, match="a zip archive; unpack it"):
        open_source(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SourceError, match=r"truncated archive.*fetch it again"):
        open_source(path)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_a_gguf_by_another_name_is_opened_as_one(tmp_path: Path, toy_wan: Toy, ending: str) -> None:
    model = {n: t for n, t in toy_wan().items() if n != "patch_embedding.weight"}
    renamed = write_gguf(tmp_path / "m.gguf", model).rename(tmp_path / f"model{ending}")
    with open_tensors(renamed) as source:
        assert set(source.tensors) == set(model)
        assert f"{renamed.name} is a GGUF file, whatever its name says" in source.notes


def test_a_safetensors_file_by_another_name(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan()
    for name in ("model.gguf", "model.ckpt"):
        save_file(model, tmp_path / name)
        with open_source(tmp_path / name) as source:
            assert torch.equal(source.load("head.modulation"), model["head.modulation"])
            assert f"{name} is a safetensors file, whatever its name says" in source.notes


def test_a_download_that_did_not_finish(tmp_path: Path, toy_wan: Toy) -> None:
    path = tmp_path / "model.safetensors"
    save_file(toy_wan(), path)
    whole = path.read_bytes()
    for size in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match="fetch it again"):
            open_source(path)


def raw(path: Path, header: bytes, body: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def entry(name: str, begin: int, end: int, shape: str = "[1]", dtype: str = "F32") -> bytes:
    offsets = f'"data_offsets":[{begin},{end}]'
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},{offsets}}}'.encode()


HOSTILE: dict[str, tuple[Callable[[], tuple[bytes, bytes]], str]] = {
    "deep": (lambda: (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""), "nests too deeply"),
    "endless number": (lambda: (b"{" + entry("a", 0, 4, f"[{'9' * 6000}]") + b"}", b"0000"),
                       "bad header"),
    "long number": (lambda: (b"{" + entry("a", 0, 4, f"[{'9' * 4000}]") + b"}", b"0000"),
                    "a number of 4000 digits"),
    "twice": (lambda: (b"{" + entry("a", 0, 4) + b"," + entry("a", 0, 4) + b"}", b"0000"),
              "'a' twice"),
    "key twice": (lambda: (b'{"a":{"shape":[1],"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
                           b"0000"), "'shape' twice"),
    "overlap": (lambda: (b"{" + entry("a", 0, 4) + b"," + entry("b", 2, 6) + b"}", b"000000"),
                "tensors a and b overlap"),
    "endless shape": (lambda: (b"{" + entry("a", 0, 0, f"[{1 << 40}, 0]") + b"}", b""),
                      "impossible shape"),
    "overflow": (lambda: (b"{" + entry("a", 0, 0, f"[{1 << 70}, 0]") + b"}", b""),
                 "impossible shape"),
    "many axes": (lambda: (b"{" + entry("a", 0, 4, str([1] * 100)) + b"}", b"0000"),
                  "impossible shape"),
    "true": (lambda: (b"{" + entry("a", 0, 4, "[true]") + b"}", b"0000"), "not valid"),
    "half": (lambda: (b"{" + entry("a", 0, 4, "[1.0]") + b"}", b"0000"), "not valid"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    make, message = HOSTILE[kind]
    path = raw(tmp_path / "model.safetensors", *make())
    started = time.monotonic()
    with pytest.raises(SourceError, match=message) as refused:
        open_source(path)
    assert time.monotonic() - started < 5
    assert str(path) in str(refused.value) and len(str(refused.value)) < 1000


def test_a_deep_index_or_config(tmp_path: Path, toy_wan: Toy) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(deep)
    with pytest.raises(SourceError, match="not a safetensors index"):
        open_source(index)
    outside = '{"weight_map": {"a": "../other.safetensors"}}'
    index.write_text(outside)
    with pytest.raises(SourceError, match="which is not in its folder"):
        open_source(index)
    index.unlink()
    (tmp_path / "config.json").write_text(deep)
    save_file(toy_wan(), tmp_path / "model.safetensors")
    with open_source(tmp_path):
        pass
