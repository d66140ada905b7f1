"""Encode one layer: from a source weight to stored tensors and their report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from ..calibration.input_scale import ScaleDecision
from ..checkpoint.provenance import tensor_digest
from ..errors import FormatError
from ..formats import WeightFormat, for_shape, get_format
from ..formats.plain import cast_plain
from ..planning.inventory import Layer
from ..planning.plan import PlannedLayer
from ..rounding import MaxRule
from ..sources.stored_layers import BIAS, INPUT_SCALE, MARKER
from .check_encoding import require_decodes, with_values
from .choose_encoding import ChosenEncoding, taken_over
from .encode_weight import encode_weight, scaled_input_scale
from .observed_input import ObservedInput
from .report import LayerReport


def stored_name(layer: Layer, suffix: str) -> str:
    """Return the tensor name of one part of a layer. Bare parameters keep their own name."""
    is_weight = layer.tensor.name.endswith(".weight")
    return f"{layer.name}.{suffix}" if is_weight else layer.tensor.name


def input_scale_of(fmt: WeightFormat, decision: ScaleDecision | None) -> float | None:
    """Return the static scale to store for a layer, or None."""
    if fmt.activation_divisor is None or decision is None:
        return None
    return decision.scale_for(fmt.activation_divisor)


def encode_layer(
    layer: Layer,
    planned: PlannedLayer,
    weight: torch.Tensor | Mapping[str, torch.Tensor],
    rounding: str,
    decision: ScaleDecision | None,
    observed: ObservedInput | None,
    bias: torch.Tensor | None = None,
    *,
    measure_outputs: bool = True,
    correct_bias: bool = True,
) -> tuple[dict[str, torch.Tensor], LayerReport]:
    """Encode one layer's weight and measure its errors.

    Args:
        layer: the layer of the source.
        planned: the format that the layer gets.
        weight: the source weight, any float dtype (merged weights are wider than
            ``layer.tensor.dtype``), any device. If the source has the format already: its tensors
            by suffix, which are kept unchanged.
        rounding: how the codes are chosen.
        decision: the static input scale, for formats that use one.
        observed: the calibration of the layer's input, for some roundings and output errors.
        bias: the layer's bias as it will be stored, if it has one.
        measure_outputs: measure output errors on the sampled rows of the input.
        correct_bias: correct the bias if that helps and the input's mean is known.

    Returns:
        tensors by full name, and the report. Companions are among the tensors only if they differ
        from the source.

    Raises:
        FormatError: the weight cannot be stored; the message names the layer.
    """
    fmt = for_shape(get_format(planned.format), layer.shape)
    scale = input_scale_of(fmt, decision)
    try:
        if not isinstance(weight, torch.Tensor):
            chosen = taken_over(
                weight, layer.shape, fmt, observed, scale, measure_outputs=measure_outputs
            )
        elif fmt.is_quantized:
            chosen = encode_weight(
                with_values(weight), fmt, rounding, observed, scale,
                measure_outputs=measure_outputs, correct_bias=correct_bias and bias is not None,
            )  # fmt: skip
        else:
            chosen = _cast(layer, fmt, weight)
        require_decodes(weight, chosen.encoded, fmt)
    except FormatError as error:
        raise FormatError(f"{layer.tensor.name}: {error}") from error
    scale = scaled_input_scale(scale, chosen, observed)
    tensors = _stored_tensors(layer, fmt, chosen, scale)
    size = sum(t.nbytes for t in tensors.values()) + sum(c.nbytes for c in layer.companions)
    report = _report(planned, fmt, chosen, decision, scale, observed, size)
    if chosen.bias_shift is not None and bias is not None:
        shifted = bias.float() + chosen.bias_shift.to(bias.device)
        corrected = tensors[f"{layer.name}.{BIAS}"] = cast_plain(shifted, bias.dtype)
        report = replace(report, bias_digest=tensor_digest(corrected))
    return tensors, report


def _cast(layer: Layer, fmt: WeightFormat, weight: torch.Tensor) -> ChosenEncoding:
    """Return an unquantized weight in its stored dtype; merged weights are wider."""
    stored = fmt.tensor_specs(layer.shape, layer.tensor.dtype)["weight"]
    return ChosenEncoding(fmt.encode(cast_plain(weight, stored.dtype), MaxRule()), "")


def _stored_tensors(
    layer: Layer, fmt: WeightFormat, chosen: ChosenEncoding, scale: float | None
) -> dict[str, torch.Tensor]:
    """Return the format's tensors, the marker and the static scale by their full names."""
    parts = dict(chosen.encoded.tensors)
    if fmt.marker is not None:
        text = bytearray(fmt.marker_bytes(layer.shape))
        parts[MARKER] = torch.frombuffer(text, dtype=torch.uint8)
    if scale is not None:
        parts[INPUT_SCALE] = torch.tensor(scale, dtype=torch.float32)
    return {stored_name(layer, suffix): tensor for suffix, tensor in parts.items()}


def _report(
    planned: PlannedLayer,
    fmt: WeightFormat,
    chosen: ChosenEncoding,
    decision: ScaleDecision | None,
    scale: float | None,
    observed: ObservedInput | None,
    size: int,
) -> LayerReport:
    statistics = observed.statistics if observed else None
    return LayerReport(
        name=planned.name,
        kind=planned.kind,
        shape=planned.shape,
        format=planned.format,
        reason=planned.reason,
        bytes_before=planned.bytes_before,
        bytes_after=size,
        rounding=chosen.rounding,
        rounding_reason=chosen.reason,
        bias=chosen.bias_reason,
        weight_error=chosen.encoded.relative_error if fmt.is_quantized else None,
        output_error_w4a16=chosen.error.w4a16 if chosen.error else None,
        output_error_w4a4=chosen.error.w4a4 if chosen.error else None,
        output_error_runtime_scale=chosen.error.runtime_scale if chosen.error else None,
        max_rule_weight_error=chosen.max_rule.weight if chosen.max_rule else None,
        max_rule_output_error=chosen.max_rule.w4a16 if chosen.max_rule else None,
        weight_norm=chosen.max_rule.weight_norm if chosen.max_rule else None,
        output_norm=chosen.output_norm,
        input_scale=scale,
        input_scale_reason=decision.reason if decision else "",
        runtime_scale=fmt.runtime_scale if scale is None and planned.kind == "linear" else "",
        calls=statistics.calls if statistics else 0,
        tokens=statistics.tokens if statistics else 0,
        activation_amax=statistics.amax if statistics else None,
        activation_spread=statistics.spread if statistics else None,
    )
