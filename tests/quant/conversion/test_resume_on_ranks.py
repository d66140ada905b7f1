"""Ranks that were stopped go on from what each of them finished, even with other ranks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.conversion.report import ConversionReport
from nvfp4_foundry.quant.files.resumable import describe_kept
from nvfp4_foundry.quant.ranks.alone import ALONE, Ranks
from nvfp4_foundry.quant.sources import open_source

from tests.helpers.calibrated_toy import save_calibrated
from tests.helpers.conversions import plan_of
from tests.helpers.on_ranks import RULES, in_threads
from tests.quant.conftest import ToyModel

TARGET = "out.safetensors"


class StoppedError(Exception):
    """The first rank is stopped."""


@pytest.fixture
def folder(tmp_path: Path, toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a model, its calibration, and what an undisturbed run makes of them."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # files tell when they were made
    save_calibrated(toy_model, tmp_path)
    make(tmp_path, ALONE, "whole.safetensors")
    return tmp_path


def make(folder: Path, ranks: Ranks, name: str = TARGET, stop: bool = False) -> ConversionReport:
    """Convert the model; with ``stop``, until each rank has finished a layer."""

    def on_progress(done: int, total: int, text: str) -> None:
        until = time.monotonic() + 30
        while stop and sum(path.stat().st_size > 0 for path in journals(folder)) < ranks.size:
            assert time.monotonic() < until
            time.sleep(0.01)
        if stop:
            raise StoppedError

    with open_source(folder / "model.safetensors") as source:
        return convert(
            source,
            plan_of(source, RULES, rounding="gptq"),
            folder / name,
            statistics=load_statistics(folder / "calibration.safetensors"),
            ranks=ranks,
            resume=True,
            on_progress=on_progress,
        )


def on_ranks(folder: Path, size: int, stop: bool = False) -> list[Any]:
    if size == 1:
        return [make(folder, ALONE, stop=stop)]
    return in_threads(size, lambda ranks: make(folder, ranks, stop=stop), machines="aaaa")[:-1]


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.resumable"))


@pytest.mark.parametrize("after", [1, 2, 4])
def test_any_number_of_ranks_goes_on(folder: Path, after: int) -> None:
    first, *_ = on_ranks(folder, 3, stop=True)
    assert isinstance(first, StoppedError)
    kept = journals(folder)
    assert len(kept) == 3 and not (folder / TARGET).exists()
    assert all(str(path) in describe_kept(folder / TARGET) for path in kept)
    reports = on_ranks(folder, after)
    notes = {note for report in reports for note in report.notes if "earlier run" in note}
    (note,) = notes  # all ranks tell the same
    finished = int(note.split()[0])
    assert 3 <= finished < len(reports[0].layers)
    assert all(report.layers == reports[0].layers for report in reports)
    assert (folder / TARGET).read_bytes() == (folder / "whole.safetensors").read_bytes()
    assert not list(folder.glob(".*"))


def test_what_is_inherited_is_kept_if_the_next_run_is_stopped_too(folder: Path) -> None:
    on_ranks(folder, 3, stop=True)
    on_ranks(folder, 2, stop=True)
    assert len(journals(folder)) == 3
    (report,) = on_ranks(folder, 1)
    assert any("from an earlier run" in note for note in report.notes)
    assert (folder / TARGET).read_bytes() == (folder / "whole.safetensors").read_bytes()
    assert not list(folder.glob(".*"))
