"""The tiny models of ``scripts/tiny_families.py``: what ComfyUI takes each for, and its preset.

The class is the one of ``comfy.supported_models``. A family that a ComfyUI does not know is left
out there; what it needs is in `SINCE`.
"""

from __future__ import annotations

from pathlib import Path

FAMILIES = {
    "flux1": ("Flux", "flux1"),
    "flux2": ("Flux2", "flux2"),
    "longcat-image": ("LongCatImage", "flux1"),
    "chroma": ("Chroma", "chroma"),
    "chroma-radiance": ("ChromaRadiance", "chroma"),
    "hunyuan-video": ("HunyuanVideo", "hunyuan-video"),
    "hunyuan-video-1.5": ("HunyuanVideo15", "hunyuan-video-1.5"),
    "hunyuan-image-2.1": ("HunyuanImage21", "hunyuan-video"),
    "sd3.5": ("SD3", "sd3.5"),
    "auraflow": ("AuraFlow", "smart"),
    "hidream-i1": ("HiDream", "hidream-i1"),
    "omnigen2": ("Omnigen2", "omnigen2"),
    "boogu": ("Boogu", "omnigen2"),
    "lumina2": ("Lumina2", "z-image"),
    "z-image": ("ZImage", "z-image"),
    "qwen-image": ("QwenImage", "qwen-image-2512"),
    "mage-flow": ("MageFlow", "smart"),
    "lens": ("Lens", "smart"),
    "joyimage": ("JoyImage", "smart"),
    "krea2": ("Krea2", "krea2"),
    "ideogram4": ("Ideogram4", "ideogram4"),
    "ernie-image": ("ErnieImage", "ernie-image"),
    "pixart-sigma": ("PixArtSigma", "smart"),
    "hunyuan-dit": ("HunyuanDiT", "smart"),
    "hidream-o1": ("HiDreamO1", "hidream-o1"),
    "hunyuan3d-2": ("Hunyuan3Dv2", "smart"),
    "hunyuan3d-2.1": ("Hunyuan3Dv2_1", "smart"),
    "triposplat": ("TripoSplat", "smart"),
    "pixeldit": ("PixelDiTT2I", "smart"),
    "stable-cascade": ("Stable_Cascade_C", "smart"),
    "sd1.5": ("SD15", "sd1.5"),
    "sdxl": ("Segmind_Vega", "sdxl"),
    "ltxv": ("LTXV", "ltx-2"),
    "ltx-2": ("LTXAV", "ltx-2"),
    "mochi": ("GenmoMochi", "smart"),
    "cosmos": ("CosmosT2V", "smart"),
    "cosmos-predict2": ("CosmosT2IPredict2", "cosmos-predict2"),
    "anima": ("Anima", "cosmos-predict2"),
    "cogvideox": ("CogVideoX_T2V", "smart"),
    "kandinsky5": ("Kandinsky5", "kandinsky5"),
    "minimax-h3": ("MiniMaxH3", "minimax-h3"),
    "ace-step": ("ACEStep", "smart"),
    "ace-step-1.5": ("ACEStep15", "smart"),
    "stable-audio": ("StableAudio", "smart"),
    "wan2.1-t2v": ("WAN21_T2V", "wan2.2-14b"),
    "wan2.1-i2v": ("WAN21_I2V", "wan2.2-14b"),
    "wan2.2-ti2v": ("WAN22_T2V", "wan2.2-ti2v-5b"),
    "wan-fun-control": ("WAN21_FunControl2V", "wan-conditioned"),
    "wan-vace": ("WAN21_Vace", "wan-conditioned"),
    "wan-camera": ("WAN21_Camera", "wan-conditioned"),
    "wan2.2-camera": ("WAN22_Camera", "wan-conditioned"),
    "wan-humo": ("WAN21_HuMo", "wan-conditioned"),
    "wan-s2v": ("WAN22_S2V", "wan-conditioned"),
    "wan-animate": ("WAN22_Animate", "wan-conditioned"),
    "wan-animate2": ("WAN_Animate2", "wan-conditioned"),
    "wan-scail": ("WAN21_SCAIL", "wan-conditioned"),
    "wan-scail2": ("WAN21_SCAIL2", "wan-conditioned"),
    "wan-dancer": ("WAN22_WanDancer", "wan-conditioned"),
    "wan-flow-rvs": ("WAN21_FlowRVS", "wan2.2-14b"),
}

#: The first ComfyUI that knows a family, where the oldest that the pack supports does not.
SINCE = {"minimax-h3": (0, 33), "wan-animate2": (0, 33)}

#: Families of which ComfyUI splits layers as it loads them, and names of what it makes.
SPLIT = {
    "stable-cascade": (".attn.to_q", ".attn.to_k", ".attn.to_v"),
    "pixeldit": (".adaLN_modulation_msa", ".adaLN_modulation_mlp"),
}


def known_families(comfyui: Path) -> list[str]:
    """Return the families that a ComfyUI knows."""
    version = _version(comfyui)
    return [name for name in FAMILIES if version >= SINCE.get(name, (0, 0))]


def _version(comfyui: Path) -> tuple[int, ...]:
    """Return the major and minor version of a ComfyUI."""
    values: dict[str, str] = {}
    for line in (comfyui / "comfyui_version.py").read_text().splitlines():
        name, _, value = line.partition("=")
        values[name.strip()] = value.strip(" \"'")
    major, minor, *_ = values["__version__"].split(".")
    return int(major), int(minor)
