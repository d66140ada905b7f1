"""Arguments of the subcommands that need no model of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .shared import add_command


def add_doctor(commands: Any) -> None:
    """Add ``nvfp4 doctor``."""
    add_command(
        commands,
        "doctor",
        "Say what this machine runs natively and why NVFP4 may not be faster.",
        "nvfp4 doctor",
    )


def add_demo(commands: Any) -> None:
    """Add ``nvfp4 demo``."""
    parser = add_command(
        commands,
        "demo",
        "Calibrate, quantize and compare a tiny trained WAN, without ComfyUI or downloads.",
        "nvfp4 demo --output demo-output",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("demo-output"),
        help="where to write; files of an earlier demo are replaced",
    )
