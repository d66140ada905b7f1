"""``nvfp4 recipe list``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..parser import Commands, add_command

if TYPE_CHECKING:
    from ...planning.presets import Setting


def add(commands: Commands) -> None:
    """Add the subcommand."""
    add_command(commands, "list", run, "List the presets with their settings.", "nvfp4 recipe list")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...planning import load_presets
    from ..output import print_json

    presets = load_presets().values()
    if options.json:
        return print_json({"presets": [preset.model_dump(mode="json") for preset in presets]})
    for preset in presets:
        print(f"{preset.name}: {preset.description}")
        for setting in preset.settings:
            print(f"    {setting.name}={setting.default}  ({_allowed(setting)})")
    return 0


def _allowed(setting: Setting) -> str:
    if setting.type == "choice":
        return ", ".join(setting.choices)
    return f"{setting.min}-{setting.max}"
