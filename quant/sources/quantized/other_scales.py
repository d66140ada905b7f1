"""8-bit codes whose scale has a name that does not say whether it multiplies or divides.

The values say it where only one reading gives weights of a possible size. If neither or both do,
the file is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from ...errors import SourceError
from ..base import TensorSource, dtype_name
from ..stored_weight import StoredWeight
from .convention import Found
from .input_scales import code_input_amax
from .parts import names_of
from .scale_reading import Reading, scale_reading
from .scaled_codes import CODES, CodesAndScales, require_scales_fit, same_format, scaled_weight

#: What such scales are called, after the name of the layer.
NAMES = (
    "scale", "weight.scale", "weight._scale", "fp8_scale", "weight_fp8_scale", "int8_scale",
    "scale_inv", "weight.scale_inv", "inv_scale", "weight_inv_scale", "scale_weight_inv",
    "w_scale", "scales", "weight_scales", "weight.weight_scale", "scaling_factor",
    "weight_scaling_factor", "dequant_scale", "weight_dequant_scale", "quant_scale",
    "weight_quant_scale",
)  # fmt: skip
_INPUTS = ("input_scale", "scale_input")


@dataclass(frozen=True)
class OtherScales:
    """float8 and int8 codes with a scale under another name."""

    label = "codes with scales of other names"
    reference = (
        "Tencent/HunyuanVideo: hyvideo/modules/fp8_optimization.py (fp8_scale); "
        "NVIDIA/TransformerEngine: transformer_engine/pytorch/tensor/float8_tensor.py (scale_inv)"
    )

    def find(self, source: TensorSource) -> Found:
        """Find float8 and int8 weights with a scale of such a name and no marker."""
        found: dict[str, list[str]] = {}
        for layer, suffix in _candidates(source):
            found.setdefault(suffix, []).append(layer)
        return {
            f"{layer}.weight": describe
            for suffix, layers in found.items()
            for layer, describe in _described(source, suffix, layers)
        }


def _candidates(source: TensorSource) -> Iterator[tuple[str, str]]:
    for name, info in source.tensors.items():
        if name.endswith(".weight") and info.dtype in CODES:
            layer = name.removesuffix(".weight")
            for suffix in NAMES:
                if f"{layer}.{suffix}" in source.tensors:
                    yield layer, suffix


def _described(
    source: TensorSource, suffix: str, layers: list[str]
) -> Iterator[tuple[str, partial[StoredWeight]]]:
    is_inverse, error = None, None
    try:
        is_inverse = _divides(source, suffix, layers)
    except SourceError as reason:
        error = reason
    for layer in layers:
        if is_inverse is None:
            yield layer, partial(_refuse, error)
        else:
            yield layer, partial(_stored_weight, source, layer, suffix, is_inverse)


def _refuse(error: SourceError | None) -> StoredWeight:
    assert error is not None
    raise error


def _divides(source: TensorSource, suffix: str, layers: list[str]) -> bool:
    """Whether scales of this name divide the codes; False if they multiply them.

    Raises:
        SourceError: the weights have a possible size in both readings, or in neither.
    """
    for layer in layers:
        weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.{suffix}")
        require_scales_fit(source, weight, scale)
    reading = scale_reading(source, suffix, layers)
    if reading is not Reading.UNKNOWN:
        return reading is Reading.DIVIDES
    raise SourceError(
        f"{source.description}: {layers[0]}.{suffix} scales the 8-bit weight beside it, but neither"
        " its name nor its values show whether it multiplies or divides; start from the bf16 or "
        "fp16 version of the model"
    )


def _stored_weight(source: TensorSource, layer: str, suffix: str, is_inverse: bool) -> StoredWeight:
    weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.{suffix}")
    require_scales_fit(source, weight, scale)
    _require_alone(source, layer, suffix)
    inputs = next((name for name in _INPUTS if f"{layer}.{name}" in source.tensors), _INPUTS[0])
    reading = f"1 / {suffix}" if is_inverse else suffix
    stored = scaled_weight(
        f"{dtype_name(weight.dtype)} with {reading}",
        CodesAndScales(source, weight, scale, is_inverse=is_inverse),
        names_of(source, layer, "weight", suffix, *_INPUTS),
        same_format(weight, scale),
        lambda: code_input_amax(source, layer, inputs, weight.dtype),
    )
    return replace(
        stored, remark=f"have scales named {suffix}, which ComfyUI itself does not apply"
    )


def _require_alone(source: TensorSource, layer: str, suffix: str) -> None:
    others = [n for n in NAMES if n != suffix and f"{layer}.{n}" in source.tensors]
    if others:
        raise SourceError(
            f"{source.description}: {layer} has two scales, {suffix} and {others[0]}, and it is "
            "not known which applies; start from the bf16 or fp16 version of the model"
        )
