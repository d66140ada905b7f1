"""The estimate of the max rule's error, compared with a conversion by the max rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nvfp4_foundry.quant.checkpoint.layer_record import overall_error
from nvfp4_foundry.quant.conversion.choose_encoding import choose_encoding
from nvfp4_foundry.quant.conversion.convert import quantize_to_memory
from nvfp4_foundry.quant.conversion.max_rule import SAMPLED_ROWS, estimate_max_rule
from nvfp4_foundry.quant.conversion.output_trial import OutputTrial, decode_with
from nvfp4_foundry.quant.formats import FORMATS, get_format
from nvfp4_foundry.quant.rounding import MaxRule, get_rounding
from nvfp4_foundry.quant.sources import StateDictSource

from tests.helpers.conversions import Toy, plan_of


def uneven(rows: int, columns: int) -> torch.Tensor:
    """Rows of different sizes, heavy tails, and the largest value in no sampled row."""
    values = torch.randn(rows, columns) * torch.logspace(-0.3, 0.3, rows).unsqueeze(1)
    values = values * (1 + 3 * (torch.rand(rows, columns) > 0.995))
    values[17, 3] = 3 * values.abs().max()
    return values.bfloat16()


@pytest.mark.parametrize("name", [n for n, fmt in FORMATS.items() if fmt.is_quantized])
def test_the_estimate_is_near_the_max_rule_over_all_rows(name: str) -> None:
    fmt, weight = get_format(name), uneven(1024, 256)
    inputs = torch.randn(48, 256) * torch.logspace(-1, 1, 256)
    trial = OutputTrial(weight, inputs, fmt, None)
    chosen = choose_encoding(weight, fmt, "mse", None, None)
    own = trial.measure(decode_with(fmt, chosen.encoded.tensors, (1024, 256)))
    assert own is not None
    estimate = estimate_max_rule(weight, fmt, chosen.encoded, chosen.rounding, trial, own.w4a16)
    plain = fmt.encode(weight, MaxRule(), measure_error=True)
    measured = trial.measure(decode_with(fmt, plain.tensors, (1024, 256)))
    assert measured is not None
    assert estimate.weight == pytest.approx(plain.relative_error, rel=0.05)
    assert estimate.w4a16 == pytest.approx(measured.w4a16, rel=0.1)


def test_a_weight_of_few_rows_is_not_estimated_but_measured() -> None:
    fmt, weight = get_format("nvfp4"), uneven(SAMPLED_ROWS, 64)
    encoded = fmt.encode(weight, get_rounding("mse"), measure_error=True)
    plain = fmt.encode(weight, MaxRule(), measure_error=True)
    estimate = estimate_max_rule(weight, fmt, encoded, "mse")
    assert estimate.weight == pytest.approx(plain.relative_error, rel=1e-4)
    assert estimate.weight_norm == pytest.approx(float(weight.float().norm()), rel=1e-5)
    assert estimate.w4a16 is None


def test_the_max_rule_itself_and_zeros_need_no_estimate() -> None:
    fmt, weight = get_format("nvfp4"), uneven(256, 64)
    encoded = fmt.encode(weight, MaxRule(), measure_error=True)
    assert estimate_max_rule(weight, fmt, encoded, "max").weight == encoded.relative_error
    zeros = torch.zeros(256, 64)
    nothing = estimate_max_rule(zeros, fmt, fmt.encode(zeros, get_rounding("mse")), "mse")
    assert nothing.weight is None and nothing.weight_norm == 0


def test_a_report_has_the_errors_of_a_conversion_by_the_max_rule(
    toy_wan: Toy, nvfp4_reference: Callable[..., object]
) -> None:
    """Wider than the sample, so that rows are left out."""
    source = StateDictSource(toy_wan(width=256))
    chosen, plain = (
        quantize_to_memory(source, plan_of(source, rounding=rounding)).report
        for rounding in ("mse", "max")
    )
    for la, by_max in zip(chosen.layers, plain.layers, strict=True):
        if la.weight_error is None:
            assert la.max_rule_weight_error is None
            continue
        assert la.max_rule_weight_error == pytest.approx(by_max.weight_error, rel=0.02), la.name
        assert by_max.max_rule_weight_error == by_max.weight_error
    ours, theirs = chosen.overall_error(), plain.overall_error()
    assert ours is not None and theirs is not None and not ours.of_outputs
    assert ours.error < ours.max_rule
    assert ours.max_rule == pytest.approx(theirs.error, rel=0.01)
    assert theirs.error == theirs.max_rule == pytest.approx(exact_error(source, plain), rel=0.01)


def exact_error(source: StateDictSource, report: object) -> float:
    """Return the error of all quantized weights as one vector, from their exact norms."""
    error = norm = 0.0
    for la in report.layers:  # type: ignore[attr-defined]
        if la.weight_error is not None:
            square = float(source.load(f"{la.name}.weight").double().square().sum())
            error, norm = error + la.weight_error**2 * square, norm + square
    return (error / norm) ** 0.5


def test_what_was_not_measured_is_no_error() -> None:
    assert overall_error([]) is None
