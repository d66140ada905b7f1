"""Which layers of a conversion a rank encodes, and the reports of all ranks together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

from ..calibration.statistics import CalibrationStatistics
from ..formats import get_format
from ..ranks.alone import Ranks
from ..rounding import NEED_MOMENTS
from .job import ConversionJob
from .observed_input import ObservedInputs
from .report import LayerReport

# Time per weight, relative to `max`. Second-order roundings take as much as `weighted` and a
# product of the weight with the Hessian, which grows with the width of the input.
_COPIED, _ENCODED = 0.3, {"max": 1.0}
_SEARCHED, _WIDTH_PER_UNIT = 4.0, 100.0


def share_of(job: ConversionJob, ranks: Ranks) -> ConversionJob:
    """Return the job with only those layers that this rank encodes, in the same order."""
    rounding = job.plan.recipe.rounding
    costs = {
        layer.name: cost(
            planned.shape, rounding if get_format(planned.format).is_quantized else None
        )
        for layer, planned in job.layers
    }
    mine = share_layers(costs, rounding, job.statistics, ranks)
    return replace(job, layers=tuple(entry for entry in job.layers if entry[0].name in mine))


def share_of_rest(job: ConversionJob, ranks: Ranks) -> Sequence[str]:
    """Return which of the tensors beside the model this rank copies."""
    if job.rest is None:
        return ()
    names = list(job.rest.tensors)
    return [names[i] for i in ranks.share([job.rest.tensors[n].nbytes for n in names])]


def share_layers(
    costs: Mapping[str, float],
    rounding: str,
    statistics: CalibrationStatistics | None,
    ranks: Ranks,
) -> set[str]:
    """Return this rank's layers, out of those whose costs are given.

    Layers of one input stay together where their Hessian is factored, so that this happens once.
    """
    if ranks.size == 1:
        return set(costs)
    groups = [[name] for name in costs]
    if rounding in NEED_MOMENTS:
        groups = ObservedInputs(statistics).by_input(costs)
    mine = ranks.share([sum(costs[name] for name in names) for names in groups])
    return {name for index in mine for name in groups[index]}


def cost(shape: Sequence[int], rounding: str | None) -> float:
    """Return about how long a weight takes; None: it is not quantized. The unit is arbitrary."""
    size = 1.0
    for length in shape:
        size *= length
    if rounding is None:
        return size * _COPIED
    each = _ENCODED.get(rounding, _SEARCHED)
    return size * (each + (shape[-1] / _WIDTH_PER_UNIT if rounding in NEED_MOMENTS else 0.0))


def gather_reports(reports: Iterable[LayerReport], ranks: Ranks) -> list[LayerReport]:
    """Return the reports of all ranks, in no particular order."""
    if ranks.size == 1:
        return list(reports)
    parts = ranks.gather("reports", [asdict(report) for report in reports])
    return [
        LayerReport(**{**data, "shape": tuple(data["shape"])}) for part in parts for data in part
    ]
