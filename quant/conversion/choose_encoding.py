"""Choose the rounding of a layer. Second-order roundings must first do better on held-out rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from ..errors import FormatError
from ..formats import EncodedWeight, WeightFormat
from ..formats.base import device_slices
from ..formats.nvfp4_scales import NVFP4_MAX
from ..formats.parallel import share_chunks
from ..rounding import DEFAULT_ROUNDING, NEED_MOMENTS, get_rounding
from .max_rule import MaxRuleEstimate, estimate_max_rule
from .observed_input import ObservedInput
from .output_trial import Decode, OutputError, OutputTrial, decode_with

_FEWEST_ROWS = 8
#: The name of the rounding for weights that keep the codes of the source.
TAKEN_OVER = "source"
# A share of the squared error. On the demo model, corrections with smaller gains made latents
# worse: the mean error differs between steps, and another layer may have compensated for it.
_LEAST_BIAS_GAIN = 0.1
# A share of the squared error. Smaller differences depend on which rows were sampled.
_LEAST_MAX_RULE_GAIN = 0.03
# Rows and output channels of an error that is only reported: enough for two digits, and few enough
# to take less time than the encoding.
_REPORTED_ROWS, _REPORTED_CHANNELS = 64, 1024
_MATRIX = 2


@dataclass(frozen=True, eq=False)
class ChosenEncoding:
    """An encoded weight ``[out, in]``, its rounding and its errors.

    ``rounding`` is the rounding that was used. ``reason`` explains why it is not the requested one,
    or what it gained; it may be empty. ``bias_shift`` float32 [out] must be added to the layer's
    bias; None if that would not help. ``error`` is measured on held-out inputs; None: not measured.
    ``max_rule`` is what the plain max rule would lose, and ``output_norm`` the norm of the exact
    output per token; None: not known.
    """

    encoded: EncodedWeight
    rounding: str
    reason: str = ""
    bias_shift: torch.Tensor | None = None
    bias_reason: str = ""
    error: OutputError | None = None
    max_rule: MaxRuleEstimate | None = None
    output_norm: float | None = None


def choose_encoding(
    weight: torch.Tensor,
    fmt: WeightFormat,
    rounding: str,
    observed: ObservedInput | None,
    input_scale: float | None,
    *,
    measure_outputs: bool = True,
    correct_bias: bool = False,
) -> ChosenEncoding:
    """Encode a weight with a rounding, or `DEFAULT_ROUNDING` if that does better on held-out rows.

    Args:
        weight: ``[out, in]``, any float dtype, on the device to compute on.
        fmt: the format to store it in.
        rounding: the requested rounding.
        observed: the calibration of its input, if it was observed.
        input_scale: the static input scale; None for the runtime's own.
        measure_outputs: measure output errors even if the choice does not need them.
        correct_bias: try to correct the bias, and keep that if it helps on held-out rows. Ignored
            for ``max``, which is a baseline for comparisons.

    Raises:
        FormatError: the weight cannot be stored in the format.
        CalibrationError: second moments are damaged.
    """
    plain = DEFAULT_ROUNDING if rounding in NEED_MOMENTS else rounding
    plain = plain if fmt.has_scale_choice else "max"
    if observed is None:
        encoded = fmt.encode(weight, get_rounding(plain), measure_error=True)
        chosen = ChosenEncoding(encoded, "mse" if plain == "weighted" else plain)
        if weight.dim() != _MATRIX:  # a bank of experts
            return chosen
        return _beside_max_rule(chosen, weight, fmt, None)
    has_moments = observed.statistics.moments is not None
    trial = None
    if measure_outputs or (has_moments and (rounding in NEED_MOMENTS or correct_bias)):
        # Without moments, the errors are only reported and decide nothing.
        if has_moments:
            trial = OutputTrial(weight, observed.held_out.rows, fmt, input_scale)
        else:
            trial = _reported_trial(weight, fmt, observed, input_scale)
    encoded = fmt.encode(weight, observed.rule(plain), measure_error=True)
    chosen = _measured(ChosenEncoding(encoded, plain), weight, fmt, trial)
    if rounding in NEED_MOMENTS and fmt.feedback_block is not None:
        chosen = _prove(chosen, weight, fmt, rounding, observed, trial)
    if correct_bias and trial is not None and rounding != "max":
        chosen = _with_bias(chosen, weight, fmt, observed, trial)
    chosen = _beside_max_rule(chosen, weight, fmt, trial)
    return _not_worse_than_max(chosen, weight, fmt, trial, observed) if has_moments else chosen


def _not_worse_than_max(
    chosen: ChosenEncoding,
    weight: torch.Tensor,
    fmt: WeightFormat,
    trial: OutputTrial | None,
    observed: ObservedInput,
) -> ChosenEncoding:
    """Return the max rule's encoding if it surely does better on held-out rows, else ``chosen``.

    That is rare: on inputs of which a few channels hold nearly all energy, the least error of the
    weight is not the least of the output. The estimate tells where to encode by the max rule too.
    """
    estimate = chosen.max_rule.w4a16 if chosen.max_rule else None
    if chosen.rounding == "max" or trial is None or chosen.error is None or estimate is None:
        return chosen
    if not _is_clearly_less(estimate, chosen.error.w4a16):
        return chosen
    encoded = fmt.encode(weight, get_rounding("max"), measure_error=True)
    plain = _measured(ChosenEncoding(encoded, "max"), weight, fmt, trial)
    if plain.error is None or not _is_clearly_less(plain.error.w4a4, chosen.error.w4a4):
        return chosen
    if not plain.error.beats(chosen.error):
        return chosen
    change = f"error {chosen.error.w4a4:.2%} -> {plain.error.w4a4:.2%}"
    where = observed.held_out.describe()
    plain = replace(plain, reason=f"max, not {chosen.rounding}: {change} on {where}")
    return _beside_max_rule(plain, weight, fmt, trial)


def _is_clearly_less(error: float, other: float) -> bool:
    return error**2 < (1.0 - _LEAST_MAX_RULE_GAIN) * other**2


def _beside_max_rule(
    chosen: ChosenEncoding, weight: torch.Tensor, fmt: WeightFormat, trial: OutputTrial | None
) -> ChosenEncoding:
    """Return the encoding with what the plain max rule would lose."""
    estimate = estimate_max_rule(
        weight,
        fmt,
        chosen.encoded,
        chosen.rounding,
        trial,
        chosen.error.w4a16 if chosen.error else None,
        chosen.bias_shift,
    )
    norm = trial.output_norm if trial is not None and chosen.error else None
    return replace(chosen, max_rule=estimate, output_norm=norm)


def _reported_trial(
    weight: torch.Tensor, fmt: WeightFormat, observed: ObservedInput, input_scale: float | None
) -> OutputTrial:
    rows = observed.held_out.rows[:_REPORTED_ROWS]
    return OutputTrial(weight, rows, fmt, input_scale, channels=_REPORTED_CHANNELS)


def taken_over(
    tensors: Mapping[str, torch.Tensor],
    shape: tuple[int, ...],
    fmt: WeightFormat,
    observed: ObservedInput | None,
    input_scale: float | None,
    *,
    measure_outputs: bool = True,
) -> ChosenEncoding:
    """Return the codes and scales of the source unchanged. The exact weight is their decoding."""
    reason = "codes and scales of the source"
    chosen = ChosenEncoding(EncodedWeight(tensors, 0.0), TAKEN_OVER, reason)
    if observed is None or not measure_outputs:
        return chosen
    trial = _reported_trial(fmt.decode(tensors, shape), fmt, observed, input_scale)
    return _with_errors(chosen, trial, decode_with(fmt, tensors, shape))


def _measured(
    chosen: ChosenEncoding, weight: torch.Tensor, fmt: WeightFormat, trial: OutputTrial | None
) -> ChosenEncoding:
    if trial is None:
        return chosen
    decode = decode_with(fmt, chosen.encoded.tensors, tuple(weight.shape))
    return _with_errors(chosen, trial, decode)


def _with_errors(chosen: ChosenEncoding, trial: OutputTrial, decode: Decode) -> ChosenEncoding:
    return replace(chosen, error=trial.measure(decode))


def _prove(
    plain: ChosenEncoding,
    weight: torch.Tensor,
    fmt: WeightFormat,
    rounding: str,
    observed: ObservedInput,
    trial: OutputTrial | None,
) -> ChosenEncoding:
    """Return the encoding of a second-order rounding if it does better, otherwise the plain one.

    If ``gptaq`` does not do better, ``gptq`` is tried. An input that is the same in every step has
    too few different tokens for the regression in ``gptaq``; for new prompts ``gptq`` is better.
    """
    refusal = _why_not(observed, trial, fmt)
    tried = [] if refusal else list(dict.fromkeys((rounding, "gptq")))
    refusals = [refusal] if refusal else []
    if observed.repeats_itself and tried[:1] == ["gptaq"]:
        del tried[0]
        refusals.append("its input is the same in every step")
    for name in tried:
        try:
            encoded = fmt.encode(weight, observed.rule(name), measure_error=True)
        except FormatError as error:  # due to the moments: the plain encoding succeeded
            refusals.append(str(error))
            break
        better = _measured(ChosenEncoding(encoded, name), weight, fmt, trial)
        change, holds = _judge(better, plain, fmt)
        if holds:
            where = observed.held_out.describe()
            instead = f" (not {rounding}: {refusals[0]})" if refusals else ""
            return replace(better, reason=f"{name}: {change} on {where}{instead}")
        refusals.append(f"{name}: {change}" if name != rounding else change)
    return replace(plain, reason=f"{plain.rounding}, not {rounding}: {'; '.join(refusals)}")


def _judge(better: ChosenEncoding, plain: ChosenEncoding, fmt: WeightFormat) -> tuple[str, bool]:
    """Return the change by a second-order encoding, in words, and whether to accept it.

    With a weight error above the bound of the format, the layer no longer resembles the model's,
    whatever the sampled inputs show.
    """
    if better.error is None or plain.error is None:
        return "the output error cannot be measured", False
    weight_error = better.encoded.relative_error or 0.0
    if weight_error > fmt.error_bound:
        return f"the weight would change by {weight_error:.0%}", False
    change = f"error {plain.error.w4a4:.2%} -> {better.error.w4a4:.2%}"
    return change, better.error.beats(plain.error)


def _why_not(observed: ObservedInput, trial: OutputTrial | None, fmt: WeightFormat) -> str:
    """Return why a second-order rounding cannot be tried on a layer; empty if it can."""
    if observed.statistics.moments is None:
        return "no Hessian was collected for its input"
    if observed.statistics.in_features % (fmt.feedback_block or 1):
        width = observed.statistics.in_features
        return f"its width {width} is not a multiple of {fmt.feedback_block}"
    return why_not_judged(observed, trial)


def why_not_judged(observed: ObservedInput, trial: OutputTrial | None) -> str:
    """Return why the sampled rows cannot judge a result of the moments; empty if they can."""
    if trial is None or len(observed.held_out.rows) < _FEWEST_ROWS:
        return "too few sampled rows to judge it on"
    if observed.repeats_itself and not observed.held_out.from_other_runs:
        return (
            "its input is the same in every step, so another prompt must judge; calibrate with "
            "more prompts"
        )
    return ""


def _with_bias(
    chosen: ChosenEncoding,
    weight: torch.Tensor,
    fmt: WeightFormat,
    observed: ObservedInput,
    trial: OutputTrial,
) -> ChosenEncoding:
    """Return the encoding with a corrected bias, if that makes held-out outputs better."""
    if observed.means is None:
        return chosen
    refusal = why_not_judged(observed, trial)
    if refusal:
        return replace(chosen, bias_reason=f"kept: {refusal}")
    decode = decode_with(fmt, chosen.encoded.tensors, tuple(weight.shape))
    shift = bias_shift(weight, decode, fmt, observed.means)
    corrected = trial.measure(decode, shift)
    if corrected is None or chosen.error is None:
        return chosen
    change = f"error {chosen.error.w4a4:.2%} -> {corrected.w4a4:.2%}"
    gain = 1.0 - (corrected.w4a4 / chosen.error.w4a4) ** 2
    # The correction uses the mean of the rounded inputs. Hardware that computes with 16-bit inputs
    # must not lose more than the native product gains.
    cost = (corrected.w4a16 / max(chosen.error.w4a16, 1e-9)) ** 2 - 1.0
    worth_it = gain >= max(_LEAST_BIAS_GAIN, cost) and corrected.beats(chosen.error)
    if not worth_it:
        return replace(chosen, bias_reason=f"kept: {change}")
    return replace(
        chosen,
        bias_shift=shift,
        bias_reason=f"corrected: {change}",
        error=corrected,
    )


def bias_shift(
    weight: torch.Tensor,
    decode: Decode,
    fmt: WeightFormat,
    means: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Return ``E[x] W^T - E[xq] Wq^T``, float32 [out], to add to the bias.

    It makes the mean of the output exact. An error of the mean is the same in every token and step,
    so it would add up.
    """
    mean, rounded = (m.to(weight.device) for m in means)
    seen = rounded if fmt.activation_divisor == NVFP4_MAX else mean
    shift = torch.empty(weight.shape[0], device=weight.device)

    def loop(bands: Iterable[slice]) -> None:
        for band in bands:
            shift[band] = weight[band].float() @ mean - decode(band) @ seen

    share_chunks(loop, device_slices(weight), weight.device)
    return shift
