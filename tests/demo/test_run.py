"""The demo from start to end on few digits and steps: its files and figures."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo import run
from nvfp4_foundry.demo.model import MODEL_PATH, load_model
from nvfp4_foundry.demo.picture import LABEL_WIDTH
from nvfp4_foundry.demo.quantized import QuantizedLinear, load_quantized
from nvfp4_foundry.demo.result import DemoResult, VariantResult
from nvfp4_foundry.demo.run import (
    CALIBRATION_SEEDS,
    COMPARISON_SEED,
    VARIANTS,
    Variant,
    relative_error,
    run_demo,
)
from nvfp4_foundry.demo.sampling import sample
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.errors import FileError, SourceError
from PIL import Image, ImageFont
from safetensors.torch import load_file

IMAGES, STEPS = 10, 5


@pytest.fixture(scope="module")
def printed() -> tuple[io.StringIO, io.StringIO]:
    """Standard output and standard error of the demo."""
    return io.StringIO(), io.StringIO()


@pytest.fixture(scope="module")
def demo(
    tmp_path_factory: pytest.TempPathFactory, printed: tuple[io.StringIO, io.StringIO]
) -> DemoResult:
    folder = tmp_path_factory.mktemp("demo")
    with redirect_stdout(printed[0]), redirect_stderr(printed[1]):
        return run_demo(folder, images=IMAGES, calibration_images=10, steps=STEPS)


@pytest.fixture(scope="module")
def variants(demo: DemoResult) -> dict[str, VariantResult]:
    return {variant.name: variant for variant in demo.variants}


def test_every_file_is_where_the_result_says_and_no_other(demo: DemoResult) -> None:
    files = [Path(name) for name in demo.files()]
    assert all(file.stat().st_size > 0 for file in files)
    assert {file.parent for file in files} == {Path(demo.folder)}
    assert set(Path(demo.folder).iterdir()) == set(files)


def test_checkpoints_match_their_source(demo: DemoResult) -> None:
    for variant in demo.variants:
        verdict = verify_checkpoint(variant.path, MODEL_PATH)
        assert verdict.problems == ()
        assert verdict.quantized == 40


def test_bits_per_weight_follow_from_the_formats(variants: dict[str, VariantResult]) -> None:
    # 4.5 bits and one fp32 scale per layer; the smallest layers have 256 x 256 weights.
    assert variants["nvfp4_static"].bits_per_weight == pytest.approx(4.5, abs=0.001)
    formats = inspect_checkpoint(variants["mixed_static"].path).counts()
    assert formats["nvfp4"] == 14
    assert formats["float8_e4m3fn"] == 26
    assert 4.5 < variants["mixed_static"].bits_per_weight < 8


def test_static_scales_are_four_times_the_calibrated_amax(demo: DemoResult) -> None:
    statistics = load_statistics(demo.calibration)
    summaries = {v.name: inspect_checkpoint(v.path) for v in demo.variants}
    assert all(layer.input_scale is None for layer in summaries["nvfp4_max"].layers)
    for name in ("nvfp4_max_static", "nvfp4_static", "mixed_static"):
        quantized = [la for la in summaries[name].layers if la.name in statistics.layers]
        assert len(quantized) == 40
        for layer in quantized:
            divisor = {"nvfp4": 2688.0, "float8_e4m3fn": 448.0}[layer.format]
            amax = statistics.amax(layer.name)
            assert amax is not None
            assert layer.input_scale == pytest.approx(4 * amax / divisor, rel=1e-6)


def test_calibration_saw_both_branches_of_every_step(demo: DemoResult) -> None:
    statistics = load_statistics(demo.calibration)
    assert demo.calibration_calls == statistics.model_calls == STEPS * len(CALIBRATION_SEEDS)
    assert statistics.coverage().partial == {}
    for layer in statistics.layers.values():
        assert layer.calls == statistics.model_calls
        assert sorted(set(layer.branch.tolist())) == [0, 1]
        assert len(set(layer.sigma.tolist())) == STEPS


def test_comparison_is_on_noise_calibration_has_not_seen(demo: DemoResult) -> None:
    seeds = [run.settings["seed"] for run in load_statistics(demo.calibration).runs]
    assert seeds == list(CALIBRATION_SEEDS)
    assert COMPARISON_SEED not in seeds


def test_errors_are_of_the_expected_order(variants: dict[str, VariantResult]) -> None:
    for name in ("nvfp4_max", "nvfp4_static"):
        assert 0.03 < variants[name].error_w4a16 < 0.12
        assert variants[name].error_w4a16 < variants[name].error_w4a4 < 0.25
    mixed, full = variants["mixed_static"], variants["nvfp4_static"]
    assert mixed.error_w4a16 < mixed.error_w4a4
    assert mixed.error_w4a16 < full.error_w4a16
    assert mixed.error_w4a4 < 0.8 * full.error_w4a4


def test_a_static_scale_costs_little_over_a_dynamic_one(
    variants: dict[str, VariantResult],
) -> None:
    dynamic, static = variants["nvfp4_max"], variants["nvfp4_max_static"]
    assert dynamic.static_scales == 0
    assert static.static_scales == 40
    assert dynamic.error_w4a16 == static.error_w4a16
    assert static.error_w4a4 == pytest.approx(dynamic.error_w4a4, rel=0.25)


def test_weighted_rounding_beats_the_max_rule(variants: dict[str, VariantResult]) -> None:
    ours, theirs = variants["nvfp4_static"], variants["nvfp4_max_static"]
    assert ours.bits_per_weight == theirs.bits_per_weight
    assert ours.error_w4a16 < 0.85 * theirs.error_w4a16
    assert ours.error_w4a4 < theirs.error_w4a4


def test_digits_survive(demo: DemoResult) -> None:
    assert demo.reference_accuracy >= 0.9
    assert all(variant.accuracy >= 0.8 for variant in demo.variants)


def test_picture_has_a_row_per_variant_and_difference(demo: DemoResult) -> None:
    with Image.open(demo.picture) as picture:
        picture.load()
        # margins 20, labels 250, cells 48 apart by 6; heading 58; three pairs of rows under bf16
        width = 20 + 250 + IMAGES * 54 - 6 + 20
        height = 20 + 58 + 48 + len(VARIANTS) * (18 + 48 + 6 + 48) + 20
        assert picture.size == (width, height)
        assert len(picture.getcolors(maxcolors=1 << 20) or []) > 100


def test_report_is_of_the_mixed_variant(demo: DemoResult) -> None:
    html, data = (Path(name).read_text(encoding="utf-8") for name in demo.reports)
    report = json.loads(data)
    assert report["target"] == "tiny_wan_mixed_static.safetensors"
    assert report["recipe"] == "wan2.2-14b"
    assert report["warnings"] == []
    measured = [layer for layer in report["layers"] if layer["output_error_w4a4"] is not None]
    assert len(measured) == 40
    assert "blocks.3.ffn.2" in html


def test_result_as_text_and_json(demo: DemoResult) -> None:
    text = demo.to_text()
    data = json.loads(json.dumps(demo.to_json()))
    for variant, entry in zip(demo.variants, data["variants"], strict=True):
        line = next(line for line in text.splitlines() if line.startswith(variant.title))
        assert f"{variant.error_w4a16:.2%}" in line
        assert f"{variant.error_w4a4:.2%}" in line
        assert entry["error_w4a4"] == variant.error_w4a4
        assert entry["path"] == variant.path
    assert all(name in text for name in demo.files())
    assert max(map(len, text.splitlines()[:12])) <= 100


def test_quantized_model_holds_the_decoded_weights(variants: dict[str, VariantResult]) -> None:
    original = load_model()
    decoded = load_quantized(variants["nvfp4_max_static"].path, round_activations=False)
    for name, weight in original.state_dict().items():
        got = decoded.state_dict()[name]
        quantized = name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name
        if quantized:
            assert 0.05 < relative_error(got, weight) < 0.15
        else:
            assert torch.equal(got, weight)


def test_only_a_native_model_rounds_activations(variants: dict[str, VariantResult]) -> None:
    path = variants["mixed_static"].path
    scale = load_file(path)["blocks.1.ffn.0.input_scale"].item()
    native = load_quantized(path, round_activations=True)
    wrapped = {n: m for n, m in native.named_modules() if isinstance(m, QuantizedLinear)}
    assert len(wrapped) == 40
    layer = wrapped["blocks.1.ffn.0"]
    assert layer.rounding.input_scale == scale

    x = torch.randn(2, 3, 256, generator=torch.Generator().manual_seed(0))
    rounded = layer.rounding.format.emulate_activations(x.view(6, 256), scale).view(2, 3, 256)
    plain = load_quantized(path, round_activations=False).get_submodule("blocks.1.ffn.0")
    assert torch.equal(layer(x), plain(rounded))
    assert 0.05 < relative_error(rounded, x) < 0.15


def test_dynamic_scales_depend_on_the_call(variants: dict[str, VariantResult]) -> None:
    model = load_quantized(variants["nvfp4_max"].path, round_activations=True)
    together = sample(model, [3, 7], 5, steps=2)
    assert torch.equal(together, sample(model, [3, 7], 5, steps=2))
    layer = model.get_submodule("blocks.0.ffn.0")
    assert isinstance(layer, QuantizedLinear)
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    # A power of two moves the scale of the call and nothing else.
    assert torch.allclose(8 * (layer(x) - layer.bias), layer(8 * x) - layer.bias, atol=1e-4)


def test_quiet_says_nothing_and_other_files_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_text("mine")
    stale = tmp_path / "samples.png"
    stale.write_text("of a former demo")
    run_demo(tmp_path, quiet=True, images=1, calibration_images=1, steps=1)
    assert capsys.readouterr() == ("", "")
    assert mine.read_text() == "mine"
    assert stale.read_bytes().startswith(b"\x89PNG")


def test_steps_are_told_on_standard_error_only(
    demo: DemoResult, printed: tuple[io.StringIO, io.StringIO]
) -> None:
    out, err = (stream.getvalue() for stream in printed)
    assert out == ""
    for variant in demo.variants:
        assert f"quantizing: {variant.title}" in err


@pytest.mark.parametrize("name", ["MODEL_PATH", "DIGITS_PATH"])
def test_a_download_without_the_demo_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry's download leaves out the weights of the demo."""
    absent = tmp_path / "absent.safetensors"
    monkeypatch.setattr(run, name, absent)
    with pytest.raises(SourceError, match=r"not part of this download.*absent.*a clone of the"):
        run_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot make the folder"):
        run_demo(tmp_path / "file")


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_title_of_a_row_is_not_cut(variant: Variant) -> None:
    assert ImageFont.load_default(15).getlength(variant.title) < LABEL_WIDTH
