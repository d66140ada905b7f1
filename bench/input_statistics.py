"""What decides which rounding pays: the statistics of the layers' inputs, by kinds of layers."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from fidelity_models import Subject
from nvfp4_foundry.quant.calibration import LayerStatistics

#: An outlier channel has so many times the energy of the median channel: it is 5 times as loud.
OUTLIER_ENERGY = 25.0
COMPARED = ("weighted", "gptq", "gptaq")
#: What the columns of the table mean.
STATISTICS = f"""\
The next tables show what decides which rounding pays, as medians over the layers of each kind. \
*Mean* is the share of the channels' means in the energy of the input, E[x]^2 of E[x^2]. \
*Outliers* are channels with more than {OUTLIER_ENERGY:g} times the energy of the median channel. \
*Spread* is the energy of the channel at the 90th percentile, divided by the one at the 10th. The \
last columns are the squared W4A4 errors of the layers, as ratios to `max`."""


@dataclass(frozen=True)
class InputStatistics:
    """Statistics of one layer's input with K channels.

    ``mean_share`` is the share of the channels' means in the energy: the sum of E[x]^2 divided by
    the sum of E[x^2]. ``outliers`` counts the outlier channels, and ``outlier_share`` is their
    share of the energy. ``spread`` is the energy of the channel at the 90th percentile, divided by
    the one at the 10th.
    """

    in_features: int
    mean_share: float
    outliers: float
    outlier_share: float
    spread: float


@dataclass(frozen=True)
class KindStatistics:
    """Medians over the layers of one kind; ``ratios`` are W4A4 errors by rounding, of `max`."""

    kind: str
    layers: int
    input: InputStatistics
    ratios: Mapping[str, float]


def input_statistics(layer: LayerStatistics) -> InputStatistics:
    """Return the statistics of one layer's input. The mean is that of the sampled rows."""
    energy = torch.from_numpy(layer.mean_square).double()
    rows = layer.rows.double()
    # The mean of R rows also has 1/R of the variance in it.
    variance = rows.var(dim=0).sum()
    mean = rows.mean(dim=0).square().sum() - variance / len(rows)
    loud = energy > OUTLIER_ENERGY * energy.median()
    low, high = torch.quantile(energy, torch.tensor([0.1, 0.9], dtype=torch.float64))
    return InputStatistics(
        in_features=layer.in_features,
        mean_share=float((mean / (mean + variance)).clamp_min(0)),
        outliers=float(loud.sum()),
        outlier_share=float(energy[loud].sum() / energy.sum()),
        spread=float(high / low),
    )


def kind_of(name: str) -> str:
    """Return a layer's name with ``#`` for the number of its block."""
    return re.sub(r"\.\d+\.", ".#.", name, count=1)


def statistics_by_kind(
    subject: Subject, errors: Mapping[str, Mapping[str, float]]
) -> Iterator[KindStatistics]:
    """Yield the statistics of all kinds of layers in blocks, in the order of the model.

    ``errors`` are the relative W4A4 errors of the layers by rounding and name.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in errors["max"]:
        kinds[kind_of(name)].append(name)
    for kind, names in kinds.items():
        inputs = [input_statistics(subject.statistics.layers[name]) for name in names]
        yield KindStatistics(
            kind,
            len(names),
            InputStatistics(
                inputs[0].in_features,
                _median(one.mean_share for one in inputs),
                _median(one.outliers for one in inputs),
                _median(one.outlier_share for one in inputs),
                _median(one.spread for one in inputs),
            ),
            {
                rounding: _median((errors[rounding][n] / errors["max"][n]) ** 2 for n in names)
                for rounding in COMPARED
            },
        )


def statistics_table(subject: Subject, errors: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield the Markdown lines of a table with a row for each kind."""
    titles = "".join(f" `{name}` |" for name in COMPARED)
    yield f"| layers | number | inputs | mean | outliers | their energy | spread |{titles}"
    yield "|---|---|---|---|---|---|---|" + "---|" * len(COMPARED)
    for kind in statistics_by_kind(subject, errors):
        of = kind.input
        ratios = "".join(f" {ratio:.3f} |" for ratio in kind.ratios.values())
        yield (
            f"| `{kind.kind}` | {kind.layers} | {of.in_features} | {of.mean_share:.1%} | "
            f"{of.outliers:g} | {of.outlier_share:.1%} | {of.spread:.1f} |{ratios}"
        )


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
