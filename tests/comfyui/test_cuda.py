"""The pack's arithmetic on a GPU that is pretended: devices, waits, kernels and memory.

``scripts/pretended_gpu.py`` says how. It needs the CUDA build of torch that ComfyUI's Python has.
`docs/performance.md` has the figures.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.comfyui.comfy_python import ComfyUI

CHUNK, MILLION = 2**24, 10**6
#: The widest layers of WAN 14B: 5120 x 13824.
WEIGHTS = 5120 * 13824
#: The most kernels per million weights of such a layer. Roundings that are not named need fewer.
KERNELS = {"max": 10, "searched": 25, "asym_w4a8_int8 max": 30, "asym_w4a8_int8": 90}
MOST_BYTES = 1.5e9


@pytest.fixture(scope="module")
def results(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of ``run_on_pretended_gpu.py``, run once in ComfyUI's own Python."""
    asked = "import torch; print(torch.backends.cuda.is_built())"
    built = subprocess.check_output([comfyui.python, "-c", asked], text=True).strip()
    if built != "True":
        pytest.skip(f"NOT TESTED FOR CUDA: the torch of {comfyui.python} is a CPU build")
    folder = tmp_path_factory.mktemp("cuda")
    comfyui.run("run_on_pretended_gpu.py", folder, timeout=900)
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def encodings(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each format and rounding costs for one chunk and for three."""
    found = results["encodings"]
    assert len(found) > 15
    return found


def test_encodings_are_those_of_the_cpu(encodings: dict[str, Any]) -> None:
    for name, sizes in encodings.items():
        for found in sizes.values():
            facts = ("same", "same error", "decodes", "on the GPU")
            assert all(found[fact] for fact in facts), (name, found)


def test_no_chunk_waits(encodings: dict[str, Any]) -> None:
    for name, sizes in encodings.items():
        one, several = sizes["one"], sizes["several"]
        assert one["waits"] == several["waits"], (name, several["where"])
        assert one["waits"] <= 6, (name, one["where"])
        assert several["decoding waits"] == 0, name


def test_few_kernels(encodings: dict[str, Any]) -> None:
    for name, sizes in encodings.items():
        one, several = (sizes[size]["kernels"] for size in ("one", "several"))
        per_chunk = (several - one) / 2
        found = (one - per_chunk + per_chunk * WEIGHTS / CHUNK) / (WEIGHTS / MILLION)
        fmt, rounding = name.split()
        kind = "max" if rounding == "max" else "searched"
        assert found <= KERNELS.get(name, KERNELS.get(fmt, KERNELS[kind])), (name, found)


def test_error_feedback(results: dict[str, Any]) -> None:
    """Its kernels depend on the number of columns, here 256, and on the chunks of rows."""
    for name, found in results["feedbacks"].items():
        facts = ("same", "same error", "decodes", "on the GPU")
        assert all(found[fact] for fact in facts), (name, found)
        assert found["waits"] <= 15, (name, found["where"])
        assert found["kernels"] <= 20 * 256, name


def test_memory(encodings: dict[str, Any]) -> None:
    for name, sizes in encodings.items():
        one, several = (sizes[size]["bytes"] for size in ("one", "several"))
        rows, width = 128, 256
        per_weight = (several - one) / (2 * rows * width)
        in_chunk = one / (rows * width) - per_weight
        assert per_weight * WEIGHTS + in_chunk * CHUNK < MOST_BYTES, (name, per_weight, in_chunk)


def test_error_feedback_takes_the_memory_that_is_reserved(results: dict[str, Any]) -> None:
    """A node makes so much room on the GPU, and not much more than is true."""
    found = results["feedback memory"]
    for name, case in found.items():
        assert case["peak"] <= case["reserved"] <= 1.4 * case["peak"], (name, case)
    kept = {name: round(case["kept"] / (4 * 512**2), 1) for name, case in found.items()}
    kept.pop("many rows")
    assert kept == {"gptq in groups of 1": 1, "gptaq in groups of 1": 2, "gptq in groups of 256": 1}


def test_emulation_never_waits(results: dict[str, Any]) -> None:
    for name, found in results["emulations"].items():
        assert found["same"] and found["waits"] == 0, (name, found)


def test_hooks_never_wait(results: dict[str, Any]) -> None:
    found = results["calibration"]
    assert found["same"] and found["kernels"] > 100 and found["waits"] == 0, found


def test_choices_wait_a_bounded_number_of_times(results: dict[str, Any]) -> None:
    for name, found in results["choices"].items():
        assert found["same"] and found["reason"] and found["bias"], (name, found)
        assert found["waits"] <= (32 if "gpt" in name else 15), (name, found["where"])


def test_sensitivities_are_those_of_the_cpu(results: dict[str, Any]) -> None:
    assert results["probes"]["measured"] < 1e-5
    assert results["probes"]["shifts"] < 1e-5


def test_banks_of_experts(results: dict[str, Any]) -> None:
    assert all(results["banks"].values()), results["banks"]


def test_conversions_write_the_same_tensors(results: dict[str, Any]) -> None:
    assert all(results["conversions"].values()), results["conversions"]


def test_float8_values_are_only_moved_and_converted(results: dict[str, Any]) -> None:
    costs = [c for sizes in results["encodings"].values() for c in sizes.values()]
    for found in (*costs, *results["emulations"].values(), *results["choices"].values()):
        assert found["float8"] == {}
