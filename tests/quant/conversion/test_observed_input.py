"""What is loaded of a calibration for a rounding, and the memory that is reserved for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    CalibrationStatistics,
    load_statistics,
    moments_folder,
    save_statistics,
)
from nvfp4_foundry.quant.calibration.moments import InputMoments
from nvfp4_foundry.quant.conversion.observed_input import ObservedInputs, working_bytes
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.sources import SafetensorsFile
from safetensors.torch import load_file, save_file

from tests.helpers.moments_by_hand import gathered
from tests.helpers.observed_inputs import WIDTH, low_rank, observe, weight_of

Toy = tuple[SafetensorsFile, CalibrationStatistics, Path]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[InputMoments]:
    """The moments whose residual is loaded."""
    found: list[InputMoments] = []
    plain = InputMoments._load_residual
    monkeypatch.setattr(
        InputMoments, "_load_residual", lambda self: found.append(self) or plain(self)
    )
    return found


def test_gptq_does_not_load_what_only_gptaq_needs(loads: list[InputMoments]) -> None:
    observed, fmt = observe(low_rank()), get_format("nvfp4")
    fmt.encode(weight_of(), observed.rule("gptq"))
    assert loads == [] and observed.moments is not None and observed.moments.residual is None
    fmt.encode(weight_of(), observed.rule("gptaq"))
    fmt.encode(weight_of(), observed.rule("gptaq"))
    assert len(loads) == 1


def test_gptq_of_a_rotated_format_loads_it_too(loads: list[InputMoments]) -> None:
    """It gives back what the rounding to NVFP4 took from the Hessian."""
    moments = InputMoments((gathered(torch.randn(600, 256)),)).load()
    assert loads == []
    direct = moments.with_residual()
    assert len(loads) == 1 and direct.residual is not None and direct.load_residual is None
    assert torch.equal(moments.rotated(64).hessian, direct.rotated(64).hessian)
    assert len(loads) == 2


def test_a_damaged_residual_stops_only_gptaq(toy: Toy, tmp_path: Path) -> None:
    _, statistics, _ = toy
    save_statistics(statistics, tmp_path / "cal.safetensors")
    for file in moments_folder(tmp_path / "cal.safetensors").iterdir():
        tensors = load_file(file)
        del tensors["residual"]
        save_file(tensors, file)
    observed = ObservedInputs(load_statistics(tmp_path / "cal.safetensors")).of("blocks.0.a")
    assert observed is not None
    weight, fmt = torch.randn(16, WIDTH), get_format("nvfp4")
    fmt.encode(weight, observed.rule("gptq"))
    with pytest.raises(CalibrationError, match=r"cannot read the Hessian.*residual"):
        fmt.encode(weight, observed.rule("gptaq"))


def test_memory_is_reserved_for_the_widest_input_with_a_hessian(toy: Toy) -> None:
    """How much that is at the peak is measured in tests/comfyui/test_cuda.py."""
    _, statistics, _ = toy
    assert working_bytes("weighted", statistics) == working_bytes("gptq", None) == 0
    matrix = 4 * WIDTH**2
    gptq, gptaq = (working_bytes(name, statistics) for name in ("gptq", "gptaq"))
    assert gptaq - gptq == matrix < gptq
