"""Calibrations that go on, without ComfyUI."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.nodes.calibration.live import LiveCalibration
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


def test_sessions_end_with_their_models_unless_they_know_more_than_their_files(
    tmp_path: Path,
) -> None:
    """Sampled rows of a large model take much memory, and ComfyUI runs for days."""

    def opened(name: str) -> CalibrationSession:
        path = tmp_path / f"{name}.safetensors"
        return open_session(name, path, BASE, CollectorSettings(8), start_over=False)

    def alive(session: weakref.ref[CalibrationSession]) -> bool:
        gc.collect()
        return session() is not None

    model, ends = torch.nn.Sequential(torch.nn.Linear(32, 8)), {}
    for name in ("finished", "news"):
        session = opened(name)
        with session.observe(model, {}), torch.no_grad():
            model(torch.randn(4, 32))
        if name == "finished":
            session.finish()
        ends[name] = weakref.ref(session)
    in_use = opened("in use")
    del session
    last = weakref.ref(opened("last"))
    assert not alive(ends["finished"]) and alive(ends["news"]) and alive(last)
    assert opened("in use") is in_use
    assert opened("news") is ends["news"]() and not alive(last)
    assert len(opened("news").finish().runs) == len(opened("finished").finish().runs) == 1


class Cancelled(BaseException):
    """Like ComfyUI's interruption, this is not an `Exception`."""


MODEL = torch.nn.Sequential(torch.nn.Linear(32, 8))
DECK = ("one", "two", "three", "four")


def new_session(path: Path) -> CalibrationSession:
    """Return a session as a new process makes it."""
    session = CalibrationSession("cal", path, BASE, CollectorSettings(8))
    session.continue_from_disk()
    session.set_prompts(DECK)
    return session


def sample(session: CalibrationSession, number: int, stop: bool = False, seed: int = 1) -> None:
    """Sample one prompt of the deck in three steps, or two of them."""
    with torch.no_grad(), session.observe(MODEL, {"steps": 3}, f"{number} with seed {seed}"):
        for step in range(3):
            session.begin_call(1.0 - step / 3, [0])
            MODEL(torch.full((1, 4, 32), 1.0 + number))
            if stop and step == 1:
                raise Cancelled
            session.end_step(step + 1)


def cancel(session: CalibrationSession, at: int) -> None:
    """Sample the deck and cancel it in this prompt."""
    for number in range(at):
        sample(session, number)
    with pytest.raises(Cancelled):
        sample(session, at, stop=True)


def prompts(statistics: CalibrationStatistics) -> list[str]:
    return ["".join(run.prompts) for run in statistics.runs]


def test_a_deck_cancelled_in_its_third_prompt_keeps_two_and_counts_each_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cal.safetensors"
    session = new_session(path)
    cancel(session, at=2)
    assert [run.prompts for run in session.left_out] == [("three",)]
    assert prompts(load_statistics(path)) == ["one", "two"]  # a restart would lose nothing
    for number in range(4):  # queued again, from the first prompt
        sample(session, number)
    statistics = session.finish()
    assert prompts(statistics) == list(DECK)
    assert statistics.amax("0") == 4.0 and not any(run.interrupted for run in statistics.runs)
    for number in range(4):  # the whole deck again counts, as before
        sample(session, number)
    assert prompts(session.finish()) == [*DECK, *DECK]


def test_a_deck_that_is_cancelled_twice_and_repeats_a_prompt(tmp_path: Path) -> None:
    session = new_session(tmp_path / "cal.safetensors")
    session.set_prompts(("one", "one", "two", "two"))
    samplings = (0, 0, 1, 1)
    for finished in (1, 0, 3):
        for number in samplings[:finished]:
            sample(session, number)
        with pytest.raises(Cancelled):
            sample(session, samplings[finished], stop=True)
    for number in samplings:
        sample(session, number)
    assert prompts(session.finish()) == ["one", "one", "two", "two"]
    assert len(session.left_out) == 2  # not the first prompt, which was known already


def test_a_cancelled_deck_with_another_seed_counts_in_full(tmp_path: Path) -> None:
    session = new_session(tmp_path / "cal.safetensors")
    cancel(session, at=2)
    for number in range(4):
        sample(session, number, seed=2)
    assert prompts(session.finish()) == ["one", "two", *DECK]


def test_interrupted_runs_stay_aside_over_a_restart_until_they_are_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "cal.safetensors"
    cancel(new_session(path), at=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cal.interrupted", "cal.safetensors"]
    later = new_session(path)
    assert [run.interrupted for run in later.left_out] == [True]
    assert later.finish().amax("0") == 3.0
    later.takes_in_interrupted = True
    taken = later.finish()
    assert taken.amax("0") == 4.0 and [r.interrupted for r in taken.runs] == [False] * 3 + [True]
    assert later.left_out == () and [p.name for p in tmp_path.iterdir()] == ["cal.safetensors"]
    assert [r.interrupted for r in load_statistics(path).runs] == [False] * 3 + [True]


def test_only_an_interrupted_run_is_no_calibration(tmp_path: Path) -> None:
    session = new_session(tmp_path / "cal.safetensors")
    cancel(session, at=0)
    assert not session.has_news
    with pytest.raises(CalibrationError, match="has seen no sampling"):
        session.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["cal.interrupted"]


def test_starting_over_and_deleting_take_the_interrupted_runs_along(tmp_path: Path) -> None:
    path = tmp_path / "cal.safetensors"
    session = new_session(path)
    cancel(session, at=1)
    path.unlink()
    sample(session, 0)
    assert session.left_out == () and prompts(session.finish()) == ["one"]
    cancel(session, at=0)
    session.set_aside()
    names = sorted(p.suffix for p in tmp_path.iterdir())
    assert names == [".interrupted", ".safetensors"] and not path.exists()
    assert new_session(path).left_out == ()


def test_an_error_is_never_replaced_by_one_of_saving(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "cal.safetensors"
    session = CalibrationSession("cal", path, BASE, CollectorSettings(8))
    cancel(session, at=1)  # the folder does not exist: Cancelled, not CalibrationError
    assert len(session.left_out) == 1


def test_live_details(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two per second while it samples, and one at each end."""
    now = [0.0]
    monkeypatch.setattr(LiveCalibration.__init__, "__defaults__", (lambda: now[0],))
    session, sent = new_session(tmp_path / "cal.safetensors"), []
    session.show_with(sent.append)
    for number in range(4):
        with torch.no_grad(), session.observe(MODEL, {"steps": 20}, f"{number}"):
            for step in range(20):
                now[0] += 0.1
                session.begin_call(0.5, [0])
                MODEL(torch.full((1, 4, 32), 2.0 ** min(number, 1)))
                session.end_step(step + 1)
    sampling = [d for d in sent if d["state"] == "sampling"]
    done = [d for d in sent if d["state"] == "done"]
    assert len(done) == 4 and 12 <= len(sampling) <= 17
    first, last = sampling[0], done[-1]
    assert (first["prompt"], first["prompts_done"], first["prompts"]) == ("one", 0, 4)
    assert (last["prompt"], last["prompts_done"], last["steps_done"]) == ("four", 4, 20)
    assert (last["layers_seen"], last["layers"], last["runs"], last["left_out"]) == (1, 1, 4, 0)
    assert [d["growing"] for d in done] == [0, 1, 0, 0]
    assert "more prompts would change little" in last["verdict"]
    cancel(session, at=0)
    assert (sent[-1]["state"], sent[-1]["left_out"], sent[-1]["prompts_done"]) == (
        "interrupted", 1, 0,
    )  # fmt: skip
