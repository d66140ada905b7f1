"""``nvfp4 stats``: logs in, scales out, and a conversion that takes its scales from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.sources import open_source
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers.command_line import run, run_json

AMAX = 3.5
Q, FFN = "blocks.1.self_attn.q", "blocks.0.ffn.0"
NVFP4 = ("--preset", "all", "--rounding", "max")


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


def imported(capsys: pytest.CaptureFixture[str], log: Path) -> Path:
    target = log.with_name("from_log.safetensors")
    options = ("--import-log", log, "--model", MODEL_PATH, "--output", target)
    code, out, error = run(capsys, "stats", *options)
    assert code == 0, error
    assert "warning: no layer has more than 2 calls" in out and f"wrote {target}" in out
    return target


def test_an_imported_log_gives_static_scales(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statistics = imported(capsys, log)
    assert load_statistics(statistics).amax(Q) == AMAX
    out = tmp_path / "o.safetensors"
    assert run(capsys, "quantize", MODEL_PATH, out, *NVFP4, "--stats", statistics)[0] == 0
    assert float(load_file(out)[f"{Q}.input_scale"]) == pytest.approx(4 * AMAX / 2688)


def test_exported_scales_come_back_in_a_conversion(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statistics, scales = imported(capsys, log), tmp_path / "scales.json"
    code, summary = run_json(
        capsys, "stats", statistics, "--export-input-scales", scales, "--headroom", "2"
    )
    assert code == 0 and summary["notes"] == ["46 layers get a static scale"]
    assert json.loads(scales.read_text())[Q] == 2 * AMAX / 2688
    out = tmp_path / "o.safetensors"
    rules = ("--set", f"{FFN}=float8_e4m3fn", "--input-scale", f"file={scales}")
    code, _, error = run(capsys, "quantize", MODEL_PATH, out, *NVFP4, *rules)
    assert code == 0, error
    made = load_file(out)
    assert float(made[f"{Q}.input_scale"]) == pytest.approx(2 * AMAX / 2688)
    assert float(made[f"{FFN}.input_scale"]) == pytest.approx(2 * AMAX / 448)
    with safe_open(out, "pt") as file:
        assert str(tmp_path) not in "".join(file.metadata().values())
    # and from that checkpoint itself
    again = tmp_path / "again.safetensors"
    copied = ("--set", f"{Q}=float8_e4m3fn", "--input-scale", f"file={out}")
    assert run(capsys, "quantize", MODEL_PATH, again, *NVFP4, *copied)[0] == 0
    assert float(load_file(again)[f"{Q}.input_scale"]) == pytest.approx(2 * AMAX / 448)


def test_unknown_layers_of_a_file_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scales = tmp_path / "scales.json"
    scales.write_text(json.dumps({"blocks.0.ffn.9": 0.1}))
    out = tmp_path / "o.safetensors"
    options = ("--input-scale", f"file={scales}")
    code, _, error = run(capsys, "quantize", MODEL_PATH, out, *NVFP4, *options)
    assert code == 1 and "nearest names are blocks.0.ffn.2" in error and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give statistics files"),
        (("--import-log", "LOG"), "go together"),
        (("STATS", "--model", MODEL_PATH), "go together"),
        (("STATS", "--export-input-scales", "STATS"), "is what is read here"),
        (("STATS", "--export-input-scales", "x.json", "--output", "x.json"), "cannot hold both"),
        (("STATS", "--export-input-scales", "x.json", "--for", "bf16"), "take no input_scale"),
        (("STATS", "--export-input-scales", "x.json", "--input-scale", "loud"), "dynamic"),
        (("--import-log", "LOG", "--model", MODEL_PATH, "--output", "LOG"), "is what is read"),
    ],
)
def test_bad_usage(
    arguments: tuple[object, ...], message: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"LOG": log, "STATS": imported(capsys, log), "x.json": log.with_name("x.json")}
    given = [names.get(str(argument), argument) for argument in arguments]
    code, _, error = run(capsys, "stats", *given)
    assert code == 2 and message in error
    assert not names["x.json"].exists()


def test_nothing_is_overwritten_unless_told(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statistics, scales = imported(capsys, log), log.with_name("s.json")
    scales.write_text("precious")
    export = ("stats", statistics, "--export-input-scales", scales)
    assert run(capsys, *export)[0] == 1 and scales.read_text() == "precious"
    assert run(capsys, *export, "--overwrite")[0] == 0 and Q in scales.read_text()
