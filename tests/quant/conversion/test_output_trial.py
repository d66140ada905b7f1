"""Output errors in bands of rows, compared with the products of whole matrices in float64."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.conversion.output_trial import OutputTrial, decode_with
from nvfp4_foundry.quant.formats import FORMATS, get_format
from nvfp4_foundry.quant.formats.base import device_slices
from nvfp4_foundry.quant.rounding import get_rounding

ROWS, WIDTH = 1544, 512  # several bands, the last one smaller


@pytest.mark.parametrize("scale", [None, 0.002])
@pytest.mark.parametrize("name", [n for n, fmt in FORMATS.items() if fmt.is_quantized])
def test_errors_are_those_of_whole_products(name: str, scale: float | None) -> None:
    fmt = get_format(name)
    weight = torch.randn(ROWS, WIDTH).mul_(0.02).bfloat16()
    assert len(device_slices(weight)) > 2 and ROWS % device_slices(weight)[0].stop
    inputs = torch.randn(20, WIDTH) * torch.logspace(-1, 0.5, WIDTH)
    inputs[3, 7] = float("nan")  # such a row is left out
    shift = torch.randn(ROWS).mul_(0.01)
    encoded = fmt.encode(weight, get_rounding("mse" if fmt.has_scale_choice else "max"))
    decode = decode_with(fmt, encoded.tensors, (ROWS, WIDTH))
    trial = OutputTrial(weight, inputs, fmt, scale)
    error = trial.measure(decode, shift)

    rows = inputs[[*range(3), *range(4, 20)]]
    exact = rows.double() @ weight.double().T
    decoded = fmt.decode(encoded.tensors, (ROWS, WIDTH)).double()

    def squares(used: torch.Tensor) -> torch.Tensor:
        return (used.double() @ decoded.T - exact + shift.double()).square().sum(1)

    def relative(used: torch.Tensor) -> float:
        return float((squares(used).sum() / exact.square().sum()).sqrt())

    assert error is not None
    rounded = fmt.emulate_activations(rows, scale) if fmt.rounds_activations else rows
    assert error.w4a16 == pytest.approx(relative(rows), rel=1e-4)
    assert error.w4a4 == pytest.approx(relative(rounded), rel=1e-4)
    torch.testing.assert_close(error.by_row, squares(rounded), rtol=1e-3, atol=1e-9)
    assert trial.output_norm == pytest.approx(float(exact.norm()) / 19**0.5, rel=1e-5)
    if fmt.activation_divisor is None:
        assert error.runtime_scale is None
    else:
        by_runtime = fmt.emulate_activations(rows, None)
        assert error.runtime_scale == pytest.approx(relative(by_runtime), rel=1e-4)


def test_without_rows_nothing_is_measured() -> None:
    weight, fmt = torch.randn(64, 64), get_format("nvfp4")
    for inputs in (torch.empty(0, 64), torch.zeros(4, 64), torch.full((2, 64), float("inf"))):
        trial = OutputTrial(weight, inputs, fmt, None)
        assert not trial.is_possible and trial.measure(weight.__getitem__) is None


@pytest.mark.parametrize("name", ["nvfp4", "int8_rowwise", "float8_e4m3fn"])
def test_a_sample_of_the_channels_is_enough_for_a_report(name: str) -> None:
    """Channels of different sizes, with heavy tails, as those of trained models are."""
    fmt = get_format(name)
    weight = torch.randn(4096, 256) * torch.exp(torch.randn(4096, 1) * 0.5)
    weight = (weight * (1 + 5 * (torch.rand(4096, 256) > 0.999))).bfloat16()
    inputs = torch.randn(64, 256) * torch.logspace(-1, 1, 256)
    decode = decode_with(fmt, fmt.encode(weight, get_rounding("mse")).tensors, (4096, 256))
    whole = OutputTrial(weight, inputs, fmt, 0.01)
    some = OutputTrial(weight, inputs, fmt, 0.01, channels=1024)
    expected, error = whole.measure(decode), some.measure(decode)
    assert expected is not None and error is not None
    assert (expected.runtime_scale is None) == (error.runtime_scale is None)
    assert error.w4a16 == pytest.approx(expected.w4a16, rel=0.03)
    assert error.w4a4 == pytest.approx(expected.w4a4, rel=0.03)
    assert some.output_norm == pytest.approx(whole.output_norm, rel=0.1)
