"""GPU generations by the formats that their tensor cores multiply. Imports no torch."""

from __future__ import annotations

from typing import Literal

Capability = tuple[int, int]
Generation = Literal["blackwell", "ada_hopper", "ampere", "turing_ampere", "none"]

# "turing_ampere" stands for the formats that both multiply: those of Turing. It is older than
# "ampere", and saved recipes and workflows name it.
GENERATIONS: dict[Generation, str] = {
    "blackwell": "Blackwell",
    "ada_hopper": "Ada or Hopper",
    "ampere": "Ampere",
    "turing_ampere": "Turing or Ampere",
    "none": "no NVIDIA GPU of the Turing generation or newer",
}
#: The names that users can give.
GPU_NAMES: dict[str, Generation] = {
    "blackwell": "blackwell",
    "hopper": "ada_hopper",
    "ada": "ada_hopper",
    "ampere": "ampere",
    "turing": "turing_ampere",
}

#: The first compute capability of each generation.
BLACKWELL, HOPPER, ADA, AMPERE, TURING = (10, 0), (9, 0), (8, 9), (8, 0), (7, 5)
_NAMES = {
    BLACKWELL: "Blackwell",
    HOPPER: "Hopper",
    ADA: "Ada",
    AMPERE: "Ampere",
    TURING: "Turing",
}


def generation_of(capability: Capability, *, is_nvidia: bool = True) -> Generation:
    """Return the generation of a GPU with this compute capability."""
    if not is_nvidia or capability < TURING:
        return "none"
    if capability >= BLACKWELL:
        return "blackwell"
    if capability >= ADA:
        return "ada_hopper"
    return "ampere" if capability >= AMPERE else "turing_ampere"


def capability_name(capability: Capability) -> str:
    """Return the name of the generation that introduced a compute capability, such as ``Ada``."""
    return _NAMES.get(capability, f"SM {sm_number(capability)}")


def sm_number(capability: Capability) -> str:
    """Return a compute capability as NVIDIA writes it: ``89`` for (8, 9)."""
    return "".join(map(str, capability))
