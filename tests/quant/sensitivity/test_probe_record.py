"""A probe that was interrupted goes on where it was, and ends with the same numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics
from nvfp4_foundry.quant.errors import CalibrationError, FileError
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED, LatentProbe
from nvfp4_foundry.quant.sensitivity.probe_record import (
    ProbeRecord,
    ProbeRun,
    UnitShift,
    discard_oldest,
)
from nvfp4_foundry.quant.sources import StateDictSource
from torch import Tensor, nn

from tests.helpers.probing import FORMATS, random_input


class Interrupted(BaseException):
    """Like ComfyUI's interruption, this is not an `Exception`."""


def probed(
    probe: LatentProbe,
    model: nn.Module,
    path: Path,
    *,
    key: str = "key",
    seed: int = 3,
    stop_at: int | None = None,
) -> int:
    """Probe one sampling with a record; return how often the model ran beside the reference."""
    x, runs = random_input(seed), []

    def run() -> Tensor:
        runs.append(1)
        return model(x)

    def on_unit(done: int, total: int, run: ProbeRun) -> None:
        assert done < total == probe.runs and run[0] in FORMATS
        if done == stop_at:
            raise Interrupted

    with torch.no_grad():
        probe.probe(model, run, model(x), SAMPLED, on_unit, ProbeRecord(path, key))
    return len(runs)


@pytest.mark.parametrize("restart", [False, True])
def test_an_interrupted_probe_ends_with_the_same_numbers(
    toy_model: nn.Module, new: Callable[..., LatentProbe], tmp_path: Path, restart: bool
) -> None:
    whole, broken = new(), new()
    assert probed(whole, toy_model, tmp_path / "whole.json") == 27
    path = tmp_path / "broken.json"
    for stop_at in (0, 5, 20):
        with pytest.raises(Interrupted):
            probed(broken, toy_model, path, stop_at=stop_at)
        with pytest.raises(CalibrationError, match="no model call was probed"):
            broken.result()  # a partial sampling never counts
        broken = new() if restart else broken
    assert probed(broken, toy_model, path) == 7
    assert broken.result() == whole.result() and broken.calls == 1


def test_a_sampling_that_is_probed_again_replaces_its_former_self(
    toy_model: nn.Module, new: Callable[..., LatentProbe], tmp_path: Path
) -> None:
    """A deck that is cancelled in its second prompt and queued again."""
    deck, again = new(), new()
    for seed in (1, 2):
        probed(deck, toy_model, tmp_path / f"deck{seed}.json", key=f"{seed}", seed=seed)
    probed(again, toy_model, tmp_path / "1.json", key="1", seed=1)
    with pytest.raises(Interrupted):
        probed(again, toy_model, tmp_path / "2.json", key="2", seed=2, stop_at=9)
    assert again.calls == 1
    assert probed(again, toy_model, tmp_path / "1.json", key="1", seed=1) == 0
    assert probed(again, toy_model, tmp_path / "2.json", key="2", seed=2) == 18
    assert again.calls == 2 and again.result() == deck.result()


def test_records_of_other_samplings_are_replaced(
    toy_model: nn.Module, new: Callable[..., LatentProbe], tmp_path: Path
) -> None:
    path = tmp_path / "probe.json"
    probed(new(), toy_model, path)
    assert probed(new(), toy_model, path) == 0
    assert probed(new(), toy_model, path, key="other") == 27
    assert probed(new(), toy_model, path, key="other", seed=4) == 27  # another reference
    for damage in (path.read_bytes()[:-9], b"", b"[]", b'{"kind": "nvfp4_foundry.probe"}'):
        path.write_bytes(damage)
        assert probed(new(), toy_model, path) == 27


def test_shifts_survive_the_file_whatever_they_are(tmp_path: Path) -> None:
    shifts = {
        ("nvfp4", "a"): UnitShift(0.1 + 0.2, 1e-320),
        ("float8_e4m3fn", "a"): UnitShift(float("inf"), float("nan"), ("b", "c")),
    }
    record, reference = ProbeRecord(tmp_path / "a.json", "key"), torch.randn(3, 1000)
    assert record.begin(reference) == {}
    for run, shift in shifts.items():
        record.add(run, shift)
    again = ProbeRecord(tmp_path / "a.json", "key")
    assert repr(dict(again.begin(reference))) == repr(shifts)
    assert again.begin(reference * (1 + 1e-5)).keys() == shifts.keys()  # the last bits of a GPU
    assert again.begin(reference * 1.01) == {}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_is_gone_is_an_error_that_says_so(tmp_path: Path) -> None:
    record = ProbeRecord(tmp_path / "gone" / "a.json", "key")
    record.begin(torch.ones(4))
    with pytest.raises(FileError, match="does not exist; create it"):
        record.add(("nvfp4", "a"), UnitShift(1.0, 1.0))


def test_the_key_covers_what_decides_the_numbers(
    new: Callable[..., LatentProbe],
    source: StateDictSource,
    sensitivity: Sensitivity,
    statistics: CalibrationStatistics,
) -> None:
    probes = [
        new(),
        new(formats=("nvfp4",)),
        new(unit="layer"),
        new(statistics=None),
        LatentProbe(
            source,
            measure_sensitivity(source, statistics, FORMATS, rounding="mse"),
            formats=FORMATS,
            statistics=statistics,
        ),
    ]
    keys = [probe.key for probe in probes]
    assert len(set(keys)) == len(keys)
    assert new().key == keys[0]
    json.dumps(keys)


def test_only_the_latest_records_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.json"
        path.touch()
        os.utime(path, (number, number))
    discard_oldest(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3.json", "4.json"]
    discard_oldest(tmp_path, 2)
    assert len(list(tmp_path.iterdir())) == 2
