"""Writes the key lists of published models: ``python generate_key_lists.py FOLDER [MODEL...]``.

Every model is built by ComfyUI's own code, on the meta device, with the configuration of its
published weights, and recognised again by ComfyUI's own detection. A list records the name and
shape of every tensor, the kind of module behind each matrix, whose shapes the detection reads, and
what the loader does to the names. Names are those of ComfyUI's modules, except where the detection
wants those of the published file.

Run with ComfyUI's Python and ComfyUI's folder as ``PYTHONPATH``, FOLDER being ``key_lists``
beside this file. Models that this ComfyUI does not know are skipped. `manifests` reads what this
writes.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

folder, models = Path(sys.argv[1]), sys.argv[2:]
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_detection  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from building import BuiltModel, build_diffusion_model, build_text_encoder  # noqa: E402
from model_configs import DIFFUSION, LIKE, TEXT, VAE, Published  # noqa: E402
from published_names import published_names  # noqa: E402
from shape_reads import WatchedTensor  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "comfyui" / "scripts"))

from foundry_package import import_foundry  # noqa: E402

import_foundry()

from nvfp4_foundry.quant.planning.architectures.folding import (  # noqa: E402
    expand,
    fold,
    natural,
)

#: What a quantized layer stores beside its weight.
QUANTIZED = ("comfy_quant", "weight_scale", "weight_scale_2", "input_scale")

#: Matrices beside the network, which ComfyUI does not decode: Stable Zero123's projection.
BESIDE = ("cc_projection.weight",)


def metadata_of(published: Published) -> dict[str, str] | None:
    """Return the header of the published file, as far as the detection reads it."""
    if not published.transformer:
        return None
    return {"config": json.dumps({"transformer": dict(published.transformer)})}


def detected(tensors: dict[str, Any], published: Published) -> tuple[str, str] | None:
    """Return the class and the configuration that ComfyUI reads from a file; None if it cannot."""
    try:
        found = comfy.model_detection.model_config_from_unet(
            tensors, "", metadata=metadata_of(published)
        )
    except Exception:  # whatever the detection does with a size that it does not expect
        return None
    return type(found).__name__, str(found.unet_config if found else None)


def shapes_read(tensors: dict[str, torch.Tensor], published: Published) -> dict[str, list[str]]:
    """Return the matrices whose rows or columns decide what the file is taken for."""
    watched = {name: WatchedTensor(tensor) for name, tensor in tensors.items()}
    as_published = detected(watched, published)
    if as_published is None or as_published[0] != published.loaded_as:
        raise RuntimeError(f"detected as {as_published}, not {published.loaded_as}")
    found: dict[str, list[str]] = {"rows_read": [], "columns_read": []}
    for name in sorted((n for n, watch in watched.items() if watch.was_read), key=natural):
        if tensors[name].ndim == 2:
            rows, columns = tensors[name].shape
            others = {"rows_read": (2 * rows, columns), "columns_read": (rows, columns // 2)}
            for size, shape in others.items():
                changed = tensors | {name: torch.empty(shape, device="meta")}
                if detected(changed, published) != as_published:
                    found[size].append(name)
    return {size: names for size, names in found.items() if names}


def rewritten(tensors: dict[str, torch.Tensor], built: BuiltModel) -> list[str]:
    """Return the matrices that the loader changes, drops, or renames without their scales."""
    weights = matrices(tensors)
    kept = renamed(tensors, built)
    layers = [name.removesuffix(".weight") for name in weights if name in kept]
    scales = {f"{layer}.{suffix}": torch.empty(1) for layer in layers for suffix in QUANTIZED}
    kept = renamed(tensors | scales, built)
    moved = {name.removesuffix(".weight"): kept[name] for name in weights if name in kept}
    lost = {
        layer
        for layer in layers
        for suffix in QUANTIZED
        if kept.get(f"{layer}.{suffix}") != f"{moved[layer].removesuffix('.weight')}.{suffix}"
    }
    return [name for name in weights if name not in kept or name.removesuffix(".weight") in lost]


def renamed(tensors: dict[str, torch.Tensor], built: BuiltModel) -> dict[str, str]:
    """Return the names that tensors have after the loader; those that it changes are left out."""
    names = {id(tensor): name for name, tensor in tensors.items()}
    loaded = built.process(dict(tensors))
    return {names[id(tensor)]: name for name, tensor in loaded.items() if id(tensor) in names}


def matrices(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of all that could be taken for the weight of a Linear layer."""
    return [name for name, t in tensors.items() if t.ndim == 2 and name.endswith(".weight")]


def kinds(tensors: dict[str, torch.Tensor], built: BuiltModel) -> dict[str, list[str]]:
    """Return the matrices that are no weights of ComfyUI's own Linear, by their kind."""
    found: dict[str, list[str]] = {"embedding": [], "parameter": []}
    loaded = renamed(tensors, built)
    for name in matrices(tensors):
        module = loaded.get(name, "").removesuffix(".weight")
        if module in built.embeddings:
            found["embedding"].append(name)
        elif name in BESIDE or (module in built.modules and module not in built.linears):
            found["parameter"].append(name)
    return found


def record_of(model: str) -> dict[str, Any]:
    """Build a model and return all that is known of it."""
    if model in TEXT:
        built = build_text_encoder(model)
        encoder = TEXT[model]
        record = {"loaded_as": encoder.loaded_as, "since": encoder.since}
        return {**record, **described(built.tensors, built)}
    published = DIFFUSION[model]
    built = build_diffusion_model(published)
    tensors = published_names(model, built.tensors)
    record: dict[str, Any] = {"loaded_as": published.loaded_as, "since": published.since}
    if model in LIKE:
        record["like"] = LIKE[model]
    if published.transformer:
        record["transformer"] = dict(published.transformer)
    record |= shapes_read(tensors, published)
    found = described(tensors, built)
    if model in LIKE:
        found = differences(found, record_of(LIKE[model]))
    return {**record, **found}


def differences(found: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return what a list has and another has not."""
    shapes = {n: shape for key, shape in found["tensors"].items() for n in expand(key)}
    others = {n: shape for key, shape in other["tensors"].items() for n in expand(key)}
    if others.keys() - shapes.keys():
        raise RuntimeError("a list that is like another must have all its tensors")
    new = {name: shape for name, shape in shapes.items() if others.get(name) != shape}
    same = {key for key in found if found[key] == other.get(key)}
    return {key: found[key] for key in found if key not in same} | {"tensors": fold(new)}


def described(tensors: dict[str, torch.Tensor], built: BuiltModel) -> dict[str, Any]:
    """Return names, shapes and kinds, folded."""
    found: dict[str, Any] = {kind: short(names) for kind, names in kinds(tensors, built).items()}
    found["rewritten"] = short(rewritten(tensors, built))
    loaded = renamed(tensors, built)
    banks = (
        name for name in tensors if loaded.get(name, "").removesuffix(".weight") in built.banks
    )
    found["bank"] = short(banks)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return {key: value for key, value in found.items() if value} | {"tensors": fold(shapes)}


def short(names: Iterable[str]) -> list[str]:
    """Fold a list of names."""
    return list(fold(dict.fromkeys(names, True)))


def write(model: str) -> None:
    """Write one list, an entry a line."""
    record = record_of(model)
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    tensors = [f"  {json.dumps(n)}: {json.dumps(shape)}" for n, shape in record["tensors"].items()]
    lines[-1] = ' "tensors": {\n' + ",\n".join(tensors) + "\n }"
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (folder / f"{model}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    known = {cls.__name__ for cls in comfy.supported_models.models}
    encoders = {VAE, *(kind.name for kind in comfy.sd.TEModel)}
    for model in models or (*DIFFUSION, *TEXT):
        published = TEXT.get(model) or DIFFUSION[model]
        if published.loaded_as in known | encoders:
            with suppress(ModuleNotFoundError):  # a text encoder of a newer ComfyUI
                write(model)
