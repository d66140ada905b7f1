"""Experts that may get no tokens: keep formats from them whose product fails on an empty input.

A router may send no token to an expert. ComfyUI then multiplies a matrix without rows. The scale
that NVFP4 computes of its inputs does not exist then, and the integer products of comfy-kitchen's
general code fail too. Float8 and products in 16 bits give an empty result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..calibration.input_scale import ScaleDecision
from ..formats import WeightFormat, get_format
from ..layer_names import is_expert
from ..planning.plan import Plan, PlannedLayer
from ..text import shorten


def without_idle_failures(plan: Plan, decisions: Mapping[str, ScaleDecision]) -> Plan:
    """Return a plan in which experts without a static input scale have formats that need none.

    The plan says so in the reasons of these layers and in a warning.
    """
    changed: dict[str, PlannedLayer] = {}
    for planned in plan.quantized():
        fmt = get_format(planned.format)
        decision = decisions.get(planned.name)
        has_scale = decision is not None and decision.is_static
        if is_expert(planned.name) and fmt.for_experts and not has_scale:
            changed[planned.name] = _changed(planned, fmt)
    if not changed:
        return plan
    layers = tuple(changed.get(layer.name, layer) for layer in plan.layers)
    return replace(plan, layers=layers, warnings=(*plan.warnings, *_warnings(plan, changed)))


def _changed(planned: PlannedLayer, fmt: WeightFormat) -> PlannedLayer:
    instead = get_format(fmt.for_experts)
    if instead.refusal(planned.shape):
        instead = get_format("float8_e4m3fn_w8a16")
    reason = (
        f"{instead.name} instead of {fmt.name}, which fails if the expert gets no tokens"
        f"{_CALIBRATE if fmt.activation_divisor else ''}; {planned.reason}"
    )
    return replace(planned, format=instead.name, reason=reason)


_CALIBRATE = " and has no static input scale"


def _warnings(plan: Plan, changed: Mapping[str, PlannedLayer]) -> list[str]:
    before = {layer.name: layer.format for layer in plan.layers}
    groups: dict[tuple[str, str], list[str]] = {}
    for name, layer in changed.items():
        groups.setdefault((before[name], layer.format), []).append(name)
    return [
        f"{len(names)} layers of experts get {new} instead of {old}, which fails on an expert "
        "without tokens"
        + (
            "; with a calibration that covers them, they keep it"
            if get_format(old).activation_divisor
            else ""
        )
        + f": {shorten(names)}"
        for (old, new), names in groups.items()
    ]
