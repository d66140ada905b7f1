"""The most memory that error feedback takes on a pretended GPU, beside what the pack reserves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nvfp4_foundry.quant.calibration.moment_accumulator import MomentAccumulator
from nvfp4_foundry.quant.calibration.moments import InputMoments, MomentPart
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.rotation import DEFAULT_GROUP, rotate
from nvfp4_foundry.quant.rounding import GptqRule, feedback, get_rounding, gptq, second_moments
from pretended_gpu import PretendedGpu

_COLUMNS, _ROWS = 512, 2048
# The bands and the random vectors of a real Hessian are a small share of it.
_BAND, _PROBES = 16, 1


@dataclass(frozen=True)
class _Basis:
    """What the factor depends on in a `BlockGrid`."""

    group: int
    block: int = 16


def feedback_memory(gpu: PretendedGpu, folder: Path) -> dict[str, dict[str, int]]:
    """Return peaks, what is reserved for them, and what is kept, in bytes, by case."""
    second_moments.BAND = feedback.BAND = gptq.BAND = _BAND
    feedback._PROBES = _PROBES
    results = {"many rows": _rows(gpu, folder)}
    for name, group in (("gptq", 1), ("gptaq", 1), ("gptq", DEFAULT_GROUP)):
        results[f"{name} in groups of {group}"] = _factor(gpu, folder, name, group)
    return results


def _factor(gpu: PretendedGpu, folder: Path, name: str, group: int) -> dict[str, int]:
    """Make the factor of a wide input."""
    rule = _rule(name, _COLUMNS, folder)
    with gpu.running():
        device = rotate(gpu.to_gpu(torch.zeros(1, DEFAULT_GROUP)), DEFAULT_GROUP).device
        record = gpu.fresh_record()
        basis: Any = _Basis(group)
        rule._factor_for(basis, device, compensate=name == "gptaq")
        kept = gpu.fresh_record().held - record.held
    peak = record.peak - record.held
    return {"peak": peak, "reserved": rule.working_bytes(_COLUMNS, 1), "kept": kept}


def _rows(gpu: PretendedGpu, folder: Path) -> dict[str, int]:
    """Round many rows of a narrow input. The float32 values of the whole weight are not counted."""
    columns = 64
    rule = _rule("gptq", columns, folder)
    weight = torch.randn(_ROWS, columns, generator=torch.Generator().manual_seed(0)).bfloat16()
    with gpu.running():
        on_gpu = gpu.to_gpu(weight)
        record = gpu.fresh_record()
        get_format("nvfp4").encode(on_gpu, rule)
        kept = gpu.fresh_record().held - record.held
    peak = record.peak - record.held - 4 * weight.numel()
    return {"peak": peak, "reserved": rule.working_bytes(columns, _ROWS), "kept": kept}


def _rule(name: str, columns: int, folder: Path) -> GptqRule:
    rule = get_rounding(name).for_input(None, InputMoments((_gathered(columns, folder),)).load())
    assert isinstance(rule, GptqRule)
    return rule


def _gathered(columns: int, folder: Path) -> MomentPart:
    accumulator = MomentAccumulator(columns, torch.device("cpu"))
    x = torch.randn(2 * columns, columns, generator=torch.Generator().manual_seed(1))
    accumulator.add(x, x.abs().amax(), torch.tensor(True))
    part = accumulator.finish("run", folder)
    assert part is not None
    return part
