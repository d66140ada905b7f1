"""What may be written and read: ordinary files, by links that are followed knowingly."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from nvfp4_foundry.quant.errors import FileError
from nvfp4_foundry.quant.files import target as target_module
from nvfp4_foundry.quant.files.target import (
    final_path,
    ignores_case,
    names_one_file,
    require_ordinary,
    why_not_a_name,
)
from nvfp4_foundry.quant.files.write import check_target, write_text

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


@pytest.fixture(params=["fifo", "socket", "device"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A named pipe, a socket, or a device, in a folder of its own."""
    path = tmp_path / "special.json"
    if os.name == "nt":
        pytest.skip("Windows has no such files")
    if request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            before = os.getcwd()
            os.chdir(tmp_path)  # the name of a socket must be short
            try:
                listener.bind(path.name)
            finally:
                os.chdir(before)
    else:
        try:
            os.mknod(path, 0o020644, os.makedev(1, 3))  # as /dev/null
        except (AttributeError, PermissionError):
            pytest.skip("only root may make devices")
    return path


def test_special_files_are_not_replaced(special: Path) -> None:
    before = special.lstat()
    with pytest.raises(FileError, match=r"is a (named pipe|socket|device); choose another name"):
        check_target(special, overwrite=True)
    link = special.with_name("link.json")
    link.symlink_to(special)
    with pytest.raises(FileError, match=r"link\.json is a (named pipe|socket|device)"):
        write_text(link, "x")
    after = special.lstat()
    assert (before.st_mode, before.st_ino) == (after.st_mode, after.st_ino)


def test_special_files_are_not_read(special: Path) -> None:
    with pytest.raises(FileError, match=r"is a (named pipe|socket|device), not a file"):
        require_ordinary(special)


@posix
@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/comm"])
def test_files_of_the_system_are_not_replaced(name: str, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(name)
    for target in (Path(name), link):
        with pytest.raises(FileError, match=r"is a file of the system|is a device"):
            check_target(target, overwrite=True)


@posix
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    link, file = tmp_path / "near" / "link.json", tmp_path / "far" / "file.json"
    file.write_text("old")
    link.symlink_to("../far/file.json")
    write_text(link, "new")
    assert link.is_symlink() and file.read_text() == "new" and not file.is_symlink()
    assert os.listdir(tmp_path / "far") == ["file.json"]


@posix
def test_a_dangling_link_gets_its_file(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "file.json")
    write_text(link, "new", overwrite=False)
    assert link.is_symlink() and (tmp_path / "file.json").read_text() == "new"
    link.unlink()
    link.symlink_to(tmp_path / "missing" / "file.json")
    with pytest.raises(FileError, match="missing does not exist"):
        write_text(link, "new")


@posix
def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.symlink_to(b)
    b.symlink_to(a)
    with pytest.raises(FileError, match="leads in a circle"):
        write_text(a, "new")


@posix
def test_another_name_of_a_replaced_file_keeps_the_old_content(tmp_path: Path) -> None:
    target, other = tmp_path / "a.json", tmp_path / "b.json"
    target.write_text("old")
    os.link(target, other)
    write_text(target, "new")
    assert (target.read_text(), other.read_text()) == ("new", "old")


def test_a_write_protected_file_is_kept(tmp_path: Path) -> None:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    target = tmp_path / "a.json"
    target.write_text("old")
    target.chmod(0o444)
    with pytest.raises(FileError, match="is write-protected"):
        write_text(target, "new")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder; give a file name"):
        final_path(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CON", "device"),
        ("nul.safetensors", "device"),
        ("Com1.tar.gz", "device"),
        ("LPT¹", "device"),
        ("aux .txt", "device"),
        ("CONOUT$", "device"),
        ("model.", "dots and spaces"),
        ("model ", "dots and spaces"),
        ("a:b", "no ':'"),
        ("a\nb", r"no '\\n'"),
        ("what?", r"no '\?'"),
    ],
)
def test_names_that_windows_does_not_allow(name: str, reason: str) -> None:
    assert reason.replace("\\\\", "\\").replace("\\?", "?") in why_not_a_name(name, "nt")
    assert why_not_a_name(name, "posix") == ""
    with pytest.raises(FileError, match=reason):
        require_ordinary(f"folder/{name}", system="nt")


@pytest.mark.parametrize("name", ["CONTROL", "null.json", "com10", "model.v2.json", "é 模型.json"])
def test_names_that_every_system_allows(name: str) -> None:
    assert why_not_a_name(name, "nt") == why_not_a_name(name, "posix") == ""
    require_ordinary(rf"C:\models\..\{name}", system="nt")
    require_ordinary(rf"\\server\share\{name}", system="nt")


@pytest.mark.parametrize("name", ["a\0b", "half \udbff a character"])
def test_names_that_no_system_allows(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written: it holds"):
        check_target(tmp_path / name, overwrite=True)


def test_names_that_differ_in_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = tmp_path / "Ünder.json", tmp_path / "üNDER.JSON", tmp_path / "other.json"
    for ignored in (True, False):
        monkeypatch.setattr(target_module, "ignores_case", lambda _folder, found=ignored: found)
        assert names_one_file(a, b) is ignored
        assert not names_one_file(a, c) and names_one_file(a, tmp_path / "." / "Ünder.json")


def test_whether_a_folder_ignores_case_is_found_out(tmp_path: Path) -> None:
    folder = tmp_path / "Folder"
    folder.mkdir()
    assert ignores_case(folder) is (tmp_path / "fOLDER").exists()
    (tmp_path / "fOLDER").mkdir(exist_ok=True)  # both, where case counts
    assert ignores_case(folder) is (len(os.listdir(tmp_path)) == 1)
