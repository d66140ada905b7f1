"""``nvfp4 mix``: budgets and formats as options, files never lost, a recipe that works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.reports.pictures.palette import LIGHT
from PIL import Image

from tests.helpers.command_line import run, run_json
from tests.helpers.made_up_sensitivity import save_made_up

TINY = str(MODEL_PATH)


@pytest.fixture
def sensitivity(tmp_path: Path) -> Path:
    return save_made_up(tmp_path / "sensitivity.json", TINY, {"nvfp4": 0.1, "float8_e4m3fn": 0.03})


@pytest.fixture
def mix(sensitivity: Path) -> tuple[object, ...]:
    return ("mix", TINY, "--sensitivity", sensitivity, "--preset", "auto")


def test_a_saved_mix_quantizes_to_its_predicted_size(
    mix: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, target = tmp_path / "mix.json", tmp_path / "out.safetensors"
    code, found = run_json(capsys, *mix, "--budget", "size=6MB", "--output", recipe)
    assert code == 0 and 5_900_000 < found["mix"]["bytes"] <= 6_000_000
    assert found["budget"] == {
        "size": 6_000_000,
        "bits": None,
        "error": None,
        "layer_error": None,
        "four_bit": 0.0,
    }
    assert found["mix"]["error"] <= min(
        p["error"] for p in found["frontier"] if p["bytes"] <= found["mix"]["bytes"]
    )
    code, plan = run_json(capsys, "plan", TINY, "--recipe", recipe)
    planned = {la["name"]: la["format"] for la in found["plan"]["layers"]}
    assert code == 0 and planned == {la["name"]: la["format"] for la in plan["layers"]}
    assert run(capsys, "quantize", TINY, target, "--recipe", recipe, "--rounding", "max")[0] == 0
    _, summary = run_json(capsys, "inspect", target)
    stored = {la["name"]: la["format"] for la in summary["layers"]}
    mixed = [name for name, fmt in planned.items() if fmt in ("nvfp4", "float8_e4m3fn")]
    assert len(mixed) == 40 and all(stored[name] == planned[name] for name in mixed)
    assert len({planned[name] for name in mixed}) == 2


def test_budgets(mix: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> None:
    _, own = run_json(capsys, *mix)
    assert own["budget"]["size"] == own["preset"]["bytes"] >= own["mix"]["bytes"]
    _, by_bits = run_json(capsys, *mix, "--budget", "bits=6")
    assert 5.9 < by_bits["mix"]["bits"] <= 6
    options = ("--budget", "error=50%", "--formats", "nvfp4, float8_e4m3fn")
    _, by_error = run_json(capsys, *mix, *options)
    assert 0.48 < by_error["mix"]["error"] <= 0.5
    assert set(by_error["mix"]["counts"]) == {"nvfp4", "float8_e4m3fn"}


def test_text_and_picture(
    mix: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "frontier.png"
    code, out, _ = run(capsys, *mix, "--budget", "size=6MB", "--plot", plot)
    assert code == 0
    assert "budget  size 6.000 MB" in out and "preset wan2.2-14b: 6.5 MB" in out
    assert "the sensitivity was not probed" in out  # no shift of the output was measured
    assert out.count("this mix") == 1 and f"wrote {plot}" in out
    with Image.open(plot) as picture:
        assert picture.size == (1000, 640)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {LIGHT.curve, LIGHT.mark, LIGHT.other, LIGHT.background} <= colours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "size=4.2"), "unit"),
        (("--budget", "bits=few"), "bits=5.5"),
        (("--budget", "error=7"), "error=7%"),
        (("--formats", "nvfp4,int3"), "int3"),
        (("--plot", "frontier.jpg"), ".png"),
        (("--output", "same.png", "--plot", "same.png"), "is named for two outputs"),
        (("--output", TINY, "--overwrite"), "is one of the input files"),
    ],
)
def test_bad_usage(
    mix: tuple[object, ...],
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, error = run(capsys, *mix, *options)
    assert code == 2 and message in error


def test_a_folder_that_is_not_there(
    mix: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, *mix, "--output", "no-such-folder/mix.json")
    assert code == 1 and "the folder no-such-folder does not exist" in error


def test_out_of_reach_is_1(mix: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, *mix, "--budget", "size=1MB")
    assert code == 1 and "out of reach" in error and "Traceback" not in error


def test_another_models_sensitivity_is_refused(
    sensitivity: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(sensitivity.read_text())
    data["fingerprint"]["shapes"]["blocks.9.ffn.0"] = [8, 8]
    sensitivity.write_text(json.dumps(data))
    code, _, error = run(capsys, "mix", TINY, "--sensitivity", sensitivity, "--preset", "auto")
    assert code == 1 and "different model" in error and "blocks.9.ffn.0" in error


def test_nothing_is_replaced_unasked(
    mix: tuple[object, ...], sensitivity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, plot = tmp_path / "mix.json", tmp_path / "frontier.png"
    for path, option in ((recipe, "--output"), (plot, "--plot")):
        path.write_text("precious")
        code, _, error = run(capsys, *mix, option, path)
        assert code == 1 and "--overwrite" in error and path.read_text() == "precious"
    assert run(capsys, *mix, "--output", recipe, "--plot", plot, "--overwrite")[0] == 0
    assert json.loads(recipe.read_text())["name"] == "wan2.2-14b-mix"
    assert Image.open(plot).format == "PNG"
    before = sensitivity.read_bytes()
    assert run(capsys, *mix, "--output", sensitivity, "--overwrite")[0] == 2
    again = (*mix[:4], "--recipe", recipe, "--output", recipe, "--overwrite")
    assert run(capsys, *again)[0] == 2
    assert sensitivity.read_bytes() == before


def test_libraries_do_not_write_into_the_json() -> None:
    program = (
        "import os\n"
        "from nvfp4_foundry.quant.cli.library_output import drop_output_of_libraries\n"
        "print('before')\n"
        "drop_output_of_libraries()\n"
        "os.write(1, b'noise')\n"
        "print('after \\u00e9')\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode("utf-8").split() == ["before", "after", "é"]
