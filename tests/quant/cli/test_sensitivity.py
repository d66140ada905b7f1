"""``nvfp4 sensitivity``: what it prints and writes, and what it refuses to replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    load_statistics,
    save_statistics,
)
from nvfp4_foundry.quant.sensitivity.artefact import load_sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from PIL import Image
from safetensors.torch import save_file

from tests.helpers import command_line


@pytest.fixture
def files(toy_model: torch.nn.Module, tmp_path: Path) -> tuple[Path, Path]:
    """A model file, and a file of statistics that lack its first layer."""
    model, stats = tmp_path / "model.safetensors", tmp_path / "stats.safetensors"
    save_file(toy_model.state_dict(), model)
    names = {n for n, m in toy_model.named_modules() if isinstance(m, torch.nn.Linear)}
    collector = ActivationCollector()
    with torch.no_grad(), collector.observe(toy_model, names - {"embed"}):
        collector.begin_call(0.5, [0])
        toy_model(torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(1)))
    fingerprint = StateDictSource(toy_model.state_dict()).fingerprint()
    save_statistics(collector.snapshot(fingerprint), stats)
    return model, stats


def run(
    capsys: pytest.CaptureFixture[str], files: tuple[Path, Path], output: Path, *more: object
) -> tuple[int, str, str]:
    model, stats = files
    options = ("--calibration", stats, "--output", output, *more)
    return command_line.run(capsys, "sensitivity", model, *options)


def test_table_file_and_picture(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, plot = tmp_path / "sens.json", tmp_path / "map.png"
    code, out, err = run(capsys, files, output, "--plot", plot)
    assert (code, err) == (0, "")
    with open_source(files[0]) as source:
        wanted = measure_sensitivity(source, load_statistics(files[1]))
    assert load_sensitivity(output) == wanted

    head, _, table = out.partition("\n\n")
    assert "unknown in nvfp4, so not known to be safe: embed" in head
    rows = [line.split() for line in table.splitlines()[2:] if not line.startswith("wrote")]
    assert rows[0][0] == "embed" and "unknown" in rows[0]
    assert rows[-1][:3] == ["head", "20x32", "-"]  # cannot be NVFP4
    errors = [float(row[4].rstrip("%")) for row in rows[1:-1]]
    assert len(errors) == 18 and errors == sorted(errors, reverse=True)
    first = wanted.candidates(rows[1][0])["nvfp4"]
    assert rows[1][2:5] == [f"{v:.3%}" for v in (first.weight, first.w4a16, first.w4a4)]
    assert f"wrote {output}" in out and f"wrote {plot}" in out
    with Image.open(plot) as picture:
        assert picture.format == "PNG" and min(picture.size) > 200


def test_json_formats_and_rounding(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sens.json"
    code, out, _ = run(
        capsys, files, output, "--formats", "float8_e4m3fn, nvfp4", "--rounding", "max", "--json"
    )
    data = json.loads(out)
    assert code == 0 and data["rounding"] == "max"
    assert data.pop("unknown") == {"float8_e4m3fn": ["embed"], "nvfp4": ["embed"]}
    assert data == json.loads(output.read_text(encoding="utf-8"))
    assert load_sensitivity(output).formats == ("float8_e4m3fn", "nvfp4")


@pytest.mark.parametrize("name", ["sens.json", "map.png"])
def test_nothing_is_replaced_unasked(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    output, plot = tmp_path / "sens.json", tmp_path / "map.png"
    (tmp_path / name).write_text("mine")
    code, out, err = run(capsys, files, output, "--plot", plot)
    assert (code, out) == (1, "") and f"{name} exists; use --overwrite" in err
    assert (tmp_path / name).read_text() == "mine"
    assert sum(path.exists() for path in (output, plot)) == 1

    assert run(capsys, files, output, "--plot", plot, "--overwrite")[0] == 0
    assert load_sensitivity(output).layers
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


def test_what_is_read_is_never_written(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [path.read_bytes() for path in files]
    for path in files:
        code, _, err = run(capsys, files, path, "--overwrite")
        assert code == 2 and "is one of the input files" in err
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--formats", "nvfp4,fp5"), "unknown format 'fp5'"),
        (("--formats", "bf16"), "bf16 quantizes nothing"),
        (("--rounding", "best"), "unknown rounding 'best'"),
        (("--plot", "map.jpg"), "must end in .png"),
    ],
)
def test_bad_usage(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    code, _, err = run(capsys, files, tmp_path / "sens.json", *more)
    assert code == 2 and message in err
    assert not (tmp_path / "sens.json").exists()


def test_a_folder_that_is_not_there(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, files, tmp_path / "s.json", "--plot", tmp_path / "nowhere" / "m.png")
    assert code == 1 and "nowhere does not exist" in err and not (tmp_path / "s.json").exists()


def test_one_name_for_both_is_refused(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, files, tmp_path / "a.png", "--plot", tmp_path / "a.png")
    assert code == 2 and "is named for two outputs" in err


def test_statistics_of_another_model(
    files: tuple[Path, Path],
    toy_model: torch.nn.Module,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_file({n: t * 1.5 for n, t in toy_model.state_dict().items()}, files[0])
    code, _, err = run(capsys, files, tmp_path / "sens.json")
    assert code == 1 and "different model" in err


def test_help_says_where_to_probe_the_whole_model(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(command_line.run(capsys, "sensitivity", "--help")[1].split())
    assert "in ComfyUI only" in text and "nvfp4 sensitivity" in text.split("example:")[1]
