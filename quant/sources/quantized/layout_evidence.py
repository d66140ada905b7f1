"""Whose NVFP4 layout a file without markers has, by what only one reading allows.

ComfyUI and ModelOpt give the tensors of an NVFP4 weight the same names. ComfyUI has the even column
in the high half of a byte and block scales in cuBLAS tiles. ModelOpt has it in the low half, and
scales in rows. Read the wrong way, every weight is noise of the right size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files.json_file import read_json_object
from ...formats.base import roundup
from ...formats.nvfp4_scales import BLOCK
from ...formats.tiles import tiled_shape
from ..base import TensorSource
from ..renamed import find_fusion, find_naming

COMFYUI, MODELOPT = "comfyui", "modelopt"
#: What ``--layout`` takes: whose layout the NVFP4 weights of a file without markers have.
LAYOUTS: Mapping[str, str] = {COMFYUI: "ComfyUI's", MODELOPT: "ModelOpt's"}

_CONFIGS = ("hf_quant_config.json", "config.json")
# Tensors that only the quantizers of ModelOpt leave behind, and one that only ComfyUI writes.
_MODELOPT_SIGNS = (
    "_quantizer._amax", "_quantizer._scale", "_quantizer._pre_quant_scale",
    "_bmm_quantizer.amax", "input_quantizer.amax", "weight_quantizer.amax",
)  # fmt: skip
_COMFYUI_SIGN = ".comfy_attention.config"
_OUR_METADATA = "nvfp4_foundry"


@dataclass(frozen=True)
class Evidence:
    """A layout, and what shows it."""

    layout: str
    reason: str


def other_evidence(source: TensorSource) -> list[Evidence]:
    """Return what names, metadata and configurations beside the file say about its layout."""
    return [
        *_by_names(source),
        *_by_metadata(source.metadata),
        *_by_configs(source.paths),
    ]


def possible_layouts(source: TensorSource, layer: str) -> tuple[str, ...]:
    """Return the layouts that the shapes of a layer allow: both, one, or none if it is damaged."""
    packed, scales = source.info(f"{layer}.weight").shape, source.info(f"{layer}.weight_scale")
    if len(packed) != 2 or len(scales.shape) != 2:
        return ()
    rows, columns = packed[0], packed[1] * 2
    if columns % BLOCK:
        return ()
    found = []
    if rows % BLOCK == 0 and scales.shape == tiled_shape(rows, columns // BLOCK):
        found.append(COMFYUI)
    bias = source.tensors.get(f"{layer}.bias")
    is_padded = bias is not None and len(bias.shape) == 1 and bias.shape[0] != rows
    if scales.shape == (rows, columns // BLOCK) and not is_padded:
        found.append(MODELOPT)
    if is_padded and bias is not None and roundup(bias.shape[0], BLOCK) != rows:
        return ()
    return tuple(found)


def shape_evidence(source: TensorSource, layers: list[str]) -> list[Evidence]:
    """Return the layouts that are the only possible one of a layer, as of an unaligned one."""
    found: dict[str, Evidence] = {}
    for layer in layers:
        possible = possible_layouts(source, layer)
        if len(possible) == 1:
            found.setdefault(possible[0], Evidence(possible[0], f"the shapes of {layer}"))
    return list(found.values())


def _by_names(source: TensorSource) -> Iterator[Evidence]:
    for name in source.tensors:
        if name.endswith(_MODELOPT_SIGNS):
            yield Evidence(MODELOPT, f"the tensor {name}")
            break
    for name in source.tensors:
        if name.endswith(_COMFYUI_SIGN):
            yield Evidence(COMFYUI, f"the tensor {name}")
            break
    naming = find_naming(source.tensors) or find_fusion(source.tensors)
    if naming is not None:
        # ComfyUI renames such a model as it loads it, so it saves it with other names.
        yield Evidence(MODELOPT, f"its names, which are those of {naming.title}")


def _by_metadata(metadata: Mapping[str, str]) -> Iterator[Evidence]:
    if any(_OUR_METADATA in key for key in metadata):
        yield Evidence(COMFYUI, "the header, which says that this tool wrote the file")
    for key, text in metadata.items():
        if "quant" in key.lower() and "modelopt" in text.lower():
            yield Evidence(MODELOPT, f"{key} in the header")
            return


def _by_configs(paths: tuple[Path, ...]) -> Iterator[Evidence]:
    """Yield what the configuration of the model says, which lies beside its files."""
    for folder in {path if path.is_dir() else path.parent for path in paths}:
        for name in _CONFIGS:
            if _is_modelopt(read_json_object(folder / name)):
                yield Evidence(MODELOPT, f"{name} beside the file")
                return


def _is_modelopt(config: Mapping[str, Any]) -> bool:
    quantization = config.get("quantization_config")
    for part in (config, quantization):
        if not isinstance(part, dict):
            continue
        producer = part.get("producer")
        maker = producer.get("name") if isinstance(producer, dict) else None
        if "modelopt" in f"{maker} {part.get('quant_method')}".lower():
            return True
    return False
