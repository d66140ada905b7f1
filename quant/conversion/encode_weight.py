"""Encode a weight, with factors per input channel where the format stores some.

The runtime computes ``round(x s) (W / s)^T`` with factors ``s``. They are
``E[x^2]^(-a/2) E[w^2]^(b/2)`` per channel, as in SmoothQuant (Xiao et al. 2022, arXiv 2211.10438)
and AWQ (Lin et al. 2023, arXiv 2306.00978). Half of the held-out rows choose a and b, and the other
half accepts or refuses the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..calibration.input_scale import scaled_input_ratio
from ..errors import FormatError
from ..formats import WeightFormat
from ..formats.nvfp4 import PRE_QUANT_SCALE
from ..formats.nvfp4_smooth import NVFP4Smooth
from ..rounding import DEFAULT_ROUNDING, NEED_MOMENTS, Rounding, get_rounding
from .choose_encoding import ChosenEncoding, choose_encoding, why_not_judged
from .observed_input import ObservedInput
from .output_trial import OutputError, OutputTrial, decode_with, spread_bands

_EXPONENTS = tuple((a, b) for a in (0.15, 0.3, 0.5, 0.7) for b in (0.0, 0.25, 0.5))
# Relative to the mean. A channel that was nearly silent may be loud for another prompt.
_LEAST_ENERGY = 1e-4
# Output channels on which the exponents are chosen, in bands spread over the weight.
_TRIED_CHANNELS, _TRIED_BANDS = 512, 16
_CHOOSING, _JUDGING = slice(0, None, 2), slice(1, None, 2)


def encode_weight(
    weight: torch.Tensor,
    fmt: WeightFormat,
    rounding: str,
    observed: ObservedInput | None,
    input_scale: float | None,
    *,
    measure_outputs: bool = True,
    correct_bias: bool = False,
) -> ChosenEncoding:
    """Encode a weight like `choose_encoding`, and with factors per channel if these do better.

    Where factors do not help, or no second moments tell, all are one. ``input_scale`` is for the
    input without factors; see `scaled_input_scale`. For the other arguments and the errors see
    `choose_encoding`.
    """
    smooth = fmt if isinstance(fmt, NVFP4Smooth) else None
    chosen = choose_encoding(
        weight, fmt, rounding, observed, input_scale,
        measure_outputs=measure_outputs or smooth is not None, correct_bias=correct_bias,
    )  # fmt: skip
    if smooth is None or observed is None:
        return chosen
    return _Smoothing(weight, smooth, observed, input_scale).improve(chosen)


def scaled_input_scale(
    input_scale: float | None, chosen: ChosenEncoding, observed: ObservedInput | None
) -> float | None:
    """Return the static scale of a layer's input times its factors; None for a dynamic one."""
    factors = chosen.encoded.tensors.get(PRE_QUANT_SCALE)
    if input_scale is None or factors is None or observed is None:
        return input_scale
    return input_scale * scaled_input_ratio(factors, observed.statistics)


@dataclass(frozen=True, eq=False)
class _Smoothing:
    """The search for factors of one layer. ``input_scale`` is for the input without factors."""

    weight: torch.Tensor
    fmt: NVFP4Smooth
    observed: ObservedInput
    input_scale: float | None

    def improve(self, plain: ChosenEncoding) -> ChosenEncoding:
        """Return the encoding with factors, or the plain one with the reason against them."""
        if self.observed.moments is None:
            return _refused(plain, "no Hessian was collected for its input")
        trial = OutputTrial(self.weight, self.observed.held_out.rows, self.fmt, self.input_scale)
        refusal = why_not_judged(self.observed, trial)
        if refusal or plain.error is None:
            return _refused(plain, refusal or "its output cannot be measured")
        factors = self._best_factors()
        scaled = trial.smoothed(factors, self._scale_of(factors))
        name = "gptq" if plain.rounding in NEED_MOMENTS else plain.rounding
        try:
            rule = self._rule(name, factors, scaled)
            encoded = self.fmt.encode_smoothed(self.weight, factors, rule, measure_error=True)
        except FormatError as error:  # due to the moments: the plain encoding succeeded
            return _refused(plain, str(error))
        shape = (self.weight.shape[0], self.weight.shape[1])
        error = scaled.measure(decode_with(self.fmt, encoded.tensors, shape))
        if error is None:
            return _refused(plain, "its output cannot be measured")
        if (encoded.relative_error or 0.0) > self.fmt.error_bound:
            return _refused(plain, f"the weight would change by {encoded.relative_error:.0%}")
        change = f"error {plain.error.w4a4:.2%} -> {error.w4a4:.2%}"
        if not _pays(error, plain.error):
            return _refused(plain, change)
        where = self.observed.held_out.describe()
        reason = f"{name} with factors per channel: {change} on {where}"
        return replace(
            plain, encoded=encoded, rounding=name, reason=reason, error=error,
            bias_shift=None, bias_reason="",
        )  # fmt: skip

    def _best_factors(self) -> torch.Tensor:
        """Return the factors of the least error on some output channels and half of the rows."""
        some = self.weight
        if len(some) > _TRIED_CHANNELS:
            bands = spread_bands(len(some), _TRIED_CHANNELS, _TRIED_BANDS)
            some = torch.cat([some[band] for band in bands])
        rows = self.observed.held_out.rows
        # as `OutputTrial` counts them, so that no row that chooses also judges
        rows = rows[torch.isfinite(rows.float()).all(dim=1)][_CHOOSING]
        trial = OutputTrial(some, rows, self.fmt, self.input_scale)
        shape, least, best = (len(some), some.shape[1]), float("inf"), None
        for factors in self._candidates():
            scaled = trial.smoothed(factors, self._scale_of(factors))
            rule = self._rule(DEFAULT_ROUNDING, factors, scaled)
            encoded = self.fmt.encode_smoothed(some, factors, rule)
            error = scaled.measure(decode_with(self.fmt, encoded.tensors, shape))
            if best is None or (error is not None and error.w4a4 < least):
                best, least = factors, error.w4a4 if error else least
        assert best is not None
        return best

    def _candidates(self) -> Iterator[torch.Tensor]:
        """Yield factors, float32 [in] with a geometric mean of about one.

        They are bfloat16 numbers, because the runtime rounds them to the dtype of the input.
        """
        inputs = torch.from_numpy(self.observed.statistics.mean_square).to(self.weight.device)
        weights = self.weight.float().square().mean(0)
        logs = [_log_energy(inputs), _log_energy(weights)]
        for a, b in _EXPONENTS:
            exponent = (b * logs[1] - a * logs[0]) / 2
            yield torch.exp(exponent - exponent.mean()).bfloat16().float()

    def _rule(self, name: str, factors: torch.Tensor, scaled: OutputTrial) -> Rounding:
        """Return a rounding for the input times factors."""
        mean_square = torch.from_numpy(self.observed.statistics.mean_square)
        moments = None
        if name in NEED_MOMENTS and self.observed.moments is not None:
            noise = scaled.rounding_noise(_CHOOSING).cpu() * factors.cpu().square()
            moments = self.observed.moments.scaled(factors.cpu(), noise)
        return get_rounding(name).for_input(mean_square * factors.cpu().square(), moments)

    def _scale_of(self, factors: torch.Tensor) -> float | None:
        if self.input_scale is None:
            return None
        return self.input_scale * scaled_input_ratio(factors, self.observed.statistics)


def _refused(plain: ChosenEncoding, why: str) -> ChosenEncoding:
    reason = f"no factors per channel: {why}"
    return replace(plain, reason=f"{plain.reason}; {reason}" if plain.reason else reason)


def _pays(error: OutputError, plain: OutputError) -> bool:
    """Whether factors do better on the rows that did not choose them.

    Hardware that computes with 16-bit inputs must not lose more than the native product gains.
    """
    gain = plain.w4a4**2 - error.w4a4**2
    return error.w4a16**2 - plain.w4a16**2 <= gain and error.beats(plain, _JUDGING)


def _log_energy(mean_square: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the energy of each channel, bounded from below."""
    mean = float(mean_square.mean())
    return mean_square.clamp_min(mean * _LEAST_ENERGY if mean > 0 else 1.0).log()
