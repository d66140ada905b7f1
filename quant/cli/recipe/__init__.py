"""``nvfp4 recipe``: list the presets, show a recipe, or make one from something else."""

from __future__ import annotations

from ..parser import Commands, add_group
from . import (
    from_calibration,
    from_checkpoint,
    from_gguf,
    from_sensitivity,
    list_presets,
    schema,
    show,
)


def add(commands: Commands) -> None:
    """Add the group and its subcommands."""
    group = add_group(
        commands, "recipe", "List the presets, show a recipe, or make one from something you have."
    )
    for command in (
        list_presets,
        show,
        schema,
        from_gguf,
        from_checkpoint,
        from_calibration,
        from_sensitivity,
    ):
        command.add(group)
