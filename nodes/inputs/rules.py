"""The input for rule lines, which the layer map of a node writes too."""

from __future__ import annotations

from comfy_api.latest import io

from ...quant.formats import FORMATS


def rules_input(name: str, precedence: str, *, optional: bool = False) -> io.Input:
    """Return the widget for rule lines; ``precedence`` says in a sentence which rules win."""
    return io.String.Input(
        name,
        multiline=True,
        default="",
        optional=optional,
        placeholder="blocks.*.ffn.2 = bf16\n* @ first:3 = float8_e4m3fn",
        tooltip=f"One 'pattern = format' per line. {precedence} Patterns are globs over layer "
        "names. '@ first:N', '@ last:N' or '@ N-M' limits them to blocks. Formats: "
        f"{', '.join(FORMATS)}.",
    )
