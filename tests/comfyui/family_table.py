"""The tiny models of ``scripts/tiny_families.py``: what ComfyUI takes each for, and its preset."""

FAMILIES = {
    "wan2.2-ti2v": ("WAN22", "wan2.2-ti2v-5b"),
    "flux1": ("Flux", "flux1"),
    "flux2": ("Flux2", "flux2"),
    "hunyuan-video": ("HunyuanVideo", "hunyuan-video"),
    "hunyuan-video-1.5": ("HunyuanVideo15", "hunyuan-video-1.5"),
    "ltxv": ("LTXV", "ltx-2"),
    "ltx-2": ("LTXAV", "ltx-2"),
    "sd1.5": ("BaseModel", "sd1.5"),
    "sdxl": ("SDXL", "sdxl"),
}
