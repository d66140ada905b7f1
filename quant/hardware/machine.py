"""What this machine runs natively, and the usual reasons why a quantized model is not faster."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from .. import VERSION
from .generations import Generation
from .support import FormatSupport, Gpu, Software, format_support, supported_formats


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

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that ComfyUI uses unless told otherwise, if there is one."""
        return self.gpus[0] if self.gpus else None

    @property
    def generation(self) -> Generation:
        """What that GPU's tensor cores can do."""
        return self.gpu.generation if self.gpu else "none"

    @property
    def software(self) -> Software:
        """What decides besides the GPU."""
        return Software(self.torch, self.cuda, self.backends.get("cuda", "missing"))

    def support(self, format_name: str) -> FormatSupport:
        """Return how a quantized format runs on the first GPU with this software."""
        return format_support(format_name, self.gpu, self.software)

    def supported_formats(self) -> tuple[FormatSupport, ...]:
        """Return how each quantized format runs here."""
        return supported_formats(self.gpu, self.software)

    def native_formats(self) -> list[str]:
        """Return the formats the first GPU multiplies natively with this software."""
        return [s.format for s in self.supported_formats() if s.state == "native"]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return {
            **asdict(self),
            "generation": self.generation,
            "native_formats": self.native_formats(),
            "formats": [asdict(support) for support in self.supported_formats()],
        }


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
        advice=tuple(_advice(gpus, Software(torch.__version__, cuda, backends.get("cuda", "")))),
    )


def this_generation() -> Generation:
    """Return the generation of this machine's first GPU."""
    gpus = _gpus()
    return gpus[0].generation if gpus else "none"


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
        # ROCm calls its architectures by numbers of the same kind.
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


# By generation, what a GPU is good for.
_CHOICES: dict[Generation, str] = {
    "blackwell": "multiplies NVFP4 natively: presets are made for it.",
    "ada_hopper": "multiplies float8 but not NVFP4: NVFP4 layers save memory there and run in 16 "
    "bits, with unquantized activations, so a Blackwell GPU gives other pictures. For speed take "
    "float8 (--gpu auto does).",
    "turing_ampere": "multiplies neither NVFP4 nor float8, which save memory only. Its tensor "
    "cores multiply integers: take convrot_w4a4 for 4 bits and int8_convrot for 8 (--gpu auto "
    "does).",
    "none": "multiplies no quantized format: they save memory only.",
}


def _advice(gpus: tuple[Gpu, ...], software: Software) -> list[str]:
    advice = []
    if not gpus:
        advice.append(
            "No CUDA GPU: converting and calibrating work, sampling computes in 16 bits. Files "
            "made here are the same as anywhere."
        )
    advice += [f"{gpu.name} {_CHOICES[gpu.generation]}" for gpu in gpus]
    if gpus and software.kernels_problem:
        advice.append(
            f"{software.kernels_problem}. Install torch from the cu130 index. This is the usual "
            "reason for no speed-up."
        )
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
