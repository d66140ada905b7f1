"""Calibrations that go on, without ComfyUI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.nodes.calibration.sessions import CalibrationSession, open_session
from nvfp4_foundry.quant.calibration import (
    CalibrationStatistics,
    CollectorSettings,
    load_statistics,
    moments_folder,
    save_statistics,
)
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

NAME = "blocks.0.q"
BASE = ModelFingerprint(
    {NAME: (2, 2)}, {f"{NAME}.bias": (0.5, 1.0)}, {f"{NAME}.weight": (1.0, 2.0)}
)
WITH_LORA = replace(BASE, matrices={f"{NAME}.weight": (1.03, 2.0)})
OTHER = replace(BASE, probe={f"{NAME}.bias": (0.25, 1.0)})


def continued(path: Path, saved: ModelFingerprint, model: ModelFingerprint) -> CalibrationSession:
    """Continue a calibration that was saved of one model with another."""
    settings = CollectorSettings()
    save_statistics(CalibrationStatistics({}, saved, (), settings.rows_per_layer, ("test",)), path)
    session = CalibrationSession("name", path, model, settings)
    session.continue_from_disk()
    return session


def test_runs_with_and_without_a_lora_count_as_those_of_the_first(tmp_path: Path) -> None:
    assert continued(tmp_path / "a", BASE, WITH_LORA).fingerprint == BASE
    assert continued(tmp_path / "b", WITH_LORA, BASE).fingerprint == WITH_LORA
    assert continued(tmp_path / "c", BASE, BASE).fingerprint == BASE


def test_a_calibration_saved_before_matrices_were_probed_takes_the_new_fingerprint(
    tmp_path: Path,
) -> None:
    assert continued(tmp_path / "a", replace(BASE, matrices={}), WITH_LORA).fingerprint == WITH_LORA


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="same architecture, other weights"):
        continued(tmp_path / "a", BASE, OTHER)


def test_deleting_the_file_forgets_it_but_a_renamed_one_keeps_its_hessians(tmp_path: Path) -> None:
    path, model = tmp_path / "cal.safetensors", torch.nn.Sequential(torch.nn.Linear(32, 8))
    settings = CollectorSettings(8, moments_budget_bytes=2**20, moments_folder=moments_folder(path))
    session = CalibrationSession("cal", path, BASE, settings)

    def sample() -> CalibrationStatistics:
        with torch.no_grad(), session.observe(model, {}):
            model(torch.randn(50, 32))
        return session.finish()

    sample()
    renamed = path.rename(tmp_path / "good.safetensors")
    assert len(sample().runs) == 1
    for name in (path, renamed):
        moments = load_statistics(name).layers["0"].moments
        assert moments is not None and moments.load().tokens == moments.tokens
    renamed.unlink()
    path.unlink()
    sample()
    assert len(list(moments_folder(path).iterdir())) == 1


def test_other_settings_continue_with_what_was_gathered(tmp_path: Path) -> None:
    """Nobody has taken the result yet: it is saved before a session with other settings begins."""
    path, model = tmp_path / "cal.safetensors", torch.nn.Sequential(torch.nn.Linear(32, 8))
    before, after = CollectorSettings(8), CollectorSettings(16)
    session = open_session("cal", path, BASE, before, start_over=False)
    with session.observe(model, {}), torch.no_grad():
        model(torch.randn(4, 32))
    other = open_session("cal", path, BASE, after, start_over=False)
    assert other is not session and len(load_statistics(path).runs) == 1
    with other.observe(model, {}), torch.no_grad():
        model(torch.randn(4, 32))
    assert len(other.finish().runs) == 2
