"""Recognise sources that cannot be quantized, and tell the user what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import IncompleteError, SourceError
from ..files.json_file import read_json_object
from .base import TensorInfo, TensorSource
from .vaes import vae_without_quantization

COMPLETE_FROM = (
    "give the original model, or another file that holds them, as --complete-from (in the nodes: "
    "complete_from)"
)
_LORA = (".lora_A.weight", ".lora_B.weight", ".lora_up.weight", ".lora_down.weight",
         ".lora_A.default.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a")  # fmt: skip
# What names of ControlNets begin with, those of ComfyUI's comfy/controlnet.py among them.
_CONTROLNET = (
    "controlnet_", "control_model.", "control_blocks.", "control_add_embedding.",
    "after_proj_list.", "zero_convs.", "input_hint_block.", "lora_controlnet",
)  # fmt: skip
# The vocabulary of UMT5. Its files for ComfyUI hold the tokenizer as the tensor spiece_model.
_UMT5_WORDS = 256384
_NAMED = 3
# The settings of diffusers and transformers that count blocks, and what the lists are called.
_BLOCK_COUNTS = {
    "num_layers": ("transformer_blocks.", "double_blocks.", "blocks."),
    "num_single_layers": ("single_transformer_blocks.", "single_blocks."),
    "num_hidden_layers": ("model.layers.", "model.language_model.layers."),
}


def require_model(source: TensorSource) -> None:
    """Refuse files that do not hold a model.

    Raises:
        SourceError: the message says what the file is.
    """
    names = source.tensors
    if not names:
        raise SourceError(f"{source.description} holds no tensors; choose a file with a model")
    lora = _first_ending(names, _LORA)
    if lora:
        raise SourceError(
            f"{source.description} is a LoRA ({lora}), not a model; load the model in ComfyUI, add "
            "the LoRA with a LoRA loader, and use Quantize Model to NVFP4"
        )
    controlnet = next((name for name in names if name.startswith(_CONTROLNET)), None)
    if controlnet:
        raise SourceError(
            f"{source.description} is a ControlNet ({controlnet}); keep it as it is, because "
            "ComfyUI builds ControlNets from layers that do not load quantized weights"
        )
    vae = vae_without_quantization(names)
    if vae:
        raise SourceError(
            f"{source.description} is a VAE ({vae}); keep it as it is, because ComfyUI builds it "
            "from layers that do not load quantized weights. The video VAE of MiniMax H3 is the "
            "only one that it loads quantized"
        )


def require_complete(source: TensorSource) -> None:
    """Refuse a model that lacks tensors that ComfyUI needs, or blocks that its config counts.

    Raises:
        IncompleteError: the message names the recognised model and what is missing.
    """
    _require_all_blocks(source)
    missing = list(_missing(source))
    if missing:
        examples = ", ".join(missing[:_NAMED]) + (" and more" if len(missing) > _NAMED else "")
        raise IncompleteError(
            f"{source.description} is {_title(source.tensors)}, but lacks {examples}"
            f"{_why(source, missing)}; {COMPLETE_FROM}"
        )


def _require_all_blocks(source: TensorSource) -> None:
    """Compare the lists of blocks with the ``config.json`` beside the files.

    Raises:
        IncompleteError: a list stops early.
    """
    for folder in {path if path.is_dir() else path.parent for path in source.paths}:
        config = read_json_object(folder / "config.json")
        for setting, containers in _BLOCK_COUNTS.items():
            wanted = config.get(setting)
            count = max((_count(source.tensors, name) for name in containers), default=0)
            if type(wanted) is int and 0 < count < wanted:
                raise IncompleteError(
                    f"{source.description} ends after block {count - 1}, but "
                    f"{folder / 'config.json'} says that the model has {wanted} ({setting}); fetch "
                    f"the rest of it, or {COMPLETE_FROM}. If the config is of another model, move "
                    "one of the two to another folder"
                )


def _count(names: Iterable[str], container: str) -> int:
    """Return how many blocks a list has, by the highest number."""
    numbers = (n[len(container) :].partition(".")[0] for n in names if n.startswith(container))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def _missing(source: TensorSource) -> Iterable[str]:
    names = source.tensors
    if _is_wan(names) and "patch_embedding.weight" not in names:
        yield "patch_embedding.weight"
    if _is_gguf(source):  # in other files, a parameter may be named .bias
        for name in names:
            weight = f"{name.removesuffix('.bias')}.weight"
            is_lone = name.endswith(".bias") and weight not in names
            if is_lone and not (_is_wan(names) and weight == "patch_embedding.weight"):
                yield weight
        if "spiece_model" not in names and _rows(names.get("shared.weight")) == _UMT5_WORDS:
            yield "spiece_model"


def _rows(info: TensorInfo | None) -> int | None:
    return info.shape[0] if info and info.shape else None


def _is_wan(names: Mapping[str, TensorInfo]) -> bool:
    return "head.modulation" in names and "blocks.0.self_attn.q.weight" in names


def _is_gguf(source: TensorSource) -> bool:
    return any(path.suffix.lower() == ".gguf" for path in source.paths)


def _title(names: Mapping[str, TensorInfo]) -> str:
    if "encoder.final_layer_norm.weight" in names:
        return "a T5 text encoder"
    if not _is_wan(names):
        return "a model"
    width = names["head.modulation"].shape[-1]
    blocks = {name.split(".")[1] for name in names if name.startswith("blocks.")}
    return f"WAN ({len(blocks)} blocks of width {width})"


def _why(source: TensorSource, missing: list[str]) -> str:
    if _is_gguf(source) and missing == ["patch_embedding.weight"]:
        return ", which has five dimensions although GGUF holds at most four"
    return ""


def _first_ending(names: Iterable[str], endings: tuple[str, ...]) -> str | None:
    return next((name for name in names if name.endswith(endings)), None)
