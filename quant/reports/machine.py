"""Report the formats that this machine runs natively, as text."""

from __future__ import annotations

from ..hardware.comfyui import TRIED_COMFYUI, TRIED_KITCHEN
from ..hardware.generations import GENERATIONS
from ..hardware.machine import Machine
from ..hardware.support import STATES
from ..text import text_table


def describe_machine(machine: Machine) -> str:
    """Return the software and GPUs, how each format runs, and the advice."""
    lines = [
        f"{machine.tool}, Python {machine.python}",
        f"torch {machine.torch}, CUDA {machine.cuda or 'none'}",
        f"ComfyUI {machine.comfyui or 'not found'} (tried: {', '.join(TRIED_COMFYUI)})",
        f"comfy-kitchen {machine.comfy_kitchen} (tried: {', '.join(TRIED_KITCHEN)})",
        *(f"  backend {name}: {state}" for name, state in sorted(machine.backends.items())),
    ]
    for gpu in machine.gpus:
        sm = "".join(map(str, gpu.capability))
        lines.append(f"GPU {gpu.name}, SM {sm}, {gpu.memory / 1e9:.0f} GB")
    lines.append(f"generation: {GENERATIONS[machine.generation]}")
    rows = [(s.format, STATES[s.state], s.why) for s in machine.supported_formats()]
    table = text_table(("format", "here", "why"), rows, left=("format", "here", "why"))
    return "\n".join([*lines, "", table, "", *(f"- {line}" for line in machine.advice)])
