"""``nvfp4 recipe from-gguf``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_layout, wrong_usage
from ..parser import Commands, add_command
from ..paths import InputPath, require_not_read
from .deliver import add_recipe_output, deliver_derived

if TYPE_CHECKING:
    from ...derive import GgufMapping
    from ...planning import Inventory


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "from-gguf",
        run,
        "Make a recipe from the bits that the maker of a GGUF gave each layer.",
        "nvfp4 recipe from-gguf wan2.2_Q4_K_M.gguf --for wan2.2.safetensors --output mine.json",
        "Only the list of tensors is read, not the weights.",
    )
    parser.add_argument(
        "gguf", metavar="GGUF", type=InputPath, help="the file, or hf://owner/repo/file"
    )
    _add_mapping(parser.add_argument_group("what its types become"))
    parser.add_argument(
        "--for",
        dest="target_model",
        metavar="MODEL",
        type=InputPath,
        help="the model that the recipe is for: layers that it lacks are left out and listed",
    )
    add_layout(parser)
    add_recipe_output(parser, of_preset=False)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...derive import recipe_from_gguf
    from ...sources import local_path

    mapping = _mapping(options)
    derived = recipe_from_gguf(local_path(options.gguf), mapping, _target(options))
    return deliver_derived(derived, options)


def _add_mapping(group: argparse._ArgumentGroup) -> None:
    """Add the fields of `GgufMapping`, whose defaults apply to those that are not given."""
    group.add_argument(
        "--bits-limit",
        metavar="N",
        type=int,
        help="types of up to N bits become nvfp4 (default: 4, such as Q4_0, Q4_K, IQ4_XS, Q3_K)",
    )
    group.add_argument(
        "--higher",
        metavar="FORMAT",
        help="what types of more bits become, e.g. bf16 or nvfp4_w4a16 (default: float8_e4m3fn)",
    )
    group.add_argument(
        "--edge-blocks",
        metavar="N",
        type=int,
        help="blocks at each end that get --edge-format (default: 0)",
    )
    group.add_argument(
        "--edge-format", metavar="FORMAT", help="the format of these blocks (default: bf16)"
    )


def _mapping(options: argparse.Namespace) -> GgufMapping:
    from ...derive import GgufMapping

    given = {
        name: getattr(options, name)
        for name in ("bits_limit", "higher", "edge_blocks", "edge_format")
    }
    with wrong_usage():
        return GgufMapping(**{name: value for name, value in given.items() if value is not None})


def _target(options: argparse.Namespace) -> Inventory | None:
    from ...planning import take_inventory
    from ...sources import open_source

    if options.target_model is None:
        return None
    with open_source(options.target_model, layout=options.layout) as source:
        require_not_read(options, source.paths)
        return take_inventory(source)
