"""The measures of layers that a view can show: their names, units and explanations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """One measure. Values with the unit ``%`` are fractions: 0.08 is 8%."""

    id: str
    label: str
    unit: Literal["%", "B", ""]
    scale: Literal["log", "linear", "category"]
    help: str

    def to_json(self) -> dict[str, str]:
        """Return JSON-serialisable data."""
        return asdict(self)


_MEASURES: Mapping[str, Measure] = {
    measure.id: measure
    for measure in (
        Measure("format", "format", "", "category", "The format in which the layer is stored."),
        Measure(
            "w4a4", "output error, inputs rounded", "%", "log",
            "W4A4: error of the layer's output on sampled inputs, with the inputs rounded as the "
            "format's native product rounds them.",
        ),
        Measure(
            "w4a16", "output error, 16-bit inputs", "%", "log",
            "W4A16: error of the layer's output on sampled inputs that stay in 16 bits.",
        ),
        Measure("weight", "weight error", "%", "log", "Error of the stored weight."),
        Measure(
            "latent", "latent shift", "%", "log",
            "Shift of the model's output if only this layer is quantized.",
        ),
        Measure("amax", "largest input", "", "log", "Largest absolute input during calibration."),
        Measure(
            "spread", "spread of the largest input", "", "log",
            "Ratio of the largest to the smallest amax of a run; 1 for a single run. A static "
            "scale must cover it.",
        ),
        Measure(
            "input_scale", "input_scale", "", "log",
            "Static scale of the layer's inputs. Empty: left to the runtime.",
        ),
        Measure("bytes", "size", "B", "log", "Stored bytes: weight, scales, bias and marker."),
        Measure(
            "coverage", "coverage", "%", "linear",
            "Observed calls as a share of the calls that a layer of this model should have.",
        ),
        Measure("calls", "calls", "", "linear", "Observed calls of the layer."),
    )
}  # fmt: skip


def measures_with_values(
    values: Mapping[str, Sequence[float | None]], first: Iterable[str] = (), *, formats: bool = True
) -> tuple[Measure, ...]:
    """Return the measures that have a value for any layer: ``first``, then in the usual order."""
    found = {name for name, column in values.items() if any(v is not None for v in column)}
    found |= {"format"} if formats else set()
    order = dict.fromkeys((*first, *_MEASURES))
    return tuple(_MEASURES[name] for name in order if name in found)
