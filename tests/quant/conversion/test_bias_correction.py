"""A bias is corrected only if that is better on held-out inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.choose_encoding import bias_shift, choose_encoding
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.reports.conversion import conversion_headline
from nvfp4_foundry.quant.sources import SafetensorsFile
from safetensors.torch import load_file, save_file

from tests.helpers.observed_inputs import low_rank, observe, weight_of, white

NVFP4 = get_format("nvfp4")


def test_the_bias_makes_up_for_the_mean_error() -> None:
    """If inputs have a large mean, correcting the bias removes the mean output error."""
    observed = observe(low_rank(offset=3.0))
    weight = weight_of()
    kept = choose_encoding(weight, NVFP4, "mse", observed, None)
    chosen = choose_encoding(weight, NVFP4, "mse", observed, None, correct_bias=True)
    assert kept.bias_shift is None and chosen.bias_shift is not None
    assert chosen.bias_reason.startswith("corrected: ")
    assert kept.error is not None and chosen.error is not None
    assert chosen.error.w4a4 < kept.error.w4a4
    x = low_rank(offset=3.0)(99)
    decoded = NVFP4.decode(chosen.encoded.tensors, tuple(weight.shape))
    error = NVFP4.emulate_activations(x, None) @ decoded.T - x @ weight.T
    assert (error + chosen.bias_shift).mean(0).norm() < 0.3 * error.mean(0).norm()
    # The sign by hand: what is missing from the mean output is added.
    moments = observed.moments
    assert moments is not None and observed.means is not None
    torch.testing.assert_close(observed.means, (moments.mean, moments.mean_rounded))
    expected = moments.mean @ weight.T - moments.mean_rounded @ decoded.T
    torch.testing.assert_close(chosen.bias_shift, expected, rtol=1e-3, atol=1e-5)
    w4a16 = bias_shift(weight, decoded.__getitem__, get_format("nvfp4_w4a16"), observed.means)
    torch.testing.assert_close(w4a16, moments.mean @ (weight - decoded).T, rtol=1e-3, atol=1e-5)


def test_a_bias_is_not_judged_by_the_prompt_it_was_made_of() -> None:
    """The mean error of a context of two tokens, equal in all steps, says nothing on others."""

    def draw(seed: int) -> torch.Tensor:
        return low_rank(offset=0.5)(seed // 10)[:2].repeat(200, 1)

    for runs, judged in ((1, False), (2, True)):
        observed = observe(draw, runs=runs)
        chosen = choose_encoding(weight_of(), NVFP4, "mse", observed, None, correct_bias=True)
        assert ("another prompt must judge" not in chosen.bias_reason) == judged
        assert judged or chosen.bias_shift is None


def test_a_bias_that_would_not_help_is_kept() -> None:
    chosen = choose_encoding(weight_of(), NVFP4, "mse", observe(white), None, correct_bias=True)
    assert chosen.bias_shift is None and chosen.bias_reason.startswith("kept: ")
    for_max = choose_encoding(
        weight_of(), NVFP4, "max", observe(low_rank(offset=3.0)), None, correct_bias=True
    )
    assert for_max.bias_shift is None


def test_a_checkpoint_with_corrected_biases(
    toy: tuple[SafetensorsFile, CalibrationStatistics, Path], tmp_path: Path
) -> None:
    source, statistics, path = toy
    target = tmp_path / "out.safetensors"
    recipe = get_preset("all").build({})
    plan = make_plan(recipe, take_inventory(source))
    report = convert(source, plan, target, statistics=statistics)
    corrected = [la.name for la in report.layers if la.bias_digest]
    assert corrected and report.corrected_biases == len(corrected)
    assert f"{len(corrected)} biases corrected" in conversion_headline(report)
    stored, original = load_file(target), load_file(path)
    for layer in report.layers:
        name = f"{layer.name}.bias"
        assert stored[name].dtype == torch.bfloat16
        assert torch.equal(stored[name], original[name]) == (layer.name not in corrected)
    assert verify_checkpoint(target, path).problems == ()
    stored[f"{corrected[0]}.bias"][0] += 1
    with SafetensorsFile(target) as written:
        metadata = dict(written.metadata)
    save_file(stored, target, metadata)
    problems = verify_checkpoint(target, path).problems
    name = f"{corrected[0]}.bias"
    assert f"{name}: the tensor differs from the corrected bias that was written" in problems
    off = replace(plan, recipe=recipe.model_copy(update={"bias_correction": False}))
    report = convert(source, off, target, statistics=statistics, overwrite=True)
    assert report.corrected_biases == 0
    assert torch.equal(load_file(target)["blocks.0.a.bias"], original["blocks.0.a.bias"])


def test_the_bias_alone_does_not_load_the_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observe(low_rank(offset=3.0))
    moments = type(observed.statistics.moments)
    monkeypatch.setattr(moments, "load", lambda _: pytest.fail("loaded"))
    chosen = choose_encoding(weight_of(), NVFP4, "weighted", observed, None, correct_bias=True)
    assert chosen.bias_shift is not None
