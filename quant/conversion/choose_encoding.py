"""Which rounding a layer really gets: second-order ones have to prove themselves first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ..errors import FormatError
from ..formats import EncodedWeight, WeightFormat
from ..formats.nvfp4 import NVFP4_MAX
from ..rounding import DEFAULT_ROUNDING, NEED_MOMENTS, get_rounding
from .observed_input import ObservedInput
from .output_trial import OutputError, OutputTrial

# Above this the weight is hardly the model's any more, whatever the sampled inputs say.
_MOST_WEIGHT_ERROR = 0.5
_FEWEST_ROWS = 8
#: The rounding of a weight that was quantized in the source and is not again.
TAKEN_OVER = "source"
# Of the squared error. On the demo model smaller gains, layer by layer, made latents worse: the
# mean error differs between steps, and what one layer corrects another had made up for.
_LEAST_BIAS_GAIN = 0.1
# Enough for an error figure of two digits, few enough to cost less than the encoding.
_REPORTED_ROWS = 64


@dataclass(frozen=True, eq=False)
class ChosenEncoding:
    """An encoded weight ``[out, in]`` and how it came to be.

    ``rounding`` is what was really used, ``reason`` why it is not the one asked for, or what it
    gained; empty when there is nothing to say. ``bias_shift`` float32 [out] is to be added to the
    layer's bias, None when that would not help. ``error`` and ``runtime_scale_error`` (W4A4 with
    the runtime's own activation scale) are on held-out inputs; None: not measured.
    """

    encoded: EncodedWeight
    rounding: str
    reason: str = ""
    bias_shift: torch.Tensor | None = None
    bias_reason: str = ""
    error: OutputError | None = None
    runtime_scale_error: float | None = None


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
    """Encode a weight, falling back to `DEFAULT_ROUNDING` where it does better on held-out rows.

    Args:
        weight: ``[out, in]``, any float dtype, on the device to compute on.
        fmt: the format to store it in.
        rounding: the rounding asked for.
        observed: what calibration saw of its input, if anything.
        input_scale: the static activation scale, None for the runtime's own.
        measure_outputs: also measure output errors of roundings that need no proof.
        correct_bias: try a correction of the bias, and keep it if it helps on held-out rows; not
            with ``max``, which is there to compare with what others do.

    Raises:
        FormatError: the weight cannot be stored so.
        CalibrationError: second moments are damaged.
    """
    plain = DEFAULT_ROUNDING if rounding in NEED_MOMENTS else rounding
    plain = plain if fmt.has_scale_choice else "max"
    if observed is None:
        encoded = fmt.encode(weight, get_rounding(plain), measure_error=True)
        return ChosenEncoding(encoded, "mse" if plain == "weighted" else plain)
    has_moments = observed.statistics.moments is not None
    trial = None
    if measure_outputs or (has_moments and (rounding in NEED_MOMENTS or correct_bias)):
        # Without moments nothing is decided by the figure.
        rows = observed.held_out.rows[: None if has_moments else _REPORTED_ROWS]
        trial = OutputTrial(weight, rows, fmt, input_scale)
    encoded = fmt.encode(weight, observed.rule(plain), measure_error=True)
    chosen = _measured(ChosenEncoding(encoded, plain), weight, fmt, trial)
    if rounding in NEED_MOMENTS and fmt.feedback_block is not None:
        chosen = _prove(chosen, weight, fmt, rounding, observed, trial)
    if correct_bias and trial is not None and rounding != "max":
        chosen = _with_bias(chosen, weight, fmt, observed, trial)
    return chosen


def taken_over(
    tensors: Mapping[str, torch.Tensor],
    shape: tuple[int, ...],
    fmt: WeightFormat,
    observed: ObservedInput | None,
    input_scale: float | None,
    *,
    measure_outputs: bool = True,
) -> ChosenEncoding:
    """Return codes and scales the source has already; its weight is what they decode to."""
    chosen = ChosenEncoding(EncodedWeight(tensors, 0.0), TAKEN_OVER, "codes and scales as stored")
    if observed is None or not measure_outputs:
        return chosen
    weight = fmt.decode(tensors, shape)
    trial = OutputTrial(weight, observed.held_out.rows[:_REPORTED_ROWS], fmt, input_scale)
    return _with_errors(chosen, trial, weight)


def _measured(
    chosen: ChosenEncoding, weight: torch.Tensor, fmt: WeightFormat, trial: OutputTrial | None
) -> ChosenEncoding:
    if trial is None:
        return chosen
    return _with_errors(chosen, trial, fmt.decode(chosen.encoded.tensors, tuple(weight.shape)))


def _with_errors(
    chosen: ChosenEncoding, trial: OutputTrial, decoded: torch.Tensor
) -> ChosenEncoding:
    return replace(
        chosen, error=trial.measure(decoded), runtime_scale_error=trial.with_runtime_scale(decoded)
    )


def _prove(
    plain: ChosenEncoding,
    weight: torch.Tensor,
    fmt: WeightFormat,
    rounding: str,
    observed: ObservedInput,
    trial: OutputTrial | None,
) -> ChosenEncoding:
    """Return the encoding of a second-order rounding if it does better, else the plain one.

    Where ``gptaq`` does not hold, ``gptq`` is tried before. An input that repeats itself has too
    few different tokens for the regression behind ``gptaq``: on new prompts ``gptq`` does better.
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
        except FormatError as error:  # of the moments: the weight could be stored before
            refusals.append(str(error))
            break
        better = _measured(ChosenEncoding(encoded, name), weight, fmt, trial)
        change, holds = _judge(better, plain)
        if holds:
            where = observed.held_out.describe()
            instead = f" (not {rounding}: {refusals[0]})" if refusals else ""
            return replace(better, reason=f"{name}: {change} on {where}{instead}")
        refusals.append(f"{name}: {change}" if name != rounding else change)
    return replace(plain, reason=f"{plain.rounding}, not {rounding}: {'; '.join(refusals)}")


def _judge(better: ChosenEncoding, plain: ChosenEncoding) -> tuple[str, bool]:
    """Return what a second-order encoding changes, in words, and whether to accept it."""
    if better.error is None or plain.error is None:
        return "there is no output to judge by", False
    weight_error = better.encoded.relative_error or 0.0
    if weight_error > _MOST_WEIGHT_ERROR:
        return f"the weight would change by {weight_error:.0%}", False
    change = f"error {plain.error.w4a4:.2%} -> {better.error.w4a4:.2%}"
    return change, better.error.beats(plain.error)


def _why_not(observed: ObservedInput, trial: OutputTrial | None, fmt: WeightFormat) -> str:
    """Return why a second-order rounding cannot be tried on a layer, or nothing."""
    if observed.statistics.moments is None:
        return "no Hessian was collected for its input"
    if observed.statistics.in_features % (fmt.feedback_block or 1):
        width = observed.statistics.in_features
        return f"its width {width} is not a multiple of {fmt.feedback_block}"
    return _why_not_judged(observed, trial)


def _why_not_judged(observed: ObservedInput, trial: OutputTrial | None) -> str:
    """Return why the sampled rows of an input cannot judge what its moments made, or nothing."""
    if trial is None or len(observed.held_out.rows) < _FEWEST_ROWS:
        return "too few sampled rows to judge it on"
    if observed.repeats_itself and not observed.held_out.from_other_runs:
        return "its input is the same in every step, so another prompt has to judge; calibrate more"
    return ""


def _with_bias(
    chosen: ChosenEncoding,
    weight: torch.Tensor,
    fmt: WeightFormat,
    observed: ObservedInput,
    trial: OutputTrial,
) -> ChosenEncoding:
    """Add the correction of the bias if it makes held-out outputs better."""
    if observed.means is None:
        return chosen
    refusal = _why_not_judged(observed, trial)
    if refusal:
        return replace(chosen, bias_reason=f"kept: {refusal}")
    decoded = fmt.decode(chosen.encoded.tensors, tuple(weight.shape))
    shift = bias_shift(weight, decoded, fmt, observed.means)
    corrected = trial.measure(decoded, shift)
    if corrected is None or chosen.error is None:
        return chosen
    change = f"error {chosen.error.w4a4:.2%} -> {corrected.w4a4:.2%}"
    gain = 1.0 - (corrected.w4a4 / chosen.error.w4a4) ** 2
    # The mean of the rounded inputs is not that of 16-bit ones, which other hardware computes.
    cost = (corrected.w4a16 / max(chosen.error.w4a16, 1e-9)) ** 2 - 1.0
    worth_it = gain >= max(_LEAST_BIAS_GAIN, cost) and corrected.beats(chosen.error)
    if not worth_it:
        return replace(chosen, bias_reason=f"kept: {change}")
    return replace(
        chosen,
        bias_shift=shift,
        bias_reason=f"corrected: {change}",
        error=corrected,
        runtime_scale_error=trial.with_runtime_scale(decoded, shift),
    )


def bias_shift(
    weight: torch.Tensor,
    decoded: torch.Tensor,
    fmt: WeightFormat,
    means: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Return ``E[x] W^T - E[xq] Wq^T``, float32 [out], given both means: to add to the bias.

    So the mean of the output, which is the same in every token and step and so adds up, is exact.
    """
    mean, rounded = (m.to(weight.device) for m in means)
    seen = rounded if fmt.activation_divisor == NVFP4_MAX else mean
    return weight.float() @ mean - decoded @ seen
