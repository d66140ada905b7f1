"""``nvfp4 stats``: show, merge, import and export calibrations."""

from __future__ import annotations

from ..parser import Commands, add_group
from . import export, import_log, merge, show


def add(commands: Commands) -> None:
    """Add the group and its subcommands."""
    group = add_group(
        commands,
        "stats",
        "Show or merge calibrations, import activation logs, export input scales.",
    )
    for command in (show, merge, import_log, export):
        command.add(group)
