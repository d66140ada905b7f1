"""The networks of ComfyUI's text encoders, at the sizes of their published weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import comfy.text_encoders.gemma4 as gemma
import comfy.text_encoders.gpt_oss as gpt_oss
import comfy.text_encoders.llama as llama
import comfy.text_encoders.qwen3vl as qwen3vl
import comfy.text_encoders.qwen35 as qwen35
import comfy.text_encoders.t5 as t5
import torch

_Make = Callable[[dict[str, Any], torch.dtype, str, Any], torch.nn.Module]


def network_of(model: str, operations: Any) -> torch.nn.Module:
    """Build a text encoder on the meta device with these layers."""
    return _NETWORKS[model]({}, torch.bfloat16, "meta", operations)


def _t5(name: str, _config: Any, *place: Any) -> torch.nn.Module:
    path = Path(t5.__file__).with_name(f"{name}_config_xxl.json")
    return t5.T5(json.loads(path.read_text()), *place)


def _typed(base: type, kind: str) -> type:
    """Return a class of Qwen of one size, as ComfyUI makes them."""
    return type(base.__name__, (base,), {"model_type": kind})


def _gpt_oss(_config: Any, dtype: torch.dtype, device: str, ops: Any) -> torch.nn.Module:
    return gpt_oss.GptOssModel(gpt_oss.GptOss20BConfig(), device=device, dtype=dtype, ops=ops)


def _minimax(_config: Any, *place: Any) -> torch.nn.Module:
    return importlib.import_module("comfy.text_encoders.minimax").MiniMaxQwen3VL({}, *place)


def _minimax_music(_config: Any, *place: Any) -> torch.nn.Module:
    music = importlib.import_module("comfy.text_encoders.minimax_music")
    merged = music.detect_merged_config({})
    network = music.MiniMaxMusic3AR({**music.MODEL_CONFIG, **merged}, *place)
    del network.model.embed_tokens_prefill, network.model.embed_tokens_audio
    del network.model.lm_head_pruned
    return network


_NETWORKS: dict[str, _Make] = {
    "t5-xxl": partial(_t5, "t5"),
    "t5-xxl-first": partial(_t5, "t5_old"),
    "umt5-xxl": partial(_t5, "umt5"),
    "qwen2.5-3b": llama.Qwen25_3B,
    "qwen2.5-vl-7b": llama.Qwen25_7BVLI,
    "qwen3-0.6b": llama.Qwen3_06B,
    "qwen3-2b": llama.Ovis25_2B,
    "qwen3-4b": llama.Qwen3_4B,
    "qwen3-8b": llama.Qwen3_8B,
    "qwen3-vl-4b": _typed(qwen3vl.Qwen3VL, "qwen3vl_4b"),
    "qwen3-vl-8b": _typed(qwen3vl.Qwen3VL, "qwen3vl_8b"),
    "qwen3-vl-32b": _minimax,
    "qwen3.5-2b": _typed(qwen35.Qwen35, "qwen35_2b"),
    "qwen3.5-9b": _typed(qwen35.Qwen35, "qwen35_9b"),
    "gemma2-2b": llama.Gemma2_2B,
    "gemma3-4b": llama.Gemma3_4B,
    "gemma3-4b-vision": llama.Gemma3_4B_Vision,
    "gemma3-12b": llama.Gemma3_12B,
    "gemma4-e2b": gemma.Gemma4_E2B,
    "gemma4-e4b": gemma.Gemma4_E4B,
    "gemma4-12b": gemma.Gemma4_12B,
    "gemma4-31b": gemma.Gemma4_31B,
    "gpt-oss-20b": _gpt_oss,
    "mistral3-24b": llama.Mistral3Small24B,
    "ministral3-3b": llama.Ministral3_3B,
    "llama3-8b": llama.Llama2,
    "minimax-music3-te": _minimax_music,
}
