"""The formats that are measured and mixed by default. Imports no torch."""

from __future__ import annotations

from .generations import Generation

#: The first ComfyUI that loads `ASYM`, and the format.
ASYM, ASYM_SINCE = "asym_w4a8_int8", (0, 33)
#: The formats that layers are measured in: those of the recipes for a generation. Those of Ampere
#: are for Ada and Hopper too, with a ComfyUI that loads `ASYM`.
MEASURED: dict[Generation, tuple[str, ...]] = {
    "blackwell": ("nvfp4", "nvfp4_w4a16", "float8_e4m3fn"),
    "ampere": (ASYM, "convrot_w4a4", "int8_convrot"),
    "turing_ampere": ("convrot_w4a4", "convrot_w4a8", "int8_convrot"),
}
#: The formats of mixes. ``nvfp4_w4a16`` is not one of them: it is as large as ``nvfp4``, more
#: precise and slower, so it would replace ``nvfp4`` everywhere. The same holds for `ASYM` on
#: Blackwell, whose tensor cores multiply 4-bit floats faster than 8-bit integers.
MIXED: dict[Generation, tuple[str, ...]] = {
    "blackwell": ("nvfp4", "float8_e4m3fn", "bf16"),
    "ampere": (ASYM, "int8_convrot", "bf16"),
    "turing_ampere": ("convrot_w4a4", "int8_convrot", "bf16"),
}
