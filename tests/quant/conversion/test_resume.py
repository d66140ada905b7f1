"""A conversion that was stopped goes on from the layers that it finished."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nvfp4_foundry.quant.calibration import load_statistics, save_statistics
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.conversion.report import ConversionReport
from nvfp4_foundry.quant.errors import FileError
from nvfp4_foundry.quant.files.resumable import describe_kept, remove_resumable
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers.calibrated_toy import save_calibrated
from tests.helpers.conversions import plan_of
from tests.quant.conftest import ToyModel

ROOT = Path(__file__).parents[3]
RULES = "*.q = float8_e4m3fn\nblocks.* = nvfp4"
AT = 5


class Stop(BaseException):
    """Like ComfyUI's interruption, this is not an `Exception`."""


def make(folder: Path, name: str, rounding: str = "gptq", stop: Any = None) -> ConversionReport:
    """Convert the model of a folder; ``stop`` is called once a few layers are finished."""
    seen: list[int] = []

    def on_progress(done: int, total: int, text: str) -> None:
        if stop is not None and text.startswith(f"layer {AT} "):
            stop()
        seen.append(done)
        assert seen == sorted(seen) and done <= total

    with open_source(folder / "model.safetensors") as source:
        return convert(
            source,
            plan_of(source, RULES, rounding=rounding),
            folder / name,
            statistics=load_statistics(folder / "calibration.safetensors"),
            resume=True,
            on_progress=on_progress,
        )


def stop_here() -> None:
    raise Stop


@pytest.fixture
def folder(tmp_path: Path, toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a model, its calibration, and what an undisturbed run makes of them."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # files tell when they were made
    save_calibrated(toy_model, tmp_path)
    make(tmp_path, "whole.safetensors")
    return tmp_path


def journals(folder: Path) -> list[Path]:
    return list(folder.glob(".*.resumable"))


def is_whole(folder: Path) -> bool:
    """Whether the file is the same as that of an undisturbed run, and nothing else was left."""
    same = (folder / "out.safetensors").read_bytes() == (folder / "whole.safetensors").read_bytes()
    return same and not list(folder.glob(".*"))


def test_a_killed_run_goes_on(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.quant.conversion.test_resume", str(folder)]
    died = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True
    )
    assert died.returncode == 9, died.stderr
    assert len(journals(folder)) == 1 and not (folder / "out.safetensors").exists()
    report = make(folder, "out.safetensors")
    assert any("are from an earlier run" in note for note in report.notes)
    assert is_whole(folder)
    assert verify_checkpoint(folder / "out.safetensors", folder / "model.safetensors").ok


def test_an_interrupted_run_goes_on_as_often_as_needed(folder: Path) -> None:
    undisturbed = make(folder, "other.safetensors")
    for _ in range(2):
        with pytest.raises(Stop):
            make(folder, "out.safetensors", stop=stop_here)
    assert make(folder, "out.safetensors").layers == undisturbed.layers
    assert is_whole(folder)


@pytest.mark.parametrize("where", [200, 4000, -10, None], ids=str)
def test_what_is_damaged_or_incomplete_is_made_again(folder: Path, where: int | None) -> None:
    with pytest.raises(Stop):
        make(folder, "out.safetensors", stop=stop_here)
    (journal,) = journals(folder)
    data = bytearray(journal.read_bytes())
    if where is None:
        del data[-20:]
    else:
        data[where] ^= 1
    journal.write_bytes(data)
    make(folder, "out.safetensors")
    assert is_whole(folder)


@pytest.mark.parametrize("what", ["model", "recipe", "calibration"])
def test_a_change_starts_over_and_says_so(folder: Path, what: str) -> None:
    with pytest.raises(Stop):
        make(folder, "out.safetensors", stop=stop_here)
    rounding = "gptq"
    if what == "model":
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["blocks.0.ffn.0.weight"][0, 0] += 0.01
        save_file(tensors, path)
    elif what == "recipe":
        rounding = "weighted"
    else:  # the same runs, but other values
        path = folder / "calibration.safetensors"
        statistics = load_statistics(path)
        for layer in statistics.inputs.values():
            layer.rows.mul_(1.5)
        save_statistics(statistics, path)
    report = make(folder, "out.safetensors", rounding)
    assert any("were not used" in note for note in report.notes)
    assert journals(folder) == []
    assert verify_checkpoint(folder / "out.safetensors", folder / "model.safetensors").ok


def test_two_runs_do_not_share_a_journal(folder: Path) -> None:
    target = folder / "out.safetensors"

    def second_run() -> None:
        with pytest.raises(FileError, match="another run writes"):
            make(folder, target.name)
        assert remove_resumable(target) == 0
        raise Stop

    with pytest.raises(Stop):
        make(folder, target.name, stop=second_run)
    (journal,) = journals(folder)
    assert describe_kept(target).startswith(f"finished layers are kept in {journal} (")
    assert remove_resumable(target) > 0 and describe_kept(target) == ""


if __name__ == "__main__":  # a run that dies as if it was killed
    make(Path(sys.argv[1]), "out.safetensors", stop=lambda: os._exit(9))
