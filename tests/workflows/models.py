"""The model files that the templates load, with the addresses of ComfyUI's own templates."""

from __future__ import annotations

from tests.workflows.graph import Model

_HUB = "https://huggingface.co"
_WAN21 = f"{_HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
_WAN22 = f"{_HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
_QWEN = f"{_HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"
_EDIT = f"{_HUB}/Comfy-Org/Qwen-Image-Edit_ComfyUI/resolve/main/split_files"
_LUMINA = f"{_HUB}/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files"
_T5 = f"{_HUB}/comfyanonymous/flux_text_encoders/resolve/main"


def _model(base: str, directory: str, name: str) -> Model:
    folder = "" if base.endswith("/main") else f"/{directory}"
    return Model(name, f"{base}{folder}/{name}", directory)


WAN_5B = _model(_WAN22, "diffusion_models", "wan2.2_ti2v_5B_fp16.safetensors")
WAN_5B_VAE = _model(_WAN22, "vae", "wan2.2_vae.safetensors")
WAN_VAE = _model(_WAN22, "vae", "wan_2.1_vae.safetensors")
UMT5 = _model(_WAN21, "text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
EDIT_2511 = _model(_EDIT, "diffusion_models", "qwen_image_edit_2511_bf16.safetensors")
QWEN_VAE = _model(_QWEN, "vae", "qwen_image_vae.safetensors")
QWEN_VL = _model(_QWEN, "text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors")
FLUX_DEV = _model(
    f"{_HUB}/Comfy-Org/flux1-dev/resolve/main", "diffusion_models", "flux1-dev.safetensors"
)
FLUX_VAE = _model(_LUMINA, "vae", "ae.safetensors")
CLIP_L = _model(_T5, "text_encoders", "clip_l.safetensors")
T5 = _model(_T5, "text_encoders", "t5xxl_fp16.safetensors")

#: Files that ComfyUI's templates do not link; the notes name the page that has them.
WAN_HIGH = "wan2.2_t2v_high_noise_14B_fp16.safetensors"
WAN_LOW = "wan2.2_t2v_low_noise_14B_fp16.safetensors"
QWEN_2512 = "qwen_image_2512_bf16.safetensors"
WAN_PAGE = f"{_HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged"
QWEN_PAGE = f"{_HUB}/Comfy-Org/Qwen-Image_ComfyUI"
