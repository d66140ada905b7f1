"""The report of a conversion: one record per layer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..checkpoint.layer_record import OverallError, overall_error
from ..formats import get_format
from ..sources.base import AppliedLora


@dataclass(frozen=True)
class LayerReport:
    """One layer after encoding.

    Errors are relative Frobenius norms; None means not measured. ``weight_error`` is the error of
    the weight. The others are errors of the layer's output on sampled calibration inputs: with
    16-bit activations (``output_error_w4a16``), with quantized activations
    (``output_error_w4a4``), and the latter with the runtime's own activation scale
    (``output_error_runtime_scale``). ``max_rule_weight_error`` and ``max_rule_output_error``
    (W4A16) are what the plain max rule would lose in this format, estimated from some rows of the
    weight. ``weight_norm`` (estimated likewise) and ``output_norm`` (per token) weigh the layers
    when their errors are added up.

    ``rounding`` is the rounding that was used. ``rounding_reason`` and ``bias`` explain what
    second-order rounding and the corrected bias gained, or why they were not used.
    ``bias_digest`` is the digest of the corrected bias. ``runtime_scale`` is the scale that ComfyUI
    uses for the activations if ``input_scale`` is None; empty if it does not quantize them.
    ``activation_spread`` is the ratio of the largest to the smallest amax of a calibration run.
    ``source_digests`` are those of the source's tensors that the layer was made from, by name.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    format: str
    reason: str
    bytes_before: int
    bytes_after: int
    rounding: str = ""
    rounding_reason: str = ""
    bias: str = ""
    bias_digest: str = ""
    weight_error: float | None = None
    output_error_w4a16: float | None = None
    output_error_w4a4: float | None = None
    output_error_runtime_scale: float | None = None
    max_rule_weight_error: float | None = None
    max_rule_output_error: float | None = None
    weight_norm: float | None = None
    output_norm: float | None = None
    input_scale: float | None = None
    input_scale_reason: str = ""
    runtime_scale: str = ""
    calls: int = 0
    tokens: int = 0
    activation_amax: float | None = None
    activation_spread: float | None = None
    source_digests: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def runtime_scale_is_dynamic(self) -> bool:
        """Whether ComfyUI measures the activations itself if there is no static scale."""
        return get_format(self.format).runtime_scale == "dynamic"

    @property
    def remarks(self) -> str:
        """The reasons for format, rounding, bias and input scale, in words."""
        return "; ".join(part for part in (self.reason, self.further_remarks) if part)

    @property
    def further_remarks(self) -> str:
        """The reasons for rounding, bias and input scale, in words."""
        parts = [self.rounding_reason, self.input_scale_reason]
        parts += [f"bias {self.bias}"] if self.bias else []
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion, layer by layer.

    ``needs_comfyui`` is the first ComfyUI that loads the result, empty if every supported one does.
    ``notes`` say how the source was read, and ``advice`` how to use the result. ``warnings`` are
    problems that the user may want to fix.
    """

    source: str
    target: str
    recipe: str
    architecture: str
    rounding: str
    layers: tuple[LayerReport, ...]
    warnings: tuple[str, ...] = ()
    calibration: str = "none"
    seconds: float = 0.0
    loras: tuple[AppliedLora, ...] = ()
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    needs_comfyui: str = ""

    @property
    def bytes_before(self) -> int:
        """Bytes of all tensors in the source."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of all tensors written."""
        return sum(layer.bytes_after for layer in self.layers)

    @property
    def dynamic_layers(self) -> tuple[str, ...]:
        """Layers that could have a static ``input_scale`` but have none."""
        return tuple(
            la.name
            for la in self.layers
            if la.runtime_scale
            and la.input_scale is None
            and get_format(la.format).activation_divisor is not None
        )

    def counts(self) -> dict[str, int]:
        """Return the number of Linear layers per format, largest first."""
        return dict(Counter(la.format for la in self.layers if la.kind == "linear").most_common())

    def roundings(self) -> dict[str, int]:
        """Return the number of quantized layers per rounding used, largest first."""
        return dict(Counter(la.rounding for la in self.layers if la.rounding).most_common())

    @property
    def corrected_biases(self) -> int:
        """Number of layers whose bias was corrected."""
        return sum(bool(la.bias_digest) for la in self.layers)

    def overall_error(self) -> OverallError | None:
        """Return the error of all layers together, beside the plain max rule's."""
        return overall_error(self.layers)

    def static_scale_verdict(self) -> str:
        """Return how static input scales compare with dynamic ones; empty if not measured.

        Compares the W4A4 output errors of layers with a static scale: how many are better or worse
        by more than 1%, and the range of the change.
        """
        ratios = [
            la.output_error_w4a4 / la.output_error_runtime_scale
            for la in self.layers
            if la.input_scale is not None
            and la.runtime_scale_is_dynamic
            and la.output_error_w4a4 is not None
            and la.output_error_runtime_scale
        ]
        if not ratios:
            return ""
        better = sum(ratio < 1 - _NOTABLE for ratio in ratios)
        worse = sum(ratio > 1 + _NOTABLE for ratio in ratios)
        return (
            f"static scales compared with dynamic ones, in {len(ratios)} layers: better by more "
            f"than {_NOTABLE:.0%} in {better}, worse in {worse}, otherwise about equal (the error "
            f"changes by {min(ratios) - 1:+.2%} to {max(ratios) - 1:+.2%})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return {
            **asdict(self),
            "roundings": self.roundings(),
            "static_scales": self.static_scale_verdict(),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "formats": self.counts(),
            "dynamic_layers": list(self.dynamic_layers),
        }

    def dumps(self) -> str:
        """Return `to_json` as indented text."""
        return json.dumps(self.to_json(), indent=1)


# A relative change of an error below this is not worth reporting.
_NOTABLE = 0.01
