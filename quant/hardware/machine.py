"""The formats that this machine runs natively, and the usual reasons for no speed-up."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from .. import VERSION
from .comfyui import TRIED_COMFYUI, TRIED_KITCHEN, outside_of, running_comfyui
from .generations import Generation
from .support import FormatSupport, Gpu, Software, format_support, supported_formats


@dataclass(frozen=True)
class Machine:
    """The software and GPUs of this machine, and advice for its user."""

    tool: str
    python: str
    torch: str
    cuda: str | None
    comfy_kitchen: str
    backends: dict[str, str]
    gpus: tuple[Gpu, ...]
    advice: tuple[str, ...]
    comfyui: str | None = None

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that ComfyUI uses by default; None if there is none."""
        return self.gpus[0] if self.gpus else None

    @property
    def generation(self) -> Generation:
        """The generation of that GPU."""
        return self.gpu.generation if self.gpu else "none"

    @property
    def software(self) -> Software:
        """The versions that matter besides the GPU."""
        return Software(self.torch, self.cuda, self.backends.get("cuda", "missing"))

    def support(self, format_name: str) -> FormatSupport:
        """Return how a quantized format runs on the first GPU with this software."""
        return format_support(format_name, self.gpu, self.software)

    def supported_formats(self) -> tuple[FormatSupport, ...]:
        """Return how each quantized format runs on this machine."""
        return supported_formats(self.gpu, self.software)

    def native_formats(self) -> list[str]:
        """Return the formats that the first GPU multiplies natively with this software."""
        return [s.format for s in self.supported_formats() if s.state == "native"]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return {
            **asdict(self),
            "tried": {"comfyui": list(TRIED_COMFYUI), "comfy_kitchen": list(TRIED_KITCHEN)},
            "generation": self.generation,
            "native_formats": self.native_formats(),
            "formats": [asdict(support) for support in self.supported_formats()],
        }


def examine_machine() -> Machine:
    """Examine torch, CUDA, comfy-kitchen and the GPUs."""
    gpus = _gpus()
    backends = _backends()
    cuda = torch.version.cuda
    kitchen, comfyui = _version("comfy-kitchen"), running_comfyui()
    return Machine(
        tool=f"nvfp4-foundry {VERSION}",
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=cuda,
        comfy_kitchen=kitchen,
        comfyui=comfyui,
        backends=backends,
        gpus=gpus,
        advice=(
            *_untried(comfyui, kitchen),
            *_advice(gpus, Software(torch.__version__, cuda, backends.get("cuda", ""))),
        ),
    )


def this_generation() -> Generation:
    """Return the generation of this machine's first GPU."""
    gpus = _gpus()
    return gpus[0].generation if gpus else "none"


def pick_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ValueError: CUDA is requested but not available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("torch finds no CUDA device; use --device cpu")
    return torch.device("cuda" if available and name in ("auto", "cuda") else "cpu")


def _gpus() -> tuple[Gpu, ...]:
    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        # ROCm numbers its architectures in the same way.
        is_nvidia = torch.version.hip is None
        found.append(Gpu(properties.name, capability, properties.total_memory, is_nvidia))
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


# Advice by generation. It follows the name of the GPU.
_CHOICES: dict[Generation, str] = {
    "blackwell": "multiplies NVFP4 natively. Use any preset.",
    "ada_hopper": "multiplies float8 natively, but not NVFP4. NVFP4 layers save memory and compute "
    "in 16 bits with unquantized activations, so a Blackwell GPU gives other pictures. For speed "
    "choose float8, or asym_w4a8_int8 (4.5 bits) with ComfyUI 0.33, as --gpu auto does.",
    "ampere": "multiplies neither NVFP4 nor float8 natively; these formats save memory only. Its "
    "tensor cores multiply integers: for speed choose asym_w4a8_int8 (4.5 bits, ComfyUI 0.33), "
    "convrot_w4a4 (4 bits) or int8_convrot (8 bits), as --gpu auto does.",
    "turing_ampere": "multiplies neither NVFP4 nor float8 natively; these formats save memory "
    "only. Its tensor cores multiply integers: for speed choose convrot_w4a4 (4 bits) or "
    "int8_convrot (8 bits), as --gpu auto does.",
    "none": "multiplies no quantized format natively. Quantized formats save memory only.",
}


def _untried(comfyui: str | None, kitchen: str) -> list[str]:
    """Return warnings about versions outside of those that the pack was tested with."""
    found = []
    for name, version, tried in (
        ("ComfyUI", comfyui, TRIED_COMFYUI),
        ("comfy-kitchen", kitchen, TRIED_KITCHEN),
    ):
        side = outside_of(version, tried) if version else ""
        if side == "older":
            found.append(
                f"{name} {version} is older than {tried[0]}, the oldest that the pack supports. "
                "Update ComfyUI."
            )
        elif side:
            found.append(
                f"{name} {version} is newer than {tried[-1]}, the newest that the pack was tested "
                "with. Check a first checkpoint with a preview or 'nvfp4 verify', and look for an "
                "update of the pack."
            )
    return found


def _advice(gpus: tuple[Gpu, ...], software: Software) -> list[str]:
    advice = []
    if not gpus:
        advice.append(
            "There is no CUDA GPU. You can calibrate and quantize; the files are the same as from "
            "any other machine. Sampling computes in 16 bits."
        )
    advice += [f"{gpu.name} {_CHOICES[gpu.generation]}" for gpu in gpus]
    if gpus and software.kernels_problem:
        advice.append(
            f"The usual reason for no speed-up: {software.kernels_problem}. Install a torch that "
            "is built for CUDA 13 (cu130)."
        )
    advice += [
        "A LoRA on a quantized model makes ComfyUI requantize the layers that it changes. To keep "
        "the calibrated quality, apply the LoRA before you calibrate and quantize.",
        "Attention takes most of the time for long videos. 4-bit Linear layers speed up only their "
        "own share.",
    ]
    return advice


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
