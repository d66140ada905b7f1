"""What a layer gets if a format cannot store its shape: the smallest format after it that can.

A 4-bit format that does not fit would otherwise cost 16 bits. Each format names the next one, so a
chain ends at a format that stores every shape. Recipes for other GPUs name formats of these GPUs
(see `gpu_formats`), and the chain of such a format has only formats that they multiply too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_NEXT: Mapping[str, str] = {
    "nvfp4": "float8_e4m3fn",
    "nvfp4_smooth": "nvfp4",
    "nvfp4_w4a16": "float8_e4m3fn_w8a16",
    "convrot_w4a4": "int8_convrot",
    "convrot_w4a8": "int8_convrot",
    "asym_w4a8_int8": "int8_convrot",
    "int8_convrot": "int8_rowwise",
}


def next_formats(name: str, fallback: str | None = None) -> Iterator[str]:
    """Yield the formats to try if ``name`` does not fit, the best first.

    ``fallback`` is the next format that a rule names itself. It replaces the one of the chain.
    """
    following = fallback or _NEXT.get(name)
    while following:
        yield following
        following = _NEXT.get(following)
