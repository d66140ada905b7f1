"""Which formats a GPU multiplies natively, and which only save memory.

The requirements are those of ComfyUI 0.29 (``supports_*_compute`` in comfy/model_management.py) and
of the layouts and kernels of comfy-kitchen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..formats import FORMATS, WeightFormat, get_format
from .generations import Capability, Generation, capability_name, generation_of, sm_number

State = Literal["native", "slow", "memory"]
STATES: dict[State, str] = {
    "native": "native",
    "slow": "native, but slow",
    "memory": "saves memory only",
}
_KERNELS_CUDA = (13, 0)


@dataclass(frozen=True)
class Gpu:
    """One GPU: name, compute capability, memory in bytes."""

    name: str
    capability: Capability
    memory: int
    is_nvidia: bool = True

    @property
    def generation(self) -> Generation:
        """The generation of the GPU."""
        return generation_of(self.capability, is_nvidia=self.is_nvidia)


@dataclass(frozen=True)
class Software:
    """The software that uses the GPU: versions of torch and CUDA as text (None without CUDA).

    ``kernels`` is the state of comfy-kitchen's CUDA kernels: ``available``, or why they are not.
    """

    torch: str
    cuda: str | None
    kernels: str

    @property
    def kernels_problem(self) -> str:
        """Why ComfyUI does not use comfy-kitchen's CUDA kernels; empty if it does."""
        if self.cuda is None or _version(self.cuda) < _KERNELS_CUDA:
            built = f"for CUDA {self.cuda}" if self.cuda else "without CUDA"
            return f"torch is built {built}, but comfy-kitchen's CUDA kernels need CUDA 13"
        if self.kernels == "available":
            return ""
        return f"comfy-kitchen's CUDA kernels are not available: {self.kernels}"


@dataclass(frozen=True)
class FormatSupport:
    """How a format runs on a machine, with the reason."""

    format: str
    state: State
    why: str = ""

    def __str__(self) -> str:
        text = f"{self.format}: {STATES[self.state]}"
        return f"{text} ({self.why})" if self.why else text


def format_support(name: str, gpu: Gpu | None, software: Software) -> FormatSupport:
    """Return how a quantized format runs on a GPU (None: no GPU)."""
    fmt = get_format(name)
    if fmt.native_from is None:
        return FormatSupport(name, "memory", "computes in 16 bits on any GPU")
    missing = _missing(fmt, fmt.native_from, gpu, software)
    if missing:
        slow = "multiplies integers without kernels, slower than 16 bits"
        how = slow if fmt.multiplies_integers else "computes in 16 bits"
        return FormatSupport(name, "memory", f"{missing}; {how}")
    if fmt.needs_kernels and software.kernels_problem:
        return FormatSupport(name, "slow", software.kernels_problem)
    return FormatSupport(name, "native", fmt.native_note(gpu.capability) if gpu else "")


def supported_formats(gpu: Gpu | None, software: Software) -> tuple[FormatSupport, ...]:
    """Return how each quantized format runs on a GPU."""
    names = [name for name, fmt in FORMATS.items() if fmt.is_quantized]
    return tuple(format_support(name, gpu, software) for name in names)


def _missing(fmt: WeightFormat, needed: Capability, gpu: Gpu | None, software: Software) -> str:
    """Return what a machine lacks to multiply a format natively; empty if it lacks nothing."""
    if gpu is None:
        return "no CUDA GPU"
    if not gpu.is_nvidia:
        return f"{gpu.name} is not an NVIDIA GPU"
    if gpu.capability < needed:
        return (
            f"needs {capability_name(needed)} or newer (SM {sm_number(needed)}), but {gpu.name} is "
            f"SM {sm_number(gpu.capability)}"
        )
    if fmt.native_torch is not None and _version(software.torch) < fmt.native_torch:
        wanted = ".".join(map(str, fmt.native_torch))
        return f"needs torch {wanted} or newer, but this is torch {software.torch}"
    return ""


def _version(text: str) -> tuple[int, int]:
    """Return the major and minor version; ``2.11.0+cu130`` gives (2, 11)."""
    major, minor, *_ = (*text.split("+")[0].split("."), "0")
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)
