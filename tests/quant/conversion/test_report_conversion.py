"""A report without a file is that of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nvfp4_foundry.quant.conversion.convert import convert, report_conversion
from nvfp4_foundry.quant.sources import StateDictSource

from tests.helpers.conversions import Toy, plan_of


def test_it_says_the_same(tmp_path: Path, toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)
    saved = convert(source, plan, tmp_path / "a.safetensors")
    alone = report_conversion(source, plan)
    assert replace(alone, seconds=0.0) == replace(saved, seconds=0.0, target="")
