"""One layer: from a source weight to stored tensors and what is reported of them."""

from __future__ import annotations

import torch

from .calibration.input_scale import ScaleDecision
from .calibration.records import LayerStatistics
from .errors import FormatError
from .formats import EncodedWeight, ScaleRule, WeightFormat, get_format
from .formats.plain import cast_plain
from .planning.inventory import Layer
from .planning.plan import PlannedLayer, marker_bytes
from .report import LayerReport

# Enough rows for an error figure of two digits, few enough to cost less than the encoding.
_MEASURED_ROWS = 64

#: Suffixes of the tensors `encode_layer` adds to those of the format.
MARKER, INPUT_SCALE = "comfy_quant", "input_scale"


def stored_name(layer: Layer, suffix: str) -> str:
    """Return the tensor name of one part of a layer; bare parameters keep their own name."""
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
    weight: torch.Tensor,
    rule: ScaleRule,
    decision: ScaleDecision | None,
    statistics: LayerStatistics | None,
    *,
    measure_outputs: bool = True,
) -> tuple[dict[str, torch.Tensor], LayerReport]:
    """Encode one layer's weight and measure what it costs.

    Args:
        layer: where the weight comes from.
        planned: the format it gets.
        weight: the source weight, any float dtype (merged ones are wider than
            ``layer.tensor.dtype``), any device.
        rule: how scales are chosen.
        decision: the static activation scale, for formats that use one.
        statistics: of the layer's input, for rules that weigh channels and for output errors.
        measure_outputs: measure output errors on the statistics' sampled rows.

    Returns:
        tensors by full name (companions such as the bias are not among them), and the report.

    Raises:
        FormatError: naming the layer, when the weight cannot be stored.
    """
    fmt = get_format(planned.format)
    try:
        if not fmt.is_quantized:  # merged weights come wider than they are stored
            stored = fmt.tensor_specs(layer.shape, layer.tensor.dtype)["weight"]
            weight = cast_plain(weight, stored.dtype)
        known = torch.from_numpy(statistics.mean_square) if statistics is not None else None
        encoded = fmt.encode(weight, rule.for_input(known), measure_error=fmt.is_quantized)
    except FormatError as error:
        raise FormatError(f"{layer.tensor.name}: {error}") from error
    tensors = {stored_name(layer, suffix): value for suffix, value in encoded.tensors.items()}
    scale = input_scale_of(fmt, decision)
    if fmt.marker is not None:
        marker = torch.frombuffer(bytearray(marker_bytes(fmt)), dtype=torch.uint8)
        tensors[stored_name(layer, MARKER)] = marker
    if scale is not None:
        tensors[stored_name(layer, INPUT_SCALE)] = torch.tensor(scale, dtype=torch.float32)
    errors = (None, None)
    if measure_outputs and statistics is not None and fmt.is_quantized:
        errors = output_errors(weight, encoded, fmt, statistics.rows, scale)
    return tensors, LayerReport(
        name=planned.name,
        kind=planned.kind,
        shape=planned.shape,
        format=planned.format,
        reason=planned.reason,
        bytes_before=planned.bytes_before,
        bytes_after=sum(t.nbytes for t in tensors.values())
        + sum(info.nbytes for info in layer.companions),
        weight_error=encoded.relative_error if fmt.is_quantized else None,
        output_error_w4a16=errors[0],
        output_error_w4a4=errors[1],
        input_scale=scale,
        input_scale_reason=decision.reason if decision else "",
        runtime_scale=fmt.runtime_scale if scale is None else "",
        calls=statistics.calls if statistics else 0,
        tokens=statistics.tokens if statistics else 0,
        activation_amax=statistics.amax if statistics else None,
    )


def output_errors(
    weight: torch.Tensor,
    encoded: EncodedWeight,
    fmt: WeightFormat,
    rows: torch.Tensor,
    input_scale: float | None,
) -> tuple[float | None, float | None]:
    """Return the relative output error with 16-bit and with quantized activations.

    ``||X W^T - Xq Q(W)^T|| / ||X W^T||`` over sampled input rows ``X`` ``[R, in]``; ``Xq`` is X,
    or X as the format's native product sees it.
    """
    usable = rows[torch.isfinite(rows.float()).all(dim=1)][:_MEASURED_ROWS].to(weight.device)
    if not len(usable):
        return None, None
    inputs = usable.float()
    exact = inputs @ weight.float().T
    norm = float(exact.norm())
    if norm == 0:
        return None, None
    decoded = fmt.decode(encoded.tensors, tuple(weight.shape))
    weight_only = float((inputs @ decoded.T - exact).norm()) / norm
    if fmt.activation_divisor is None:
        return weight_only, weight_only
    quantized = fmt.emulate_activations(usable, input_scale)
    return weight_only, float((quantized @ decoded.T - exact).norm()) / norm
