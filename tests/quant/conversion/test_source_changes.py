"""A source that changes while it is read: the conversion fails and leaves no file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert, quantize_to_memory
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.conversions import Toy, plan_of
from tests.helpers.gguf_files import write_gguf
from tests.helpers.source_kinds import shards

Change = Callable[[Path], None]


def write_in_place(path: Path) -> None:
    """Write other bytes over the last tensor; the size stays."""
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(b"\x5a" * 64)


def write_and_set_time_back(path: Path) -> None:
    """As some tools that copy do: only the content tells."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(file.read(16)[:8])  # the length of the header, again
        file.seek(16)
        file.write(b"\x5a" * 4096)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 100)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    os.replace(other, path)


CHANGES: dict[str, tuple[Change, str]] = {
    "written in place": (write_in_place, "was written to"),
    "written, the time set back": (write_and_set_time_back, "was written to"),
    "grown": (grow, "changed its size from"),
    "truncated": (truncate, "changed its size from|ends inside tensor"),
    "replaced": (replace, "was replaced by another file"),
}


def changing(path: Path, change: Change, at: int = 3) -> Callable[[int, int, str], None]:
    """Return a progress callback that changes a file once, after some layers."""
    seen: list[str] = []

    def on_progress(done: int, total: int, text: str) -> None:
        seen.append(text)
        if len(seen) == at:
            change(path)

    return on_progress


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_file_fails_the_conversion(tmp_path: Path, toy_wan: Toy, kind: str) -> None:
    change, message = CHANGES[kind]
    source, target = tmp_path / "source.safetensors", tmp_path / "out" / "out.safetensors"
    target.parent.mkdir()
    save_file(toy_wan(), source)
    with open_source(source) as opened, pytest.raises(SourceError, match=message) as failed:
        convert(opened, plan_of(opened), target, on_progress=changing(source, change))
    assert str(source) in str(failed.value)
    assert list(target.parent.iterdir()) == []


def test_the_last_layer_counts_too(tmp_path: Path, toy_wan: Toy) -> None:
    source, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    save_file(toy_wan(), source)
    with open_source(source) as opened, pytest.raises(SourceError, match="was written to"):
        count = len(plan_of(opened).layers)
        progress = changing(source, write_in_place, count)
        convert(opened, plan_of(opened), target, on_progress=progress)
    assert not target.exists()


def test_an_unchanged_or_deleted_file_is_fine(tmp_path: Path, toy_wan: Toy) -> None:
    """What is open keeps its content, so the result is right."""
    source, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    save_file(toy_wan(), source)
    with open_source(source) as opened:
        convert(opened, plan_of(opened), target)
    again = tmp_path / "again.safetensors"
    with open_source(source) as opened:
        convert(opened, plan_of(opened), again, on_progress=changing(source, Path.unlink))
    assert torch.equal(*(torch.tensor(list(p.read_bytes()[-4096:])) for p in (target, again)))


def test_in_memory_too(tmp_path: Path, toy_wan: Toy) -> None:
    source = tmp_path / "source.safetensors"
    save_file(toy_wan(), source)
    with open_source(source) as opened, pytest.raises(SourceError, match="was written to"):
        progress = changing(source, write_in_place)
        quantize_to_memory(opened, plan_of(opened), on_progress=progress)


def test_every_file_of_a_source_is_watched(tmp_path: Path, toy_wan: Toy) -> None:
    model = toy_wan()
    sharded = tmp_path / "shards"
    sharded.mkdir()
    shards(sharded, model, {})
    gguf = write_gguf(tmp_path / "model.gguf", {n: t for n, t in model.items() if t.dim() <= 4})
    whole = tmp_path / "whole.safetensors"
    save_file(model, whole)
    pickle = tmp_path / "model.pt"
    torch.save(model, pickle)
    cases = [
        (sharded, None, sharded / "model-00002-of-00002.safetensors"),
        (gguf, whole, gguf),
        (gguf, whole, whole),
        (pickle, None, pickle),
    ]
    for path, second, changed in cases:
        content = changed.read_bytes()
        with open_source(path, second) as opened, pytest.raises(SourceError) as failed:
            progress = changing(changed, write_in_place)
            convert(opened, plan_of(opened), tmp_path / "out", on_progress=progress)
        assert str(changed) in str(failed.value)
        changed.write_bytes(content)
