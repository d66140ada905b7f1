"""Arguments of ``nvfp4 recipe`` that make a recipe from a checkpoint or a measurement."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_artefact_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``commands.recipe_from_artefact`` reads, and the schema."""
    group = parser.add_argument_group("from a checkpoint or a measurement")
    origin = group.add_mutually_exclusive_group()
    origin.add_argument(
        "--from-checkpoint",
        metavar="FILE",
        type=Path,
        help="the formats of a quantized file of any tool, layer by layer",
    )
    origin.add_argument(
        "--from-stats",
        metavar="FILE",
        type=Path,
        help="the preset or recipe (default: smart), but --other-format (nvfp4_w4a16) where "
        "sampled inputs lose more than --max-error (12%%) or ranges of runs differ by more than "
        "--max-spread (the headroom), and keep for what was not observed",
    )
    origin.add_argument(
        "--from-sensitivity",
        metavar="FILE",
        type=Path,
        help="the layers that the preset or recipe (default: smart) quantizes, in the cheapest of "
        "--formats with an error up to --max-error (8%%), else in --other-format (keep)",
    )
    group.add_argument("--max-error", metavar="X%", help="largest relative error")
    group.add_argument("--max-spread", metavar="X", type=float, help="largest ratio of amax")
    group.add_argument("--formats", metavar="A,B", help="to choose from (default: all measured)")
    group.add_argument("--other-format", metavar="NAME", help="of layers beyond the limits")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of recipes")
