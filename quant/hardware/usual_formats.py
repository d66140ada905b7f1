"""The formats that are measured and mixed unless told otherwise. Imports no torch."""

from __future__ import annotations

from .generations import Generation

#: What layers are measured in: the formats that recipes for a generation are made of.
MEASURED: dict[Generation, tuple[str, ...]] = {
    "blackwell": ("nvfp4", "nvfp4_w4a16", "float8_e4m3fn"),
    "turing_ampere": ("convrot_w4a4", "convrot_w4a8", "int8_convrot"),
}
#: What mixes are made of. ``nvfp4_w4a16`` is not among them: it is as large as ``nvfp4``, more
#: precise and slower, so it would replace every ``nvfp4``.
MIXED: dict[Generation, tuple[str, ...]] = {
    "blackwell": ("nvfp4", "float8_e4m3fn", "bf16"),
    "turing_ampere": ("convrot_w4a4", "int8_convrot", "bf16"),
}
