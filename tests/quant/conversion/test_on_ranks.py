"""Several ranks write the same files as one, and tell the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import RankError
from nvfp4_foundry.quant.ranks.alone import Ranks
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.calibrated_toy import save_calibrated
from tests.helpers.conversions import Toy, plan_of
from tests.helpers.on_ranks import in_threads, make, torchrun
from tests.quant.conftest import ToyModel

PREFIX = "model.diffusion_model."


@pytest.fixture
def folder(
    tmp_path: Path, toy_model: ToyModel, toy_wan: Toy, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A model, its calibration with Hessians, and a full checkpoint."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # the files tell when they were made
    save_calibrated(toy_model, tmp_path)
    beside = {f"first_stage_model.{n}.weight": torch.randn(8, 4) for n in range(5)}
    model = {PREFIX + name: tensor for name, tensor in toy_wan(blocks=2).items()}
    save_file({**model, **beside}, tmp_path / "whole.safetensors")
    return tmp_path


def check(folder: Path, ranks: int) -> None:
    """Compare what these ranks made with what one makes."""
    alone, made = folder / "alone", folder / str(ranks)
    alone.mkdir()
    make(folder, alone)
    files = {f"{name}.safetensors" for name in ("max", "gptq", "whole")}
    told = {f"told-{rank}.json" for rank in range(ranks)}
    assert {path.name for path in made.iterdir()} == files | told
    for name in files:
        assert (made / name).read_bytes() == (alone / name).read_bytes(), name
    expected = (alone / "told-0.json").read_text()
    assert '"rounding": "gptq"' in expected
    assert all((made / name).read_text() == expected for name in told)


def test_three_processes_make_the_same_bytes_and_reports_as_one(folder: Path) -> None:
    (folder / "3").mkdir()
    process = torchrun(3, "tests.helpers.on_ranks", folder, folder / "3")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    check(folder, 3)


def test_two_ranks_make_the_same_bytes_and_reports_as_one(folder: Path) -> None:
    (folder / "2").mkdir()
    answers = in_threads(2, lambda ranks: make(folder, folder / "2", ranks))
    assert answers == [None, None, []]
    check(folder, 2)


def test_a_rank_that_does_not_see_the_file_is_named(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    zero, one, _ = in_threads(2, lambda ranks: make(folder, folder / "ab"[ranks.rank], ranks))
    assert isinstance(one, RankError) and "must share the folder of the target" in str(one)
    assert str(zero) == f"rank 1: {one}"
    assert not [*(folder / "a").iterdir(), *(folder / "b").iterdir()]


def test_ranks_with_other_recipes_are_refused(folder: Path) -> None:
    def work(ranks: Ranks) -> None:
        with open_source(folder / "model.safetensors") as source:
            plan = plan_of(source, ("* = nvfp4", "* = float8_e4m3fn")[ranks.rank])
            convert(source, plan, folder / "out.safetensors", ranks=ranks)

    zero, one, _ = in_threads(2, work)
    assert "give all ranks the same model, recipe and calibration" in str(one)
    assert str(zero) == f"rank 1: {one}"
    assert not list(folder.glob("*out*"))
