"""Kills, signals and full disks while each command writes: nothing is damaged, nothing is left.

`bench/kill.py` does the same a thousand times.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
FULL = ("the disk is full", "are free in")


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The benches, which are scripts beside each other."""
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import kill

        yield kill
    finally:
        sys.path.remove(str(ROOT / "bench"))


@pytest.fixture(scope="module")
def writings(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Everything that writes, but the demo, which takes as long as all the others."""
    with bench.all_writings(tmp_path_factory.mktemp("writings")) as found:
        yield [writing for writing in found if writing.name != "demo"]


@pytest.fixture(scope="module")
def sizes(bench: Any, writings: list[Any]) -> dict[str, list[int]]:
    """The sizes of the files that each way to write makes, in bytes."""
    found = {}
    for writing in writings:
        bench.duration(writing)
        found[writing.name] = [(writing.folder / name).stat().st_size for name in writing.outputs]
    return found


def run(bench: Any, writing: Any, before: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Return the exit code and what was said."""
    said = writing.folder.parent / "said.txt"
    code = bench.start(lambda: (before(), writing.run())[1], said).wait()
    return code, said.read_text(encoding="utf-8")


def test_kills_and_signals_damage_nothing(bench: Any, writings: list[Any]) -> None:
    order = random.Random()
    for writing in order.sample(writings, 4):
        counts = bench.run_kills(writing, 2, 1, order)
        assert counts.ok, (writing.name, counts)


def test_a_file_that_grows_too_large_ends_with_an_error(
    bench: Any, writings: list[Any], sizes: dict[str, list[int]]
) -> None:
    """A limit of the process on the size of files, in the middle of the largest one."""
    resource = pytest.importorskip("resource")
    for writing in writings:
        limit = max(sizes[writing.name]) // 2
        content = writing.reset(absent=False)
        code, said = run(
            bench,
            writing,
            lambda most=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (most,) * 2),
        )
        assert code and "larger than the file system or a limit" in said, (writing.name, said)
        assert not writing.damaged(content) and not writing.leftovers(), writing.name


@contextmanager
def small_disk(folder: Path, options: str = "size=64m") -> Iterator[None]:
    """Put an empty disk in memory over a folder."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("NOT TESTED HERE: full disks; only root on Linux can mount a small one")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def room(folder: Path) -> int:
    """Return the free bytes of the disk of a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def fill(folder: Path, *, free: int) -> None:
    """Fill the disk of a folder up to so many bytes."""
    with (folder / "filler").open("wb") as file:
        while (size := room(folder) - free) > 0:
            with suppress(OSError):  # who writes meanwhile has taken some of it
                os.posix_fallocate(file.fileno(), 0, size)


def test_a_full_disk_ends_with_an_error(
    bench: Any, writings: list[Any], sizes: dict[str, list[int]]
) -> None:
    """The disk is full at a random page of what is written."""
    order = random.Random()
    for writing in writings:
        with small_disk(writing.folder):
            content = writing.reset(absent=False)
            page = os.statvfs(writing.folder).f_frsize
            pages = [-(-size // page) for size in sizes[writing.name]]
            needed = max(pages) if writing.name != "probe" else 1
            # A page less than needed: a time in a report may make it a few bytes shorter.
            fill(writing.folder, free=order.randrange(max(1, needed - 1)) * page)
            code, said = run(bench, writing)
            assert code and any(words in said for words in FULL), (writing.name, said)
            bad = writing.damaged(content)
            assert not bad and not writing.leftovers(), (writing.name, bad, writing.leftovers())


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(
    bench: Any, writings: list[Any]
) -> None:
    from nvfp4_foundry.quant.conversion.convert import convert
    from nvfp4_foundry.quant.errors import FileError
    from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory
    from nvfp4_foundry.quant.sources import open_source

    folder = writings[0].folder
    with small_disk(folder), open_source(str(folder.parent / "model.safetensors")) as source:
        plan = make_plan(get_preset("all").build({}), take_inventory(source))
        (folder / "a.safetensors").write_bytes(b"old")

        def fill_after_two(done: int, total: int, step: str) -> None:
            if done > total / 3 and not (folder / "filler").exists():
                (folder / "filler").touch()  # takes a page itself
                fill(folder, free=0)

        with pytest.raises(FileError, match="the disk is full"):
            convert(source, plan, folder / "a.safetensors", overwrite=True,
                    on_progress=fill_after_two)  # fmt: skip
        assert sorted(os.listdir(folder)) == ["a.safetensors", "filler"]
        assert (folder / "a.safetensors").read_bytes() == b"old"


def test_a_disk_that_can_only_be_read(bench: Any, writings: list[Any]) -> None:
    for writing in writings:
        if writing.before:
            continue  # it is read from the same folder
        with small_disk(writing.folder, "size=1m,ro"):
            code, said = run(bench, writing)
            assert code and "the disk can only be read" in said, (writing.name, said)
            assert not os.listdir(writing.folder)
