"""``nvfp4 recipe from-checkpoint``."""

from __future__ import annotations

import argparse

from ...errors import UsageError
from ..options import add_layout
from ..parser import Commands, add_command
from ..paths import InputPath, require_not_read
from .deliver import add_recipe_output, deliver_derived


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "from-checkpoint",
        run,
        "Make a recipe that gives each layer the format it has in a quantized file of any tool.",
        "nvfp4 recipe from-checkpoint theirs_nvfp4.safetensors --set '*.ffn.2=bf16' "
        "--output mine.json",
    )
    parser.add_argument(
        "checkpoint",
        metavar="FILE",
        type=InputPath,
        help="the quantized file, or hf://owner/repo/file",
    )
    add_layout(parser)
    add_recipe_output(parser, of_preset=False)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...derive import recipe_from_checkpoint
    from ...sources import local_path, open_source

    path = local_path(options.checkpoint)
    if path.suffix.lower() == ".gguf":
        raise UsageError(f"{path} is a GGUF; use 'nvfp4 recipe from-gguf'")
    with open_source(path, layout=options.layout) as checkpoint:
        require_not_read(options, checkpoint.paths)
        derived = recipe_from_checkpoint(checkpoint, path.stem)
    return deliver_derived(derived, options)
