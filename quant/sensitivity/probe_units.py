"""The units of a probe: layers to quantize together, and what their shifts depend on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from ..errors import CalibrationError
from ..formats import get_format
from ..planning.inventory import Layer
from ..planning.plan import Plan, stored_bytes
from ..sources.base import TensorSource
from .artefact import Sensitivity
from .gains import RunTraits
from .measure import candidate_layers, quantized_format
from .probe_order import ProbeOrder
from .probe_record import ProbeRun

#: What to quantize together: layers that share an input, each layer, or those of a block.
ProbeUnit = Literal["input", "layer", "block"]

#: Layers by unit, by format.
UnitsByFormat = Mapping[str, Mapping[str, tuple[str, ...]]]

# The format that a mix keeps its most sensitive layers in, with the size of all 16-bit formats.
_UNQUANTIZED = "bf16"


def layers_by_format(
    source: TensorSource,
    sensitivity: Sensitivity,
    formats: Sequence[str],
    plan: Plan | None = None,
) -> dict[str, dict[str, Layer]]:
    """Return the measured layers of each format, by name; with a plan, those that it quantizes.

    Raises `CalibrationError` if a format has none.
    """
    planned = None if plan is None else {layer.name for layer in plan.quantized()}
    found = {}
    for name in dict.fromkeys(formats):
        fmt = quantized_format(name)
        measured = [n for n in sensitivity.layers if name in sensitivity.candidates(n)]
        if not measured:
            raise CalibrationError(
                f"the sensitivity was not measured for {name}; measure it with that format first"
            )
        if planned is not None:
            measured = [n for n in measured if n in planned]
        if not measured:
            raise CalibrationError(
                f"the plan quantizes no layer that the sensitivity has in {name}; connect the plan "
                "that you give to Auto Mix, or none"
            )
        candidates = candidate_layers(source, (fmt,), measured)
        found[name] = {layer: candidate for layer, (candidate, _) in candidates.items()}
    return found


def units_of(
    layers: Collection[Layer], unit: ProbeUnit, sensitivity: Sensitivity
) -> dict[str, tuple[str, ...]]:
    """Return layers grouped by input or by block.

    A layer without an input or block is its own unit, and so is every layer with ``layer``.
    """
    units: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        name = layer.name
        if unit == "block" and layer.block:
            name = f"{layer.block.container}.{layer.block.index}"
        elif unit == "input":
            name = sensitivity.layers[name].input_id or name
        units[name] = (*units.get(name, ()), layer.name)
    return units


def runs_of(units: UnitsByFormat) -> dict[ProbeRun, tuple[str, ...]]:
    """Return the layers of every run, format by format."""
    return {(fmt, unit): names for fmt, each in units.items() for unit, names in each.items()}


def probe_order(
    units: UnitsByFormat,
    layers: Mapping[str, Layer],
    sensitivity: Sensitivity,
    plan: Plan | None,
) -> ProbeOrder:
    """Return what chooses among the runs whose layers have known output errors.

    Nothing is known of the others before they run, so they all have to.
    """
    traits, stored, unquantized = [], {}, {}
    for run, names in runs_of(units).items():
        error = _squared_error(sensitivity, names, run[0])
        if not error:
            continue
        own = [layers[name] for name in names]
        block = own[0].block
        traits.append(
            RunTraits(
                run=run,
                kind=re.sub(r"\d+", "*", own[0].name),
                container=block.container if block else None,
                block=block.index if block else None,
                squared_error=error,
            )
        )
        stored[run] = sum(stored_bytes(layer, get_format(run[0])) for layer in own)
        unquantized[run[1]] = sum(stored_bytes(layer, get_format(_UNQUANTIZED)) for layer in own)
    return ProbeOrder(traits, stored, unquantized, _planned_bytes(plan, units))


def _squared_error(sensitivity: Sensitivity, names: Sequence[str], fmt: str) -> float | None:
    """Return the mean squared output error of some layers; None if one is unknown."""
    errors = [sensitivity.candidates(name)[fmt].w4a4 for name in names]
    known = [error**2 for error in errors if error is not None]
    return sum(known) / len(known) if len(known) == len(errors) else None


def _planned_bytes(plan: Plan | None, units: UnitsByFormat) -> int | None:
    if plan is None:
        return None
    probed = {name for each in units.values() for names in each.values() for name in names}
    return sum(layer.bytes_after for layer in plan.quantized() if layer.name in probed)
