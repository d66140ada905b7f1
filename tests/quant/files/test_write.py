"""What is written is complete or absent, with the permissions that files usually have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from nvfp4_foundry.quant.errors import FileError
from nvfp4_foundry.quant.files.publish import _rename_to_new, _replace
from nvfp4_foundry.quant.files.write import (
    check_target,
    make_folder,
    write_json,
    write_text,
    written_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_an_old_file_is_there_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with written_whole(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_text() == "old" and len(names(tmp_path)) == 2
    assert target.read_text() == "new" and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(5, "broken")])
@pytest.mark.parametrize("exists", [True, False])
def test_what_fails_changes_nothing(tmp_path: Path, error: BaseException, exists: bool) -> None:
    target = tmp_path / "a.json"
    if exists:
        target.write_text("old")
    with pytest.raises((type(error), FileError)), written_whole(target) as file:
        file.write(b"half")
        raise error
    assert names(tmp_path) == (["a.json"] if exists else [])
    assert not exists or target.read_text() == "old"


def test_the_error_of_a_disk_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    named = pytest.raises(FileError, match=r"a\.json cannot be written: the disk failed; check it")
    with named, written_whole(target):
        raise OSError(5, "Input/output error")


def test_what_exists_is_kept_without_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(FileError, match="exists; choose another name or allow overwriting"):
        write_text(target, "new", overwrite=False)
    assert target.read_text() == "old"


def test_text_has_the_same_bytes_on_every_system(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\nhalf a character: \ud800\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\nhalf a character: \\ud800\n".encode()
    write_json(tmp_path / "a.json", {"a": [1]}, indent=1)
    assert (tmp_path / "a.json").read_bytes() == b'{\n "a": [\n  1\n ]\n}\n'


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_are_those_of_a_new_file_or_of_the_old_one(tmp_path: Path) -> None:
    plain, new, old = tmp_path / "plain", tmp_path / "new", tmp_path / "old"
    plain.write_text("")
    write_text(new, "")
    assert new.stat().st_mode == plain.stat().st_mode
    old.write_text("")
    old.chmod(0o640)
    write_text(old, "new")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_the_owner_of_a_replaced_file_stays(tmp_path: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may give files away")
    target = tmp_path / "a.json"
    target.write_text("old")
    os.chown(target, 12345, 12345)
    write_text(target, "new")
    assert (target.stat().st_uid, target.read_text()) == (12345, "new")


def test_a_missing_folder_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist; create it"):
        check_target(tmp_path / "no" / "a.json", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot make the folder"):
        make_folder(tmp_path / "file" / "inside")


@pytest.mark.skipif(os.name == "nt", reason="Windows limits the whole path")
def test_a_name_that_is_too_long_is_said_before_the_work(tmp_path: Path) -> None:
    longest = "a" * 250 + ".json"  # as many characters as file systems allow
    write_text(tmp_path / longest, "fine")
    assert names(tmp_path) == [longest]
    with pytest.raises(FileError, match="too long"):
        write_text(tmp_path / f"{longest}x", "")


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_was_taken_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    target = tmp_path / "a.json"
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    refused = pytest.raises(FileError, match="another program created")
    with refused, written_whole(target, overwrite=False) as file:
        file.write(b"ours")
        target.write_text("theirs")
    assert names(tmp_path) == ["a.json"] and target.read_text() == "theirs"


def test_windows_waits_for_a_file_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, renaming over a file that a virus scanner has open is refused for a moment."""
    target, partial = tmp_path / "a", tmp_path / "b"
    target.write_text("old")
    partial.write_text("new")
    rename, refusals = os.replace, [PermissionError(13, "in use")] * 2

    def refuse_twice(a: Path, b: Path) -> None:
        if refusals:
            raise refusals.pop()
        rename(a, b)

    monkeypatch.setattr(os, "replace", refuse_twice)
    with pytest.raises(PermissionError):
        _replace(partial, target, "posix")
    _replace(partial, target, "nt")
    assert target.read_text() == "new" and not refusals


def test_windows_has_no_links_to_publish_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "link")
    (tmp_path / "b").write_text("new")
    _rename_to_new(tmp_path / "b", tmp_path / "a", "nt")
    assert names(tmp_path) == ["a"]
