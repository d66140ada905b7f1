"""What a killed calibration leaves is removed by the next one, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    load_statistics,
    moments_folder,
    save_statistics,
)
from nvfp4_foundry.quant.calibration.unlisted import mark

from tests.helpers.moments_by_hand import BIG, Observed

_TELL = "from nvfp4_foundry.quant.files.running import this_process; print(this_process())"
_WRITER = "nvfp4_foundry.quant.calibration.unlisted.this_process"
Sample = Callable[[], CalibrationStatistics]


@pytest.fixture(scope="module")
def dead() -> str:
    """The writer that a process was which has ended."""
    command = [sys.executable, "-c", _TELL]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cal.safetensors"


@pytest.fixture
def sample(observe: Callable[..., Observed], path: Path) -> Sample:
    """Sample once; the second moments go to the folder beside ``path`` at the end of the run."""
    settings = CollectorSettings(
        rows_per_layer=180, moments_budget_bytes=BIG, moments_folder=moments_folder(path)
    )
    return lambda: observe(1, ActivationCollector(settings))[0]


def files(path: Path) -> set[Path]:
    return set(moments_folder(path).iterdir())


def test_parts_of_a_dead_process_are_removed(
    sample: Sample, path: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = sample()
    save_statistics(saved, path)
    listed = files(path)
    assert listed and {file.suffix for file in listed} == {".safetensors"}
    sample()
    of_this_process = files(path) - listed
    with monkeypatch.context() as patch:
        patch.setattr(_WRITER, lambda: dead)
        sample()
    killed = files(path) - listed - of_this_process
    for found in (of_this_process, killed):
        assert {file.suffix for file in found} == {".safetensors", ".unlisted"}
    save_statistics(saved, path)
    assert files(path) == listed | of_this_process
    assert load_statistics(path).layers["q"].moments is not None


def test_parts_of_a_renamed_folder_are_removed_too(
    sample: Sample, path: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_WRITER, lambda: dead)
        sample()
    moments_folder(path).rename(moments_folder(path.with_name("cal.20260101-000000.safetensors")))
    save_statistics(sample(), path)
    assert not list(path.parent.glob("cal.2026*/*"))


@pytest.mark.parametrize("name", ["cal.interrupted", "renamed.safetensors"])
def test_parts_that_another_file_lists_are_kept(
    name: str, sample: Sample, path: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was killed between saving the file and removing the marks."""
    saved, other = sample(), path.with_name(name)
    save_statistics(saved, path)
    listed = files(path)
    path.rename(other)
    with monkeypatch.context() as patch:
        patch.setattr(_WRITER, lambda: dead)
        for file in listed:
            mark(moments_folder(path), file.stem)
    save_statistics(sample(), path)
    assert listed < files(path)
    assert not list(moments_folder(path).glob(".*"))


def test_parts_of_another_machine_are_kept(
    sample: Sample, path: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ("0" if dead[0] != "0" else "1") + dead[1:]
    with monkeypatch.context() as patch:
        patch.setattr(_WRITER, lambda: elsewhere)
        sample()
    left = files(path)
    save_statistics(sample(), path)
    assert left < files(path)
