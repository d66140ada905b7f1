"""How to use LoRAs with the result is said once in the text, the view and the card."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.conversion.lora_advice import BYPASS_NODE, lora_advice
from nvfp4_foundry.quant.conversion.report import ConversionReport
from nvfp4_foundry.quant.reports.card import model_card
from nvfp4_foundry.quant.reports.conversion import describe_conversion
from nvfp4_foundry.quant.reports.view.conversion import conversion_view
from nvfp4_foundry.quant.sources import StateDictSource

from tests.helpers.conversions import Toy, plan_of


def converted(toy: Toy, path: Path, rules: str) -> ConversionReport:
    source = StateDictSource(toy())
    return convert(source, plan_of(source, rules), path)


def test_the_advice_is_given_once(tmp_path: Path, toy_wan: Toy) -> None:
    path = tmp_path / "a.safetensors"
    report = converted(toy_wan, path, "blocks.* @ any = nvfp4")
    view = conversion_view(report)
    assert describe_conversion(report).count(BYPASS_NODE) == 1
    assert [m.level for m in view.messages if BYPASS_NODE in m.text] == ["note"]
    assert view.text.count(BYPASS_NODE) == 1
    assert model_card(inspect_checkpoint(path), path.name).count(BYPASS_NODE) == 1
    assert report.advice == (lora_advice(["nvfp4"]),)


def test_unquantized_files_need_none(tmp_path: Path, toy_wan: Toy) -> None:
    path = tmp_path / "a.safetensors"
    report = converted(toy_wan, path, "* = bf16")
    assert report.advice == ()
    assert BYPASS_NODE not in model_card(inspect_checkpoint(path), path.name)


@pytest.mark.parametrize(
    ("formats", "has_number"),
    [(("nvfp4", "bf16"), True), (("float8_e4m3fn",), False), (("int8_convrot", "keep"), False)],
)
def test_the_loss_is_named_where_it_was_measured(
    formats: tuple[str, ...], has_number: bool
) -> None:
    assert ("4 to 14%" in lora_advice(formats)) is has_number
    assert lora_advice(["keep", "bf16"]) == ""
