"""Arguments of ``nvfp4 recipe`` that make a recipe from a GGUF."""

from __future__ import annotations

import argparse


def add_gguf_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``commands.recipe_from_gguf`` reads."""
    group = parser.add_argument_group(
        "from a GGUF", "The bits its maker gave each layer become a recipe; no weights are read."
    )
    group.add_argument("--from-gguf", metavar="FILE", help="the GGUF, or hf://owner/repo/file")
    group.add_argument(
        "--bits-limit",
        metavar="N",
        type=int,
        help="types of up to N bits become nvfp4 (default 4: Q4_0, Q4_K, IQ4_XS, Q3_K, ...)",
    )
    group.add_argument(
        "--higher",
        metavar="FORMAT",
        help="what types of more bits become: float8_e4m3fn (default), bf16, nvfp4_w4a16, ...",
    )
    group.add_argument(
        "--edge-blocks", metavar="N", type=int, help="blocks at each end to keep (default 0)"
    )
    group.add_argument(
        "--edge-format", metavar="FORMAT", help="what those are kept in (default bf16)"
    )
    group.add_argument(
        "--for",
        dest="target_model",
        metavar="MODEL",
        help="the model the recipe is for: layers it does not have are left out and named",
    )
