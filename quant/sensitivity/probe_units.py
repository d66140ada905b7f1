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

    Raises `CalibrationError` if the sensitivity has none in a format, or the plan none at all.
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
            continue
        candidates = candidate_layers(source, (fmt,), measured)
        found[name] = {layer: candidate for layer, (candidate, _) in candidates.items()}
    if formats and not found:
        raise CalibrationError(
            f"the plan quantizes no layer that the sensitivity has in {', '.join(formats)}; "
            "connect the plan that you give to Auto Mix, or none"
        )
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
    traits, stored = [], {}
    whole = _whole_units(units)
    unquantized = {
        unit: sum(stored_bytes(layers[name], get_format(_UNQUANTIZED)) for name in names)
        for unit, names in whole.items()
    }
    for run, names in runs_of(units).items():
        error = _squared_error(sensitivity, names, run[0])
        if not error:
            continue
        first = layers[names[0]]
        traits.append(
            RunTraits(
                run=run,
                kind=re.sub(r"\d+", "*", first.name),
                container=first.block.container if first.block else None,
                block=first.block.index if first.block else None,
                squared_error=error,
            )
        )
        # A layer that cannot take the format stays as it is.
        formats = {name: run[0] if name in names else _UNQUANTIZED for name in whole[run[1]]}
        stored[run] = sum(stored_bytes(layers[name], get_format(f)) for name, f in formats.items())
    chosen = {name for trait in traits for name in whole[trait.run[1]]}
    return ProbeOrder(traits, stored, unquantized, _planned_bytes(plan, chosen))


def _whole_units(units: UnitsByFormat) -> dict[str, tuple[str, ...]]:
    """Return the layers of each unit in any format."""
    whole: dict[str, dict[str, None]] = {}
    for (_, unit), names in runs_of(units).items():
        whole.setdefault(unit, {}).update(dict.fromkeys(names))
    return {unit: tuple(names) for unit, names in whole.items()}


def _squared_error(sensitivity: Sensitivity, names: Sequence[str], fmt: str) -> float | None:
    """Return the mean squared output error of some layers; None if one is unknown."""
    errors = [sensitivity.candidates(name)[fmt].w4a4 for name in names]
    known = [error**2 for error in errors if error is not None]
    return sum(known) / len(known) if len(known) == len(errors) else None


def _planned_bytes(plan: Plan | None, names: Collection[str]) -> int | None:
    """Return the bytes of some layers in a plan."""
    if plan is None:
        return None
    return sum(layer.bytes_after for layer in plan.quantized() if layer.name in names)
