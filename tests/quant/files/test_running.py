"""Leftovers of dead processes are removed, and what a living one writes never is."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from nvfp4_foundry.quant.files import running
from nvfp4_foundry.quant.files.partial import Partial, remove_leftovers
from nvfp4_foundry.quant.files.running import Writer, this_process
from nvfp4_foundry.quant.files.write import write_text

WRITE_FOREVER = """
import sys, time
from pathlib import Path
from nvfp4_foundry.quant.files.partial import Partial
partial = Partial(Path(sys.argv[1]))
partial.open().write(b"half")
print(partial.path.name, flush=True)
time.sleep(600)
"""


def dead() -> Writer:
    """Return a process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(this_process(), pid=process.pid)


def left(folder: Path, writer: Writer, name: str = "a.json", age: float = 0) -> Path:
    path = folder / f".{name}.{writer}-0123abcd.partial"
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_running_write_is_kept_and_a_killed_one_removed(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(target)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        partial = tmp_path / process.stdout.readline().strip()
        write_text(tmp_path / "b.json", "")
        assert partial.exists()
        process.kill()
        if os.name != "nt":  # a zombie until somebody asks for its exit code
            while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
            write_text(tmp_path / "b.json", "")
            assert not partial.exists()
    finally:
        process.kill()
        process.communicate()
    write_text(tmp_path / "b.json", "")
    assert os.listdir(tmp_path) == ["b.json"]


def test_what_this_process_writes_is_kept(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "a.json")
    partial.open()
    remove_leftovers(tmp_path / "a.json")
    assert partial.path.exists()
    partial.remove()
    assert not list(tmp_path.iterdir())


def test_a_process_id_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    """This process runs, but it is not the one that began the file."""
    earlier = replace(this_process(), start=this_process().start - 1000)
    path = left(tmp_path, earlier)
    remove_leftovers(tmp_path / "b.json")
    assert not path.exists()


def test_the_writes_of_other_machines_are_kept(tmp_path: Path) -> None:
    other = replace(dead(), machine="01234567")
    paths = [left(tmp_path, other, age=age) for age in (0, 10**8)]
    remove_leftovers(tmp_path / "a.json")
    assert all(path.exists() for path in paths)


def test_what_was_written_before_this_machine_started_is_removed(tmp_path: Path) -> None:
    """After a power cut. A machine of the same name and id that writes now is not this one."""
    earlier_boot = replace(this_process(), boot="01234567")
    since_boot = time.time() - psutil.boot_time()
    now = left(tmp_path, earlier_boot, "now.json")
    before = left(tmp_path, earlier_boot, "before.json", age=since_boot + 60)
    remove_leftovers(tmp_path / "a.json")
    assert now.exists() and not before.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no containers of this kind")
def test_another_container_of_the_same_name_is_asked_by_its_lock(tmp_path: Path) -> None:
    """Its process ids mean nothing here: one may be that of another process, or of none."""
    import fcntl

    path = left(tmp_path, replace(dead(), space="0123"))
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_leftovers(tmp_path / "a.json")
        assert path.exists()
    remove_leftovers(tmp_path / "a.json")
    assert not path.exists()


def test_without_locks_another_container_is_left_alone() -> None:
    other = replace(dead(), space="0123")
    assert not other.is_dead(last_write=0, locked=None)
    assert other.is_dead(last_write=0, locked=False)
    assert not dead().is_dead(last_write=0, locked=True)
    assert dead().is_dead(last_write=0, locked=None)


@pytest.mark.parametrize("name", ["{}.4321-0123abcd.partial", "{}." + "0" * 32 + ".tmp",
                                  "{}." + "f" * 32 + ".partial"])  # fmt: skip
def test_leftovers_of_earlier_versions(tmp_path: Path, name: str) -> None:
    """Their names do not tell the machine, so a day must have passed, and the target be theirs."""
    ours, recent, others = (tmp_path / f".{n}" for n in map(name.format, ("a.json", "b", "c")))
    for path in (ours, recent, others):
        path.write_text("half")
    for path in (ours, others):
        os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
    for target in ("a.json", "b"):
        remove_leftovers(tmp_path / target)
    assert sorted(tmp_path.iterdir()) == sorted([recent, others])


def test_no_pattern_is_kept_for_each_name(tmp_path: Path) -> None:
    """``re`` keeps hundreds, and each report has a name of its own."""

    def patterns() -> int:
        return sum(type(each) is re.Pattern for each in gc.get_objects())

    before = patterns()
    for number in range(100):
        remove_leftovers(tmp_path / f"{number}.json")
    assert patterns() < before + 10


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    kept = (".partial", "a.partial", ".a.json.partial", "a.json.tmp", ".a.json.xyz.tmp",
            f"a.json.{dead()}-0123abcd.partial", ".a.json.1-2-3-4.partial")  # fmt: skip
    for name in kept:
        (tmp_path / name).write_text("theirs")
        os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path / "a.json")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_link_or_a_pipe_with_the_name_of_a_leftover_is_left_alone(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("Windows has no such files")
    precious = tmp_path / "precious"
    precious.write_text("theirs")
    link = tmp_path / f".a.json.{dead()}-0123abcd.partial"
    link.symlink_to(precious)
    os.mkfifo(tmp_path / f".b.json.{dead()}-0123abcd.partial")  # would block whoever opens it
    remove_leftovers(tmp_path / "a.json")
    assert precious.exists() and link.is_symlink()


def test_a_writer_is_read_back_and_differs_only_in_the_process() -> None:
    here = this_process()
    assert Writer.parse(str(here)) == here == this_process()
    code = "from nvfp4_foundry.quant.files.running import this_process; print(this_process())"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    other = Writer.parse(text.strip())
    assert other is not None and other.pid != here.pid
    assert (other.machine, other.boot, other.space) == (here.machine, here.boot, here.space)


def test_the_name_of_the_host_cannot_be_read_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_machine", lambda: "secret-host")
    assert "secret" not in str(this_process())
