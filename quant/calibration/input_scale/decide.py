"""Decide which static scale each layer gets under a policy, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..coverage import is_partial
from ..records import LayerStatistics
from ..statistics import CalibrationStatistics
from .policy import InputScalePolicy
from .read import read_scales


@dataclass(frozen=True)
class ScaleDecision:
    """The decision on one layer's static scale.

    Either ``amax``, the magnitude that the scale represents, is set, or ``input_scale``, the scale
    itself, or neither: then the scale is dynamic. ``reason`` explains the decision to the user.
    """

    reason: str
    amax: float | None = None
    input_scale: float | None = None

    @property
    def is_static(self) -> bool:
        """Whether the layer gets a static scale."""
        return self.amax is not None or self.input_scale is not None

    def scale_for(self, divisor: float) -> float | None:
        """Return the ``input_scale`` to store; None for a dynamic scale.

        ``divisor`` is the largest value of the format: 6 * 448 = 2688 for NVFP4, 448 for float8.
        """
        return self.input_scale if self.amax is None else self.amax / divisor


def represented_amax(
    policy: InputScalePolicy, layer: LayerStatistics | None, reference_calls: int = 0
) -> ScaleDecision:
    """Decide on the static scale of one layer.

    ``layer`` is None if the layer was not observed. ``reference_calls`` are the calls it should
    have, see `CoverageReport.reference_calls`.
    """
    if policy.kind == "dynamic":
        return ScaleDecision("dynamic: as requested")
    if policy.kind == "fixed":
        return ScaleDecision("static: fixed value, as requested", input_scale=policy.input_scale)
    if layer is None or layer.calls == 0:
        return ScaleDecision("dynamic: the layer was never observed")
    if is_partial(layer.calls, reference_calls):
        return ScaleDecision(
            f"dynamic: only {layer.calls} of {reference_calls} calls were observed"
        )
    if layer.nonfinite_calls:
        return ScaleDecision(f"dynamic: {layer.nonfinite_calls} calls had NaN or infinite inputs")
    if policy.kind == "amax":
        seen, what = layer.amax, f"amax of {layer.calls} calls"
    else:
        seen = layer.percentile(policy.percent)
        what = f"p{policy.percent:g} of the amax of {layer.calls} calls"
    if not seen:
        return ScaleDecision("dynamic: every input was zero")
    return ScaleDecision(
        f"static: {what} ({seen:.4g}) x {policy.headroom:g}", seen * policy.headroom
    )


def decide_scales(
    policy: InputScalePolicy,
    statistics: CalibrationStatistics | None,
    layers: Iterable[str],
    model_layers: Collection[str] = (),
) -> dict[str, ScaleDecision]:
    """Decide on the static scales of many layers of one model.

    Args:
        policy: how the scales are chosen.
        statistics: the calibration; without it no layer counts as observed.
        layers: the layers that take a scale.
        model_layers: all layers of the model, which a file of scales may name.

    Raises:
        CalibrationError: a file of scales cannot be read, or names layers that the model does not
            have.
    """
    names = list(layers)
    if policy.path is not None:
        return _scales_from_file(policy, policy.path, names, model_layers or names)
    if statistics is None:
        return {name: represented_amax(policy, None) for name in names}
    reference = statistics.coverage(names).reference_calls
    return {
        name: represented_amax(policy, statistics.layers.get(name), reference) for name in names
    }


def _scales_from_file(
    policy: InputScalePolicy, path: Path, names: Iterable[str], known: Collection[str]
) -> dict[str, ScaleDecision]:
    stored = read_scales(path, policy.format)
    amax = stored.by_model_name(known)
    factor = policy.headroom if stored.observed else 1.0
    measured = f"amax in {stored.file} x {factor:g}" if stored.observed else f"from {stored.file}"
    return {
        name: ScaleDecision(f"static: {measured}", amax[name] * factor)
        if amax.get(name)
        else ScaleDecision(f"dynamic: {stored.file} has no scale for it")
        for name in names
    }
