"""``nvfp4 stats import`` and ``export``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import (
    load_statistics,
)
from nvfp4_foundry.quant.sources import open_source
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers.command_line import run, run_json

ALL = ("--preset", "all", "--rounding", "max")
AMAX = 3.5
Q, FFN = "blocks.1.self_attn.q", "blocks.0.ffn.0"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of the tiny model in which every Linear received 3.5 at most."""
    lines = []
    with open_source(MODEL_PATH) as source:
        for name, info in source.tensors.items():
            if name.endswith(".weight") and len(info.shape) == 2:
                layer = name.removesuffix(".weight")
                for amax in (1.0, AMAX):
                    shape = (7, info.shape[1])
                    lines.append(f"nvfp4\tdynamic\t{layer}\t{amax / 2688:.6f}\t{amax:.6f}\t{shape}")
    path = tmp_path / "scales.log"
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(capsys: Capture, log: Path) -> Path:
    target = log.with_name("from_log.safetensors")
    options = ("--model", MODEL_PATH, "--output", target)
    code, out, error = run(capsys, "stats", "import", log, *options)
    assert code == 0, error
    assert "warning: no layer has more than 2 calls" in out and f"wrote {target}" in out
    return target


def test_an_imported_log_gives_static_scales(log: Path, tmp_path: Path, capsys: Capture) -> None:
    statistics = imported(capsys, log)
    assert load_statistics(statistics).amax(Q) == AMAX
    out = tmp_path / "o.safetensors"
    assert run(capsys, "quantize", MODEL_PATH, out, *ALL, "--calibration", statistics)[0] == 0
    assert float(load_file(out)[f"{Q}.input_scale"]) == pytest.approx(4 * AMAX / 2688)


def test_exported_scales_come_back_in_a_conversion(
    log: Path, tmp_path: Path, capsys: Capture
) -> None:
    statistics, scales = imported(capsys, log), tmp_path / "scales.json"
    code, summary = run_json(
        capsys, "stats", "export", statistics, "--output", scales, "--input-scale", "amax*2"
    )
    assert code == 0 and summary["notes"] == ["46 layers get a static scale"]
    assert json.loads(scales.read_text())[Q] == 2 * AMAX / 2688
    out = tmp_path / "o.safetensors"
    rules = ("--set", f"{FFN}=float8_e4m3fn", "--input-scale", f"file={scales}")
    code, _, error = run(capsys, "quantize", MODEL_PATH, out, *ALL, *rules)
    assert code == 0, error
    made = load_file(out)
    assert float(made[f"{Q}.input_scale"]) == pytest.approx(2 * AMAX / 2688)
    assert float(made[f"{FFN}.input_scale"]) == pytest.approx(2 * AMAX / 448)
    with safe_open(out, "pt") as file:
        assert str(tmp_path) not in "".join(file.metadata().values())
    # and from that checkpoint itself
    again = tmp_path / "again.safetensors"
    copied = ("--set", f"{Q}=float8_e4m3fn", "--input-scale", f"file={out}")
    assert run(capsys, "quantize", MODEL_PATH, again, *ALL, *copied)[0] == 0
    assert float(load_file(again)[f"{Q}.input_scale"]) == pytest.approx(2 * AMAX / 448)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show",), "the following arguments are required: FILE"),
        (("merge", "STATS"), "the following arguments are required: --output"),
        (("import", "LOG", "--output", "x.json"), "the following arguments are required: --model"),
        (("import", "LOG", "--model", MODEL_PATH, "--output", "LOG"), "is one of the input files"),
        (("export", "STATS"), "the following arguments are required: --output"),
        (("export", "STATS", "--output", "STATS"), "is one of the input files"),
        (("export", "STATS", "--output", "x.json", "--for", "bf16"), "take no input_scale"),
        (("export", "STATS", "--output", "x.json", "--input-scale", "loud"), "dynamic"),
    ],
)
def test_bad_usage(arguments: tuple[object, ...], message: str, log: Path, capsys: Capture) -> None:
    names = {"LOG": log, "STATS": imported(capsys, log), "x.json": log.with_name("x.json")}
    given = [names.get(str(argument), argument) for argument in arguments]
    code, _, error = run(capsys, "stats", *given)
    assert code == 2 and message in error
    assert not names["x.json"].exists()


def test_nothing_is_overwritten_unless_told(log: Path, capsys: Capture) -> None:
    statistics, scales = imported(capsys, log), log.with_name("s.json")
    scales.write_text("precious")
    export = ("stats", "export", statistics, "--output", scales)
    assert run(capsys, *export)[0] == 1 and scales.read_text() == "precious"
    assert run(capsys, *export, "--overwrite")[0] == 0 and Q in scales.read_text()
