"""Logs of patched ComfyUI installs: each line counts once, and notes name bad lines."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nvfp4_foundry.quant.calibration import (
    CalibrationStatistics,
    decide_scales,
    load_statistics,
    merge,
    parse_policy,
    save_statistics,
)
from nvfp4_foundry.quant.calibration.activation_log import read_activation_log
from nvfp4_foundry.quant.calibration.import_log import import_activation_log
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

WIDTH = 16
MODEL = ModelFingerprint(
    shapes=dict.fromkeys(("b.0.q", "b.0.k", "b.0.o", "b.1.q", "head"), (16, 16)), probe={}
)
AMAX = {"b.0.q": [2.5, 7.25, 3.0], "b.0.k": [2.5, 7.25, 3.0], "b.0.o": [0.5, 0.25, 0.125]}


def line(layer: str, amax: float, fmt: str = "nvfp4", shape: str = "(6, 16)") -> str:
    """Return a line as the patch of convert_nvfp4 writes it: the scale is always amax / 2688."""
    return f"{fmt}\tdynamic\t{layer}\t{amax / 2688:.6f}\t{amax:.6f}\t{shape}\n"


def log_text(prefix: str = "", fmt: str = "nvfp4") -> str:
    return "".join(
        line(prefix + name, values[step], fmt) for step in range(3) for name, values in AMAX.items()
    )


def write(tmp_path: Path, text: str, suffix: str = "txt") -> Path:
    path = tmp_path / f"scales.{suffix}"
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress,
    }  # fmt: skip
    path.write_bytes(pack.get(suffix, bytes)(text.encode()))
    return path


def imported(path: Path, **options: bool) -> CalibrationStatistics:
    return import_activation_log(path, MODEL, **options).statistics


@pytest.mark.parametrize("suffix", ["txt", "gz", "xz", "bz2"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "_orig_mod."])
def test_every_line_is_a_call(tmp_path: Path, suffix: str, prefix: str) -> None:
    statistics = imported(write(tmp_path, log_text(prefix), suffix))
    assert list(statistics.layers) == ["b.0.k", "b.0.o", "b.0.q"]
    for name, values in AMAX.items():
        layer = statistics.layers[name]
        np.testing.assert_array_equal(layer.call_amax, np.array(values, np.float32))
        assert (layer.calls, layer.tokens, layer.in_features) == (3, 18, WIDTH)
        assert layer.tokens_used == 0 and len(layer.rows) == 0
    decisions = decide_scales(parse_policy("amax*4"), statistics, MODEL.shapes)
    assert decisions["b.0.q"].scale_for(2688.0) == 4 * 7.25 / 2688
    assert not decisions["head"].is_static
    assert statistics.model_calls == 3


def test_a_scale_is_never_taken_for_an_amax(tmp_path: Path) -> None:
    """The patch divides by 2688 for float8 layers, too."""
    statistics = imported(write(tmp_path, log_text(fmt="float8_e4m3fn")))
    assert statistics.layers["b.0.q"].amax == 7.25
    assert statistics.runs[0].settings["formats"] == {"float8_e4m3fn": 9}


def test_earlier_logs_have_five_columns(tmp_path: Path) -> None:
    text = "".join(row.partition("\t")[2] for row in log_text().splitlines(keepends=True))
    assert imported(write(tmp_path, text)).layers["b.0.q"].amax == 7.25


def test_layers_with_equal_inputs_share_them(tmp_path: Path) -> None:
    statistics = imported(write(tmp_path, log_text()))
    assert statistics.layers["b.0.q"] is statistics.layers["b.0.k"]
    assert statistics.layers["b.0.q"].input_id == "b.0.k"
    assert statistics.layers["b.0.o"].input_id == "b.0.o"
    text = log_text() + "".join(line("b.1.q", amax) for amax in AMAX["b.0.q"])
    other_parent = imported(write(tmp_path, text))
    assert other_parent.layers["b.1.q"].input_id == "b.1.q"
    other_shape = log_text() + line("b.0.q", 1.0) + line("b.0.k", 1.0, shape="(7, 16)")
    assert imported(write(tmp_path, other_shape)).layers["b.0.q"].input_id == "b.0.q"


def test_it_can_be_saved_merged_and_is_never_counted_twice(tmp_path: Path) -> None:
    path = write(tmp_path, log_text())
    statistics = imported(path)
    save_statistics(statistics, tmp_path / "s.safetensors")
    again = load_statistics(tmp_path / "s.safetensors")
    assert again.summary() == statistics.summary()
    packed = imported(write(tmp_path, log_text(), "gz"))
    with pytest.raises(CalibrationError, match="count twice"):
        merge(again, packed)
    more = imported(write(tmp_path, log_text() + line("b.0.o", 99.0), "xz"))
    both = merge(again, more)
    assert both.layers["b.0.o"].amax == 99.0 and both.layers["b.0.o"].calls == 7


def test_merging_keeps_the_rows_of_a_calibration(sample_statistics, tmp_path: Path) -> None:
    model = ModelFingerprint(dict.fromkeys("qkvo", (WIDTH, WIDTH)), probe={})
    real = replace(sample_statistics(rows=8), fingerprint=model)
    text = line("q", 50.0) + line("k", 50.0) + line("v", 50.0)
    log = import_activation_log(write(tmp_path, text), real.fingerprint).statistics
    both = merge(real, log)
    assert both.rows_per_layer == real.rows_per_layer
    assert both.layers["q"].rows.equal(real.layers["q"].rows)
    assert both.layers["q"].rows.dtype == real.layers["q"].rows.dtype
    assert both.layers["q"].amax == 50.0
    assert both.layers["q"] is both.layers["v"]


def test_provided_lines_tell_nothing(tmp_path: Path) -> None:
    provided = "nvfp4\tprovided\tb.0.q\t0.500000\t-\t(6, 16)\n"
    both = import_activation_log(write(tmp_path, provided + log_text()), MODEL)
    assert both.statistics.layers["b.0.q"].amax == 7.25
    assert any(
        "1 lines were skipped: their layers have a static scale" in note for note in both.notes
    )
    with pytest.raises(CalibrationError, match="log a checkpoint without input_scale"):
        imported(write(tmp_path, provided))


def test_not_finite_calls_are_kept_as_such(tmp_path: Path) -> None:
    statistics = imported(write(tmp_path, log_text() + line("b.0.o", float("nan"))))
    assert statistics.layers["b.0.o"].nonfinite_calls == 1
    assert not decide_scales(parse_policy("amax"), statistics, ["b.0.o"])["b.0.o"].is_static


BAD = ["nvfp4\tdynamic\tb.0.q\t0.1\n", "x" * 200 + "\n", "a\tb\tc\td\te\tf\n",
       line("b.0.q", 1.0, shape="6, 16"), line("b.0.q", -1.0), "nvfp4\tdynamic\t\t1\t1\t(6, 16)\n",
       "nvfp4\tdynamic\tb.0.q\t0.1\tloud\t(6, 16)\n", "\x00\xff\n"]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_few_bad_lines_are_skipped_and_named(tmp_path: Path, bad: str) -> None:
    result = import_activation_log(write(tmp_path, line("b.0.q", 1.0) + bad + log_text()), MODEL)
    assert result.statistics.layers["b.0.q"].calls == 4
    assert any(n.startswith("1 lines cannot be read") and "line 2" in n for n in result.notes)


def test_many_bad_lines_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"8 of 17 lines .* line 10"):
        imported(write(tmp_path, log_text() + "".join(BAD)))
    with pytest.raises(CalibrationError, match="the log is empty"):
        imported(write(tmp_path, "\n\n"))


def test_damaged_archives_and_missing_files_are_named(tmp_path: Path) -> None:
    for suffix in ("gz", "xz", "bz2"):
        path = write(tmp_path, log_text() * 50, suffix)
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(CalibrationError, match=path.name):
            imported(path)
    with pytest.raises(CalibrationError, match=r"gone\.txt"):
        imported(tmp_path / "gone.txt")


def test_another_model_is_refused(tmp_path: Path) -> None:
    wide = line("b.0.q", 1.0, shape="(6, 32)")
    with pytest.raises(CalibrationError, match=r"inputs of b\.0\.q have width 32 .* takes 16"):
        imported(write(tmp_path, log_text() + wide))
    with pytest.raises(CalibrationError, match=r"1 of 4 layers .* b\.0\.kk; .* nearest .* b\.0\.k"):
        imported(write(tmp_path, log_text() + line("b.0.kk", 1.0)))
    with pytest.raises(CalibrationError, match="1 of 1 layers"):
        imported(write(tmp_path, line("b.0.kk", 1.0)), ignore_unknown=True)


def test_layers_of_a_text_encoder_can_be_left_out(tmp_path: Path) -> None:
    text = log_text() + "".join(line(f"transformer.{i}.q", 9.0) for i in range(5))
    result = import_activation_log(write(tmp_path, text), MODEL, ignore_unknown=True)
    assert set(result.statistics.layers) == set(AMAX)
    assert any("does not have them: transformer.0.q" in note for note in result.notes)


def test_a_log_of_the_first_calls_only_is_warned_of(tmp_path: Path) -> None:
    few, many = log_text(), log_text() * 2
    assert "warning: no layer has more than 3 calls" in import_activation_log(
        write(tmp_path, few), MODEL
    ).notes[-1]  # fmt: skip
    notes = import_activation_log(write(tmp_path, many), MODEL).notes
    assert not any("warning" in note for note in notes)


def test_long_logs_take_four_bytes_a_line(tmp_path: Path) -> None:
    log = read_activation_log(write(tmp_path, log_text() * 2000, "xz"), MODEL.shapes)
    assert log.lines == 18_000
    assert sum(la.amax.itemsize * len(la.amax) for la in log.layers.values()) == 4 * log.lines


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize(
    ("content", "reason"), [(b"x", "line of over"), (b"\n", "the log is empty")]
)
def test_small_files_that_expand_to_much_are_not_read_whole(
    tmp_path: Path, suffix: str, content: bytes, reason: str
) -> None:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"log{suffix}"
    path.write_bytes(pack(content * (32 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(CalibrationError, match=reason):
            read_activation_log(path, ())
        assert tracemalloc.get_traced_memory()[1] < 24 << 20  # what xz needs to unpack
    finally:
        tracemalloc.stop()
