"""Language models as text encoders, recognised as ComfyUI's ``detect_te_model`` does.

ComfyUI tells most of them apart by the presence of a key or by a width.
"""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks
from .signs import NEWER

_CONTAINERS = ("model.layers", "model.language_model.layers", "layers")
_LINEAR_ATTENTION = "model.language_model.layers.0.linear_attn.A_log"
# Qwen3-VL has it, in the names of its makers or in ComfyUI's.
_DEEPSTACK = ("model.visual.deepstack_merger_list.0.norm", "visual.deepstack_merger_list.0.norm")
#: The rows of ``k_proj.bias`` that ComfyUI knows Qwen2.5 by.
_QWEN25_ROWS = (256, 512)
_QWEN3_WIDTHS = (1024, 2048, 2560, 4096)
_MISTRAL_WIDTHS = {5120: "Mistral 3 Small", 3072: "Ministral 3"}
_LLAMA_WIDTH = 4096

# The ids that only a newer ComfyUI knows, some only with that list of blocks: Qwen3-VL 32B.
_NEW = ("minimax-music3-te", ("qwen3-vl", "model.layers"))

#: The id that all language models had before each family got its own. Saved recipes name it.
_FORMER_ID = "language-model"


def language_model(inventory: Inventory) -> Architecture | None:
    """Recognise a language model; those that ComfyUI does not know are ``language-model``."""
    blocks = next((name for name in _CONTAINERS if name in inventory.containers), None)
    if blocks is None:
        return None
    found = (
        _minimax_music(inventory)
        or _gemma(inventory)
        or _gpt_oss(inventory)
        or _qwen25(inventory)
        or _later_qwen(inventory)
        or _by_width(inventory)
        or _unknown(inventory, blocks)
    )
    if found is None:
        return None
    facts = describe_blocks(inventory, blocks)
    width = _width(inventory, blocks)
    return Architecture(
        *found,
        f"width {width}, {facts}" if width else facts,
        is_text_encoder=True,
        former_ids=() if found[0] == "gpt-oss" else (_FORMER_ID,),
        since=NEWER if found[0] in _NEW or (found[0], blocks) in _NEW else "",
    )


def _gemma(inventory: Inventory) -> tuple[str, str] | None:
    names = inventory.layers
    if "model.layers.0.post_feedforward_layernorm" not in names:
        return None
    last = max(i for i in (-1, 0, 34, 41, 47, 59) if i < 0 or _norm(i) in names)
    if last == 47 and "model.layers.5.self_attn.v_proj" in names:
        return "gemma3", "Gemma 3 12B text encoder"
    if last in _GEMMA_4:
        return "gemma4", f"Gemma 4 {_GEMMA_4[last]} text encoder"
    if last == 0:
        return "gemma3", "Gemma 3 4B text encoder"
    return "gemma2", "Gemma 2 2B text encoder"


#: Gemma 4 by the last of the layers that ComfyUI looks for.
_GEMMA_4 = {34: "E2B", 41: "E4B", 47: "12B", 59: "31B"}


def _norm(block: int) -> str:
    return f"model.layers.{block}.self_attn.q_norm"


def _gpt_oss(inventory: Inventory) -> tuple[str, str] | None:
    needed = ("layers.0.self_attn.sinks", "layers.0.mlp.experts.gate_up_proj")
    if all(name in inventory.layers for name in needed):
        return "gpt-oss", "GPT-OSS text encoder"
    return None


def _minimax_music(inventory: Inventory) -> tuple[str, str] | None:
    if "model.audio_decoder.projection" in inventory.layers:
        return "minimax-music3-te", "MiniMax Music 3 text encoder"
    return None


def _qwen25(inventory: Inventory) -> tuple[str, str] | None:
    first = inventory.layers.get("model.layers.0.self_attn.k_proj")
    if not first or not first.companions or first.companions[0].shape[0] not in _QWEN25_ROWS:
        return None
    if "visual.patch_embed.proj" in inventory.layers:
        return "qwen2.5-vl", "Qwen2.5-VL text encoder"
    return "qwen2.5", "Qwen2.5 text encoder"


def _later_qwen(inventory: Inventory) -> tuple[str, str] | None:
    if _LINEAR_ATTENTION in inventory.layers:
        return "qwen3.5", "Qwen3.5 text encoder"
    if any(name in inventory.layers for name in _DEEPSTACK):
        return "qwen3-vl", "Qwen3-VL text encoder"
    return None


def _by_width(inventory: Inventory) -> tuple[str, str] | None:
    shape = inventory.shape_of("model.layers.0.post_attention_layernorm")
    if not shape:
        return None
    if _norm(0) in inventory.layers:
        return ("qwen3", "Qwen3 text encoder") if shape[0] in _QWEN3_WIDTHS else None
    if shape[0] in _MISTRAL_WIDTHS:
        return "mistral3", f"{_MISTRAL_WIDTHS[shape[0]]} text encoder"
    return ("llama3", "Llama 3 text encoder") if shape[0] == _LLAMA_WIDTH else None


def _unknown(inventory: Inventory, blocks: str) -> tuple[str, str] | None:
    known = blocks != "layers" and f"{blocks}.0.self_attn.q_proj" in inventory.layers
    return (_FORMER_ID, "a language model as text encoder") if known else None


def _width(inventory: Inventory, blocks: str) -> int | None:
    shape = inventory.shape_of(f"{blocks}.0.input_layernorm")
    return shape[0] if shape else None
