"""The arguments of ``nvfp4``. Imports no torch, so that ``--help`` is quick."""

from __future__ import annotations

import argparse

from .. import VERSION
from .files import (
    add_compare,
    add_inspect,
    add_plan,
    add_quantize,
    add_recipe,
    add_rescale,
    add_verify,
)
from .machine import add_demo, add_doctor
from .measuring import add_mix, add_sensitivity, add_stats
from .shared import Parser

__all__ = ["build_parser"]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = Parser(
        prog="nvfp4",
        description="Turn diffusion models into calibrated, mixed-precision NVFP4 checkpoints.",
    )
    parser.add_argument("--version", action="version", version=f"nvfp4-foundry {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_inspect(commands)
    add_plan(commands)
    add_quantize(commands)
    add_verify(commands)
    add_compare(commands)
    add_rescale(commands)
    add_stats(commands)
    add_sensitivity(commands)
    add_mix(commands)
    add_recipe(commands)
    add_doctor(commands)
    add_demo(commands)
    return parser
