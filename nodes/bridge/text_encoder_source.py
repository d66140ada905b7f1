"""The weights of a text encoder in a CLIP, and a CLIP with a quantized text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import torch

from ...quant.conversion.convert import QuantizedModel
from ...quant.errors import SourceError
from ...quant.sources import TensorSource
from .loading import ModelFiles
from .model_source import ModelSource

_TRANSFORMER = "transformer"


class TextEncoderSource(ModelSource):
    """One text encoder of a CLIP, LoRAs applied, with the layer names of its file.

    ``encoder`` is ComfyUI's name for it (``t5xxl``, ``qwen25_7b``), or empty for the largest.

    Raises:
        SourceError: the CLIP has no such encoder, the encoder is quantized in an unknown way, or
            ComfyUI renamed the layers of its file.
    """

    _kind = "CLIP"

    def __init__(self, clip: Any, encoder: str = ""):
        self.encoder, self._encoder_module = _find_encoder(clip, encoder)
        self._prefix = f"{self.encoder}.{_TRANSFORMER}."
        super().__init__(clip.patcher)
        paths = text_encoder_files(clip.patcher)
        if self._file is None and paths:
            self.close()
            raise SourceError(
                f"ComfyUI renamed the layers of {', '.join(map(str, paths))} when it loaded "
                f"{self.encoder}; use Quantize File to NVFP4 for it"
            )

    def _module(self) -> torch.nn.Module:
        return self._encoder_module.get_submodule(_TRANSFORMER)

    def _files(self) -> list[ModelFiles]:
        return [ModelFiles(path) for path in text_encoder_files(self._model)]

    def _is_of_same_layers(self, file: TensorSource) -> bool:
        # files may have a head or a decoder that ComfyUI skips, or lack the visual tower
        matrices = [info for info in file.tensors.values() if len(info.shape) == 2]
        live = self._live.tensors
        shared = [info for info in matrices if info.name in live]
        agree = all(live[info.name].shape == info.shape for info in shared)
        return agree and 2 * len(shared) > len(matrices)


def encoder_names(clip: Any) -> list[str]:
    """Return ComfyUI's names for the text encoders of a CLIP, the largest first."""
    found = _encoders(clip)
    return sorted(found, key=lambda child: -_weights(found[child]))


def _encoders(clip: Any) -> dict[str, torch.nn.Module]:
    return {
        child: module
        for child, module in clip.cond_stage_model.named_children()
        if hasattr(module, _TRANSFORMER)
    }


def _find_encoder(clip: Any, name: str) -> tuple[str, torch.nn.Module]:
    """Return ComfyUI's name for a text encoder of a CLIP, and the encoder."""
    found = _encoders(clip)
    if not found:
        raise SourceError("this CLIP has no text encoder that can be quantized")
    if name and name not in found:
        raise SourceError(f"this CLIP has no text encoder {name!r}; it has {', '.join(found)}")
    chosen = name or encoder_names(clip)[0]
    return chosen, found[chosen]


def _weights(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def text_encoder_files(patcher: Any) -> list[Path]:
    """Return the files of a CLIP's text encoders; none if it is from a full checkpoint."""
    init = getattr(patcher, "cached_patcher_init", None)
    if not init or init[0] is not comfy.sd.load_clip_model_patcher:
        return []
    paths = [Path(path) for path in init[1][0]]
    return paths if all(path.exists() for path in paths) else []


def clip_from_checkpoint(checkpoint: QuantizedModel, source: TextEncoderSource, clip: Any) -> Any:
    """Return a CLIP with one quantized text encoder, loaded as ComfyUI loads the saved file.

    Reads the other encoders from their files again, without their LoRAs. Returns None if the files
    are unknown.
    """
    paths = text_encoder_files(clip.patcher)
    if not paths or not source.paths:
        return None
    _, directory, clip_type, options = clip.patcher.cached_patcher_init[1][:4]
    state_dicts = [
        _quantized_state_dict(checkpoint)
        if path.samefile(source.paths[0])
        else comfy.utils.load_torch_file(str(path), safe_load=True)
        for path in paths
    ]
    made = comfy.sd.load_text_encoder_state_dicts(
        state_dicts, embedding_directory=directory, clip_type=clip_type, model_options=options
    )
    made.layer_idx = clip.layer_idx
    made.tokenizer_options = dict(clip.tokenizer_options)
    return made


def _quantized_state_dict(checkpoint: QuantizedModel) -> dict[str, torch.Tensor]:
    tensors, _ = comfy.utils.convert_old_quants(
        dict(checkpoint.tensors), model_prefix="", metadata=dict(checkpoint.metadata)
    )
    return tensors
