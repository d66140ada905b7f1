"""Which formats a GPU multiplies natively, and which merely save memory there.

What ComfyUI 0.29 (``supports_*_compute`` in comfy/model_management.py) and the layouts and kernels
of comfy-kitchen ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..formats import FORMATS

State = Literal["native", "slow", "memory"]
Generation = Literal["blackwell", "ada_hopper", "turing_ampere", "none"]

GENERATIONS: dict[Generation, str] = {
    "blackwell": "Blackwell",
    "ada_hopper": "Ada or Hopper",
    "turing_ampere": "Turing or Ampere",
    "none": "no NVIDIA GPU since Turing",
}
#: What people call them.
GPU_NAMES: dict[str, Generation] = {
    "blackwell": "blackwell",
    "hopper": "ada_hopper",
    "ada": "ada_hopper",
    "ampere": "turing_ampere",
    "turing": "turing_ampere",
}
STATES: dict[State, str] = {
    "native": "native",
    "slow": "native, but slow",
    "memory": "saves memory only",
}

_BLACKWELL, _HOPPER, _ADA, _TURING = (10, 0), (9, 0), (8, 9), (7, 5)
_NAMES = {_BLACKWELL: "Blackwell", _ADA: "Ada", _TURING: "Turing"}
# First compute capability whose tensor cores multiply a format.
_NATIVE_FROM = {
    "nvfp4": _BLACKWELL,
    "float8_e4m3fn": _ADA,
    "mxfp8": _BLACKWELL,
    "int8_tensorwise": _TURING,
    "int8_rowwise": _TURING,
    "int8_convrot": _TURING,
    "convrot_w4a4": _TURING,
    "convrot_w4a8": _TURING,
}
# Multiplied as integers everywhere, by general code where there are no kernels.
_INTEGERS = ("int8_tensorwise", "int8_rowwise", "int8_convrot", "convrot_w4a4", "convrot_w4a8")
_MXFP8_TORCH = (2, 10)
_KERNELS_CUDA = (13, 0)


@dataclass(frozen=True)
class Gpu:
    """One GPU: name, compute capability, memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int
    is_nvidia: bool = True

    @property
    def generation(self) -> Generation:
        """What its tensor cores can do, by their generation."""
        if not self.is_nvidia or self.capability < _TURING:
            return "none"
        if self.capability >= _BLACKWELL:
            return "blackwell"
        return "ada_hopper" if self.capability >= _ADA else "turing_ampere"


@dataclass(frozen=True)
class Software:
    """What runs on the GPU: versions as text, CUDA's None without it.

    ``kernels`` is what comfy-kitchen says of its CUDA kernels: ``available`` or why not.
    """

    torch: str
    cuda: str | None
    kernels: str

    @property
    def kernels_problem(self) -> str:
        """Why ComfyUI does without comfy-kitchen's CUDA kernels; empty if it uses them."""
        if self.cuda is None or _version(self.cuda) < _KERNELS_CUDA:
            return (
                f"torch is built for CUDA {self.cuda or 'none'}, below 13 ComfyUI uses no kernels"
            )
        return "" if self.kernels == "available" else f"comfy-kitchen's kernels: {self.kernels}"


@dataclass(frozen=True)
class FormatSupport:
    """How a format runs on a machine, and why."""

    format: str
    state: State
    why: str = ""

    def __str__(self) -> str:
        text = f"{self.format}: {STATES[self.state]}"
        return f"{text} ({self.why})" if self.why else text


def format_support(name: str, gpu: Gpu | None, software: Software) -> FormatSupport:
    """Return how a quantized format runs on a GPU (None: there is none)."""
    needed = _NATIVE_FROM.get(name)
    if needed is None:
        return FormatSupport(name, "memory", "on any GPU: its products are in 16 bits")
    missing = _missing(name, needed, gpu, software)
    if missing:
        how = "integers without kernels, slower than 16 bits" if name in _INTEGERS else "16 bits"
        return FormatSupport(name, "memory", f"{missing}; computes in {how}")
    if name != "float8_e4m3fn" and software.kernels_problem:  # torch itself multiplies float8
        return FormatSupport(name, "slow", software.kernels_problem)
    if name == "convrot_w4a4" and gpu is not None and gpu.capability >= _HOPPER:
        return FormatSupport(name, "native", "as convrot_w4a8: this GPU has no 4-bit integers")
    return FormatSupport(name, "native")


def supported_formats(gpu: Gpu | None, software: Software) -> tuple[FormatSupport, ...]:
    """Return how each quantized format runs on a GPU."""
    names = [name for name, fmt in FORMATS.items() if fmt.is_quantized]
    return tuple(format_support(name, gpu, software) for name in names)


def _missing(name: str, needed: tuple[int, int], gpu: Gpu | None, software: Software) -> str:
    """Return what a machine lacks to multiply a format natively, or nothing."""
    if gpu is None:
        return "no CUDA GPU"
    if not gpu.is_nvidia:
        return f"{gpu.name} is no NVIDIA GPU"
    if gpu.capability < needed:
        sm = "".join(map(str, gpu.capability))
        wanted = "".join(map(str, needed))
        return f"needs {_NAMES[needed]} or newer (SM {wanted}), {gpu.name} is SM {sm}"
    if name == "mxfp8" and _version(software.torch) < _MXFP8_TORCH:
        return f"needs torch 2.10, this is {software.torch}"
    return ""


def _version(text: str) -> tuple[int, int]:
    """Return major and minor; ``2.11.0+cu130`` is (2, 11)."""
    major, minor, *_ = (*text.split("+")[0].split("."), "0")
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)
