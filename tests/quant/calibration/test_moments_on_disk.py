"""Second moments on disk: beside their calibration, after copies, merges and damage."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    LayerStatistics,
    delete_moments,
    load_statistics,
    merge,
    moments_folder,
    save_statistics,
)
from nvfp4_foundry.quant.calibration.moments import InputMoments
from nvfp4_foundry.quant.errors import CalibrationError
from safetensors.torch import load_file, save_file

from tests.helpers.moments_by_hand import BIG, Observed, gathered


@pytest.fixture
def saved(observe: Callable[..., Observed], tmp_path: Path) -> Path:
    path = tmp_path / "cal.safetensors"
    settings = CollectorSettings(rows_per_layer=180, moments_budget_bytes=BIG)
    statistics, _ = observe(3, ActivationCollector(settings))
    save_statistics(statistics, path)
    return path


def test_round_trip_beside_the_statistics(saved: Path) -> None:
    loaded = load_statistics(saved)
    folder = moments_folder(saved)
    assert folder == saved.with_name("cal.moments")
    assert len(list(folder.iterdir())) == 4 * 2
    for layer in loaded.inputs.values():
        assert layer.moments is not None and len(layer.moments.parts) == 2
        assert torch.isfinite(layer.moments.load().hessian).all()
    assert loaded.held_out_rows("q").from_other_runs


def test_saving_elsewhere_takes_them_along(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other" / "copy.safetensors"
    copy.parent.mkdir()
    save_statistics(load_statistics(saved), copy)
    for file in itertools.chain(moments_folder(saved).iterdir(), [saved]):
        file.unlink()
    moments = load_statistics(copy).layers["q"].moments
    assert moments is not None and moments.load().tokens == moments.tokens


def test_lost_files_leave_less_to_go_by(saved: Path) -> None:
    whole = load_statistics(saved).layers["q"].moments
    assert whole is not None
    victim = whole.parts[0].path
    assert victim is not None
    victim.unlink()
    rest = load_statistics(saved).layers["q"].moments
    assert rest is not None and len(rest.parts) == 1
    with pytest.raises(CalibrationError, match=victim.name):
        whole.load()


def test_damaged_files_are_named(saved: Path) -> None:
    moments = load_statistics(saved).layers["q"].moments
    assert moments is not None
    path = moments.parts[1].path
    assert path is not None
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CalibrationError, match=rf"{path.name}.*[Cc]alibrate again"):
        moments.load()


@pytest.mark.parametrize("width", [1040, 2320])
def test_bands_of_earlier_versions_add_up_with_new_ones(width: int, tmp_path: Path) -> None:
    """Earlier versions stored bands of 1024 rows. The sums are the same, bit for bit."""
    torch.manual_seed(5)
    new = [gathered(torch.randn(20, width), run=run, folder=tmp_path) for run in ("a", "b")]
    assert new[0].path is not None
    whole = load_file(new[0].path)
    bands = [whole.pop(f"hessian.{i}") for i in range(-(-width // 256))]
    assert sum(band.numel() for band in bands) <= width * (width + 256) / 2
    lower = torch.cat([torch.nn.functional.pad(b, (0, width - b.shape[1])) for b in bands])
    hessian = torch.where(lower == 0, lower.T, lower)
    for index, start in enumerate(range(0, width, 1024)):
        stop = min(start + 1024, width)
        whole[f"hessian.{index}"] = hessian[start:stop, :stop].contiguous()
    save_file(whole, tmp_path / "old.safetensors")
    old = replace(new[0], path=tmp_path / "old.safetensors")
    mixed, plain = InputMoments((old, new[1])).load(), InputMoments(tuple(new)).load()
    assert torch.equal(mixed.hessian, plain.hessian)
    residuals = mixed.with_residual().residual, plain.with_residual().residual
    assert residuals[0] is not None and torch.equal(*residuals)


def test_a_file_without_some_rows_is_damaged(tmp_path: Path) -> None:
    part = gathered(torch.randn(20, 300), folder=tmp_path)
    assert part.path is not None
    tensors = load_file(part.path)
    del tensors["hessian.1"]
    save_file(tensors, part.path)
    with pytest.raises(CalibrationError, match="width 300 are damaged: rows are missing"):
        InputMoments((part,)).load()


def test_merging_adds_parts_and_renumbers_rows(
    observe: Callable[..., Observed], saved: Path
) -> None:
    settings = CollectorSettings(rows_per_layer=64, moments_budget_bytes=BIG)
    other, _ = observe(1, ActivationCollector(settings), seed=1)
    mine = load_statistics(saved)
    both, reverse = merge(mine, other), merge(other, mine)
    for name, layer in both.layers.items():
        a, b, c = (s.layers[name].moments for s in (mine, other, reverse))
        assert layer.moments and a and b and c
        assert layer.moments.tokens == a.tokens + b.tokens == c.tokens
        ids = {run.id: index for index, run in enumerate(both.runs)}
        for source in (mine, other):
            original = source.layers[name]
            known = {
                row.numpy().tobytes(): ids[source.runs[run].id]
                for row, run in zip(original.rows, original.row_run, strict=True)
            }
            for row, run in zip(layer.rows, layer.row_run, strict=True):
                assert known.get(row.numpy().tobytes(), run) == run


def test_statistics_of_the_first_version_load(
    saved: Path, sample_statistics: Callable[..., CalibrationStatistics]
) -> None:
    import json

    import safetensors.torch
    from nvfp4_foundry.quant.calibration.storage import METADATA_KEY

    tensors = safetensors.torch.load_file(saved)
    with safetensors.safe_open(saved, "pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    header["version"] = 1
    for entry in header["inputs"].values():
        del entry["moments"]
    tensors = {name: t for name, t in tensors.items() if not name.endswith("row_run")}
    safetensors.torch.save_file(tensors, saved, {METADATA_KEY: json.dumps(header)})
    layer = load_statistics(saved).layers["q"]
    assert layer.moments is None
    np.testing.assert_array_equal(layer.row_run, -1)
    assert not load_statistics(saved).held_out_rows("q").from_other_runs


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CalibrationError, match=r"Hessians: .*cannot make the folder"):
        gathered(torch.randn(4, 16), folder=blocked / "inside")
    assert os.listdir(tmp_path) == ["file"]


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    part = gathered(torch.randn(4, 16), folder=tmp_path / "new")
    assert part.path is not None
    assert part.path.stat().st_mode == plain.stat().st_mode


def test_a_renamed_statistics_file_keeps_its_hessians(saved: Path) -> None:
    renamed = saved.rename(saved.with_name("good.safetensors"))
    lost = gathered(
        torch.randn(4, 16), folder=moments_folder(saved)
    )  # does not belong to a calibration file
    whole = {part for la in load_statistics(renamed).inputs.values() for part in moment_ids(la)}
    assert len(whole) == 8
    delete_moments(saved)
    assert {file.stem for file in moments_folder(saved).iterdir()} == whole and lost.id not in whole
    renamed.unlink()
    delete_moments(saved)
    assert not moments_folder(saved).exists()
    delete_moments(saved)  # again, with nothing there


def moment_ids(layer: LayerStatistics) -> list[str]:
    return [part.id for part in layer.moments.parts] if layer.moments else []


def test_a_full_disk_leaves_no_tokens_for_the_next_run(
    observe: Callable[..., Observed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments that could not be written must not count in a later run."""
    settings = CollectorSettings(0, moments_budget_bytes=BIG, moments_folder=tmp_path / "m")
    collector = ActivationCollector(settings)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space")))
        with pytest.raises(CalibrationError, match="the disk is full"):
            observe(1, collector)
    statistics, _ = observe(2, collector)  # the first of them is held out
    last = statistics.runs[-1].id
    for layer in statistics.inputs.values():
        assert layer.moments is not None and layer.moments.runs == {last}
        assert layer.moments.tokens <= 4 * 2 * 30  # no more than there were in that run
