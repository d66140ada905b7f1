"""Sensitivities: unknown values stay unknown, and files are read back unchanged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nvfp4_foundry.quant.errors import CalibrationError, FileError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.sensitivity.artefact import (
    CandidateErrors,
    LayerSensitivity,
    Sensitivity,
    load_sensitivity,
    save_sensitivity,
)

NVFP4 = CandidateErrors(weight=0.08, w4a16=0.05, w4a4=0.1)
FLOAT8 = CandidateErrors(weight=0.02, w4a16=0.01, w4a4=0.02)


@pytest.fixture
def fingerprint() -> ModelFingerprint:
    return ModelFingerprint(shapes={"q": (16, 16), "o": (16, 16)}, probe={"q.bias": (0.5, 1.0)})


@pytest.fixture
def sensitivity(fingerprint: ModelFingerprint) -> Sensitivity:
    """Return two layers that share an input, in two formats; for o only the weight is known."""
    unknown = CandidateErrors(weight=0.09)
    layers = {
        "q": LayerSensitivity("q", (16, 16), "q", {"nvfp4": NVFP4, "float8_e4m3fn": FLOAT8}),
        "o": LayerSensitivity("o", (16, 16), None, {"nvfp4": unknown}),
    }
    return Sensitivity(fingerprint, "weighted", layers)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1])
def test_what_is_no_error_is_unknown(value: float) -> None:
    for name in ("weight", "w4a16", "w4a4"):
        errors = replace(NVFP4, **{name: value})
        assert getattr(errors, name) is None
        others = {"weight", "w4a16", "w4a4"} - {name}
        assert all(getattr(errors, other) == getattr(NVFP4, other) for other in others)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_one_bad_sigma_makes_the_average_unknown(value: float) -> None:
    assert CandidateErrors(latent_by_sigma={1.0: 0.3, 0.5: 0.4}).latent == pytest.approx(
        math.sqrt((0.09 + 0.16) / 2)
    )
    assert CandidateErrors(latent_by_sigma={1.0: 0.3, 0.5: value}).latent is None
    assert CandidateErrors().latent is None


def test_cost_is_the_squared_output_error(sensitivity: Sensitivity) -> None:
    assert sensitivity.cost("q", "nvfp4") == pytest.approx(0.01)
    assert sensitivity.cost("o", "nvfp4") is None
    assert sensitivity.cost("q", "mxfp8") is None
    assert sensitivity.cost("nowhere", "nvfp4") is None
    assert not sensitivity.has_latents
    assert sensitivity.formats == ("nvfp4", "float8_e4m3fn")
    assert sensitivity.unknown("nvfp4") == ("o",)
    assert sensitivity.unknown("float8_e4m3fn") == ()


def test_formats_are_in_the_order_of_the_layer_that_takes_most(sensitivity: Sensitivity) -> None:
    narrow = LayerSensitivity("k", (20, 16), None, {"float8_e4m3fn": FLOAT8})
    layers = {"k": narrow, **sensitivity.layers}
    assert replace(sensitivity, layers=layers).formats == ("nvfp4", "float8_e4m3fn")
    assert replace(sensitivity, layers={}).formats == ()


def test_latents_replace_output_errors_and_scale_to_other_formats(sensitivity: Sensitivity) -> None:
    probed = sensitivity.with_latents("nvfp4", {"q": {0.9: 0.03, 0.4: 0.04}})
    assert probed.has_latents and not sensitivity.has_latents
    shift = (0.03**2 + 0.04**2) / 2
    assert probed.cost("q", "nvfp4") == pytest.approx(shift)
    assert probed.cost("q", "float8_e4m3fn") == pytest.approx(shift * (0.02 / 0.1) ** 2)
    assert probed.unknown("nvfp4") == ("o",)  # an output error is not a shift


def test_new_latents_leave_no_old_ones(sensitivity: Sensitivity) -> None:
    first = sensitivity.with_latents("nvfp4", {"q": {0.9: 0.03}, "o": {0.9: 0.05}})
    again = first.with_latents("nvfp4", {"o": {0.5: 0.01}})
    assert again.candidates("q")["nvfp4"] == NVFP4
    assert again.candidates("o")["nvfp4"].latent_by_sigma == {0.5: 0.01}
    assert first.cost("o", "nvfp4") == pytest.approx(0.0025)


@pytest.mark.parametrize(("layer", "name"), [("o", "float8_e4m3fn"), ("v", "nvfp4")])
def test_latents_of_what_was_not_measured_are_refused(
    sensitivity: Sensitivity, layer: str, name: str
) -> None:
    with pytest.raises(CalibrationError, match=f"not measured for {layer} in {name}"):
        sensitivity.with_latents(name, {layer: {0.5: 0.1}})


def test_round_trip(sensitivity: Sensitivity, tmp_path: Path) -> None:
    probed = sensitivity.with_latents("nvfp4", {"q": {0.9: 0.03, 0.123456: 0.04}})
    for value in (sensitivity, probed):
        save_sensitivity(value, tmp_path / "a.json")
        loaded = load_sensitivity(tmp_path / "a.json")
        assert loaded == value
        assert list(loaded.layers) == list(value.layers)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def edited(sensitivity: Sensitivity, path: Path, change: Any) -> Path:
    """Save a sensitivity after ``change`` has edited its JSON."""
    data = json.loads(json.dumps(sensitivity.to_json()))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_nan_in_a_file_is_unknown(sensitivity: Sensitivity, tmp_path: Path) -> None:
    def change(data: Any) -> None:
        data["layers"][0]["candidates"]["nvfp4"].update(w4a4=math.nan, w4a16=None)
        data["layers"][0]["candidates"]["nvfp4"]["latent_by_sigma"] = [[0.5, math.nan]]

    loaded = load_sensitivity(edited(sensitivity, tmp_path / "a.json", change))
    assert loaded.candidates("q")["nvfp4"] == CandidateErrors(weight=0.08)
    assert loaded.cost("q", "nvfp4") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(kind="other"), "not a sensitivity file"),
        (lambda d: d.update(version=2), "newer version"),
        (lambda d: d.pop("version"), "damaged"),
        (lambda d: d.pop("layers"), "damaged"),
        (lambda d: d.update(fingerprint=3), "damaged"),
        (lambda d: d["layers"].append("q"), "damaged"),
        (lambda d: d["layers"][0].pop("shape"), "damaged"),
        (lambda d: d["layers"][0]["candidates"].update(nvfp4=[]), "damaged"),
        (lambda d: d["layers"][0]["candidates"]["nvfp4"].update(w4a4="much"), "damaged"),
        (lambda d: d["layers"][0]["candidates"]["nvfp4"].update(latent_by_sigma=[1]), "damaged"),
    ],
)
def test_damaged_files_are_named(
    sensitivity: Sensitivity, tmp_path: Path, change: Any, message: str
) -> None:
    path = edited(sensitivity, tmp_path / "broken.json", change)
    with pytest.raises(CalibrationError, match=rf"broken\.json.*{message}"):
        load_sensitivity(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"other\.json is not a sensitivity file"):
        load_sensitivity(path)


def test_missing_file_and_folder(sensitivity: Sensitivity, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.json: cannot read"):
        load_sensitivity(tmp_path / "none.json")
    with pytest.raises(FileError, match="does not exist; create it"):
        save_sensitivity(sensitivity, tmp_path / "nowhere" / "a.json")


def test_another_model_is_refused(sensitivity: Sensitivity, fingerprint: ModelFingerprint) -> None:
    sensitivity.require_model(fingerprint)
    other = replace(fingerprint, shapes={"q": (16, 16), "o": (16, 32)})
    with pytest.raises(CalibrationError, match=r"different model: o is \(16, 16\)"):
        sensitivity.require_model(other)
