"""The report of a conversion: numbers, text, JSON and HTML."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from nvfp4_foundry.quant.conversion.report import ConversionReport, LayerReport
from nvfp4_foundry.quant.reports.conversion import conversion_headline, describe_conversion
from nvfp4_foundry.quant.text import format_bytes, shorten, text_table

QUANTIZED = LayerReport(
    "blocks.0.q", "linear", (64, 32), "nvfp4", "rule 1: <all>", 4096, 1300,
    weight_error=0.0912, output_error_w4a16=0.051, output_error_w4a4=0.123, input_scale=0.0123,
    input_scale_reason="static", calls=12, tokens=345, activation_amax=33.0,
)  # fmt: skip
DYNAMIC = LayerReport(
    "blocks.1.q",
    "linear",
    (64, 32),
    "nvfp4",
    "rule 1",
    4096,
    1300,
    weight_error=0.09,
    runtime_scale="dynamic",
)
KEPT = LayerReport("norm", "norm", (64,), "keep", "no rule matches: keep", 128, 128)


@pytest.fixture
def report() -> ConversionReport:
    return ConversionReport(
        "in.safetensors", "out.safetensors", "mine & <yours>", "WAN", "max",
        (QUANTIZED, DYNAMIC, KEPT), warnings=("careful",), seconds=2.0,
        notes=("read so",),
    )  # fmt: skip


def test_totals(report: ConversionReport) -> None:
    assert (report.bytes_before, report.bytes_after) == (8320, 2728)
    assert report.counts() == {"nvfp4": 2}
    assert report.dynamic_layers == ("blocks.1.q",)


def test_json_is_the_whole_report(report: ConversionReport) -> None:
    data = json.loads(report.dumps())
    assert data == json.loads(json.dumps(report.to_json()))
    assert data["bytes_after"] == 2728
    assert data["formats"] == {"nvfp4": 2}
    assert data["dynamic_layers"] == ["blocks.1.q"]
    assert data["layers"][0]["weight_error"] == 0.0912
    assert data["layers"][0]["shape"] == [64, 32]
    assert data["layers"][2]["input_scale"] is None


def test_text(report: ConversionReport) -> None:
    text = describe_conversion(report)
    for line in (
        "in.safetensors -> out.safetensors",
        "layers      2 nvfp4",
        "size        8.3 kB -> 2.7 kB (33%)",
        "input_scale 1 static, 1 left to the runtime",
        "without a static scale: blocks.1.q",
        "note: read so",
        "warning: careful",
    ):
        assert line in text.splitlines()
    table = text.split("\n\n")[1].splitlines()
    row = table[2].split()
    assert row[0] == "blocks.0.q"
    assert row[5:] == ["kB", "9.12%", "5.10%", "12.30%", "0.0123", "33", "12"]
    assert "dynamic" in table[3]
    assert len({len(line) for line in table}) == 1
    assert "norm" not in describe_conversion(report, every_layer=False).split("\n\n")[1]


def test_a_model_in_memory() -> None:
    report = ConversionReport("MODEL", "", "all", "WAN", "max", ())
    assert conversion_headline(report).startswith("MODEL -> MODEL in memory")
    assert "size        0 B -> 0 B (0%)" in conversion_headline(report)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (8.38e9, "8.38 GB"),
     (28.58e12, "28580.00 GB")],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_shorten() -> None:
    assert shorten([]) == ""
    assert shorten("abc", 3) == "a, b, c"
    assert shorten("abcd", 3) == "a, b, c and 1 more"


def test_tables_are_aligned() -> None:
    assert text_table(["n", "size"], [["long name", "1"]]) == (
        "n          size\n---------------\nlong name     1"
    )


def test_the_short_table_has_what_is_quantized_even_without_an_error() -> None:
    """Layers taken from the source lose nothing, and are listed."""
    taken = replace(QUANTIZED, name="taken", weight_error=0.0, rounding="source")
    text = describe_conversion(
        ConversionReport("a", "b", "c", "WAN", "max", (taken, KEPT)), every_layer=False
    )
    assert "taken" in text and "norm" not in text
