"""What this machine runs natively, and the usual reasons why a quantized model is not faster."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from .version import VERSION

# First compute capability whose tensor cores multiply a format.
_NATIVE_FROM = {"float8_e4m3fn": (8, 9), "nvfp4": (10, 0)}
# comfy-kitchen's CUDA kernels are built for CUDA 13; ComfyUI switches them off below that.
_CUDA_NEEDED = (13, 0)


@dataclass(frozen=True)
class Gpu:
    """One GPU: name, compute capability, memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int

    def runs_natively(self, format_name: str) -> bool:
        """Whether its tensor cores multiply the format."""
        needed = _NATIVE_FROM.get(format_name)
        return needed is not None and self.capability >= needed


@dataclass(frozen=True)
class Machine:
    """What was found, and what follows for NVFP4."""

    tool: str
    python: str
    torch: str
    cuda: str | None
    comfy_kitchen: str
    backends: dict[str, str]
    gpus: tuple[Gpu, ...]
    advice: tuple[str, ...]

    def native_formats(self) -> list[str]:
        """Return the formats the first GPU multiplies natively with this software."""
        if not self.gpus:
            return []
        return [f for f in _NATIVE_FROM if self.gpus[0].runs_natively(f)]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return {**asdict(self), "native_formats": self.native_formats()}

    def to_text(self) -> str:
        """Return the findings, then the advice."""
        lines = [
            f"{self.tool}, Python {self.python}",
            f"torch {self.torch}, CUDA {self.cuda or 'none'}",
            f"comfy-kitchen {self.comfy_kitchen}",
            *(f"  backend {name}: {state}" for name, state in sorted(self.backends.items())),
        ]
        for gpu in self.gpus:
            sm = "".join(map(str, gpu.capability))
            lines.append(f"GPU {gpu.name}, SM {sm}, {gpu.memory / 1e9:.0f} GB")
        lines.append(f"native formats: {', '.join(self.native_formats()) or 'none'}")
        lines += ["", *(f"- {line}" for line in self.advice)]
        return "\n".join(lines)


def examine_machine() -> Machine:
    """Look at torch, CUDA, comfy-kitchen and the GPUs."""
    gpus = _gpus()
    backends = _backends()
    cuda = torch.version.cuda
    return Machine(
        tool=f"nvfp4-foundry {VERSION}",
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=cuda,
        comfy_kitchen=_version("comfy-kitchen"),
        backends=backends,
        gpus=gpus,
        advice=tuple(_advice(gpus, cuda, backends)),
    )


def pick_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("no CUDA device is available to this torch; use --device cpu")
    return torch.device("cuda" if available and name in ("auto", "cuda") else "cpu")


def _gpus() -> tuple[Gpu, ...]:
    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        found.append(Gpu(properties.name, capability, properties.total_memory))
    return tuple(found)


def _backends() -> dict[str, str]:
    import comfy_kitchen

    states = {}
    for name, status in comfy_kitchen.list_backends().items():
        if status["disabled"]:
            states[name] = "disabled"
        else:
            states[name] = "available" if status["available"] else str(status["unavailable_reason"])
    return states


def _advice(gpus: tuple[Gpu, ...], cuda: str | None, backends: dict[str, str]) -> list[str]:
    advice = []
    if not gpus:
        advice.append(
            "No CUDA GPU: converting and calibrating work, sampling computes in 16 bits. Files "
            "made here are the same as anywhere."
        )
    for gpu in gpus:
        if gpu.runs_natively("nvfp4"):
            advice.append(f"{gpu.name} multiplies NVFP4 natively.")
        elif gpu.runs_natively("float8_e4m3fn"):
            advice.append(
                f"{gpu.name} multiplies float8 but not NVFP4: NVFP4 layers save memory there and "
                "run in 16 bits, with unquantized activations. A Blackwell GPU gives other "
                "pictures."
            )
        else:
            advice.append(f"{gpu.name} multiplies neither NVFP4 nor float8: they save memory only.")
    if gpus and (cuda is None or tuple(map(int, cuda.split(".")[:2])) < _CUDA_NEEDED):
        advice.append(
            f"torch is built for CUDA {cuda}: ComfyUI disables the fast kernels below CUDA 13. "
            "Install torch from the cu130 index. This is the usual reason for no speed-up."
        )
    if gpus and backends.get("cuda") not in (None, "available"):
        advice.append(f"comfy-kitchen's CUDA backend is off: {backends['cuda']}")
    advice += [
        "A LoRA applied at run time makes ComfyUI requantize the layers it touches; bake it in "
        "before quantizing to keep calibrated quality.",
        "Sampling is limited by attention for long videos: 4-bit Linears speed up their share of "
        "the time only.",
    ]
    return advice


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
