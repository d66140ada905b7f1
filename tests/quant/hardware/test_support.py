"""Which formats run natively on which GPU, with invented GPUs."""

from __future__ import annotations

import json

import pytest
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.hardware import machine as hardware
from nvfp4_foundry.quant.hardware.comfyui import TRIED_COMFYUI, TRIED_KITCHEN
from nvfp4_foundry.quant.hardware.machine import Machine
from nvfp4_foundry.quant.hardware.support import Gpu, Software, State, format_support
from nvfp4_foundry.quant.planning import for_gpu, get_preset
from nvfp4_foundry.quant.reports.gpu_support import describe_support
from nvfp4_foundry.quant.reports.machine import describe_machine

GTX_1080 = Gpu("GTX 1080", (6, 1), 8 << 30)
V100 = Gpu("V100", (7, 0), 16 << 30)
RTX_2080 = Gpu("RTX 2080", (7, 5), 8 << 30)
RTX_3090 = Gpu("RTX 3090", (8, 6), 24 << 30)
RTX_4090 = Gpu("RTX 4090", (8, 9), 24 << 30)
H100 = Gpu("H100", (9, 0), 80 << 30)
B200 = Gpu("B200", (10, 0), 180 << 30)
RTX_5090 = Gpu("RTX 5090", (12, 0), 32 << 30)
RX_7900 = Gpu("RX 7900", (11, 0), 24 << 30, is_nvidia=False)

FAST = Software("2.11.0+cu130", "13.0", "available")
OLD_CUDA = Software("2.11.0+cu128", "12.8", "available")
OLD_TORCH = Software("2.9.1+cu130", "13.0", "available")
NO_KERNELS = Software("2.11.0+cu130", "13.0", "no file _C.so")

INT8 = {"int8_tensorwise", "int8_rowwise", "int8_convrot"}
INTEGERS = {*INT8, "convrot_w4a4", "convrot_w4a8"}
ASYM = "asym_w4a8_int8"
IN_16_BITS = {"nvfp4_w4a16", "float8_e4m3fn_w8a16", "float8_e5m2"}
QUANTIZED = {name for name, fmt in FORMATS.items() if fmt.is_quantized}


def states(gpu: Gpu | None, software: Software) -> dict[State, set[str]]:
    found: dict[State, set[str]] = {"native": set(), "slow": set(), "memory": set()}
    for name in QUANTIZED:
        found[format_support(name, gpu, software).state].add(name)
    return found


@pytest.mark.parametrize(
    ("gpu", "generation", "native"),
    [
        (GTX_1080, "none", set()),
        (V100, "none", set()),
        (RTX_2080, "turing_ampere", INTEGERS),
        (RTX_3090, "ampere", {*INTEGERS, ASYM}),
        (RTX_4090, "ada_hopper", {*INTEGERS, ASYM, "float8_e4m3fn"}),
        (H100, "ada_hopper", {*INTEGERS, ASYM, "float8_e4m3fn"}),
        (B200, "blackwell", QUANTIZED - IN_16_BITS),
        (RTX_5090, "blackwell", QUANTIZED - IN_16_BITS),
        (RX_7900, "none", set()),
    ],
    ids=lambda value: value.name if isinstance(value, Gpu) else "",
)
def test_native_formats_by_gpu(gpu: Gpu, generation: str, native: set[str]) -> None:
    assert gpu.generation == generation
    assert states(gpu, FAST) == {"native": native, "slow": set(), "memory": QUANTIZED - native}


def test_old_cuda_slows_down_what_needs_kernels() -> None:
    for software in (OLD_CUDA, NO_KERNELS):
        found = states(RTX_5090, software)
        assert found["native"] == {"float8_e4m3fn"}
        assert found["memory"] == IN_16_BITS
    assert "CUDA 12.8" in format_support("nvfp4", RTX_5090, OLD_CUDA).why
    assert "_C.so" in format_support("nvfp4", RTX_5090, NO_KERNELS).why


def test_mxfp8_needs_torch_2_10() -> None:
    support = format_support("mxfp8", RTX_5090, OLD_TORCH)
    assert support.state == "memory" and "torch 2.10" in support.why
    assert format_support("nvfp4", RTX_5090, OLD_TORCH).state == "native"


def test_the_reason_names_what_is_missing() -> None:
    assert "SM 100" in format_support("nvfp4", RTX_4090, FAST).why
    assert "SM 89" in format_support("nvfp4", RTX_4090, FAST).why
    assert "no CUDA GPU" in format_support("nvfp4", None, FAST).why
    assert "RX 7900 is not an NVIDIA" in format_support("int8_rowwise", RX_7900, FAST).why
    assert format_support("convrot_w4a4", RTX_4090, FAST).why == ""
    assert "convrot_w4a8" in format_support("convrot_w4a4", H100, FAST).why


def machine(*gpus: Gpu, software: Software = FAST) -> Machine:
    backends = {"cuda": software.kernels}
    return Machine("t", "3.11", software.torch, software.cuda, "0.2", backends, gpus, ("advice",))


def test_doctor_lists_every_format() -> None:
    text = describe_machine(machine(RTX_3090))
    assert "generation: Ampere" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.split()}
    assert "saves memory only" in lines["nvfp4"] and "native" in lines["convrot_w4a4"]
    data = json.loads(json.dumps(machine(RTX_3090).to_json()))
    assert {entry["format"] for entry in data["formats"]} == QUANTIZED
    assert set(data["native_formats"]) == {*INTEGERS, ASYM}
    assert machine().generation == "none" and machine().native_formats() == []


def test_doctor_says_what_was_tried_and_warns_outside_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = describe_machine(machine(RTX_3090))
    assert f"ComfyUI not found (tried: {', '.join(TRIED_COMFYUI)})" in text
    assert f"comfy-kitchen 0.2 (tried: {', '.join(TRIED_KITCHEN)})" in text
    monkeypatch.setattr(hardware, "_version", lambda package: "0.2.99")
    monkeypatch.setattr(hardware, "running_comfyui", lambda: "0.28.4")
    found = hardware.examine_machine()
    assert found.comfyui == "0.28.4" and found.to_json()["tried"]["comfyui"] == ["0.29", "0.33"]
    older, newer = found.advice[:2]
    assert "ComfyUI 0.28.4 is older than 0.29" in older
    assert f"comfy-kitchen 0.2.99 is newer than {TRIED_KITCHEN[-1]}" in newer
    monkeypatch.setattr(hardware, "_version", lambda package: "0.2.31")
    monkeypatch.setattr(hardware, "running_comfyui", lambda: "0.33.0")
    assert not any(
        "tested" in line or "older" in line for line in hardware.examine_machine().advice
    )


def test_a_recipe_says_what_runs_natively() -> None:
    recipe = get_preset("wan2.2-14b").build()
    here = describe_support(recipe, machine(RTX_3090))
    assert "on RTX 3090" in here
    assert "nvfp4: saves memory only (needs Blackwell" in here and "bf16" not in here
    better = describe_support(for_gpu(recipe, "turing_ampere"), machine(RTX_3090))
    assert "convrot_w4a4: native" in better and "memory" not in better
    assert "no CUDA GPU" in describe_support(recipe, machine())
