"""Layers whose factors per channel nothing could judge: plain NVFP4 for them.

Factors of one would cost the runtime a multiplication and a newer ComfyUI for nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..calibration.statistics import CalibrationStatistics
from ..formats import get_format
from ..planning.plan import Plan, PlannedLayer
from ..text import shorten


def without_unjudged_factors(plan: Plan, statistics: CalibrationStatistics | None) -> Plan:
    """Return a plan in which layers without Hessians have no factors.

    The plan says so in the reasons of these layers and in a warning.
    """
    observed = statistics.layers if statistics is not None else {}
    changed = {
        planned.name: _plain(planned)
        for planned in plan.quantized()
        if get_format(planned.format).has_channel_scale
        and (planned.name not in observed or observed[planned.name].moments is None)
    }
    if not changed:
        return plan
    layers = tuple(changed.get(layer.name, layer) for layer in plan.layers)
    warning = (
        f"{len(changed)} layers get nvfp4 instead of nvfp4_smooth, whose factors per channel need "
        f"a calibration with Hessians (set hessians_mb in Calibrate): {shorten(tuple(changed))}"
    )
    return replace(plan, layers=layers, warnings=(*plan.warnings, warning))


def _plain(planned: PlannedLayer) -> PlannedLayer:
    smooth, plain = get_format(planned.format), get_format("nvfp4")
    sizes = [fmt.nbytes(planned.shape, torch.bfloat16) for fmt in (smooth, plain)]
    return replace(
        planned,
        format=plain.name,
        reason=f"nvfp4 instead of {smooth.name}: no Hessian of its input; {planned.reason}",
        bytes_after=planned.bytes_after - sizes[0] + sizes[1],
    )
