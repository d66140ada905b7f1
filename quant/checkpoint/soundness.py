"""What a file alone shows of whether ComfyUI loads it as the model that it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import FoundryError
from ..formats.nvfp4 import PRE_QUANT_SCALE
from ..planning.architectures import Architecture, detect_architecture
from ..planning.architectures.known_models import known_model
from ..planning.completeness import missing_parts
from ..planning.inventory import Inventory, take_inventory
from ..sources import TensorSource, decoded, loaded_names
from ..sources.quantized import decoded_where_known, is_readable
from ..sources.stored_layers import StoredLayer
from ..text import shorten


def soundness_problems(
    opened: TensorSource, checkpoint: TensorSource, layers: Mapping[str, StoredLayer]
) -> Iterator[str]:
    """Yield what would make ComfyUI load other weights than those of the model.

    Args:
        opened: the file, with the names that it has.
        checkpoint: the same without prefix.
        layers: the layers of the checkpoint by name.
    """
    try:
        view = decoded_where_known(checkpoint)
        inventory = take_inventory(view)
    except FoundryError:  # what is damaged is found where it is read
        return
    architecture = detect_architecture(inventory)
    quantized = any(layer.marker is not None for layer in layers.values())
    if architecture.problem and quantized:
        yield f"the model is {architecture.title}: {architecture.problem}"
    yield from _wrong_kinds(layers, inventory, architecture)
    yield from _undecoded(view)
    missing = missing_parts(inventory, architecture)
    if missing:
        yield f"the model lacks {shorten(missing)}, so ComfyUI would fill them with random values"
    if not architecture.is_text_encoder:
        yield from _unloaded(opened, checkpoint)


def needs_newer_comfyui(layers: Mapping[str, StoredLayer]) -> tuple[str, ...]:
    """Return notes on formats that only a newer ComfyUI loads."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in layers.values():
        needed = getattr(layer.format, "needs_comfyui", None)
        if layer.format is not None and needed:
            found[layer.format.name] = needed
        elif PRE_QUANT_SCALE in layer.tensors:
            found[PRE_QUANT_SCALE] = (0, 30)
    return tuple(
        f"{name} needs ComfyUI {'.'.join(map(str, needed))} or newer"
        for name, needed in sorted(found.items())
    )


def _wrong_kinds(
    layers: Mapping[str, StoredLayer], inventory: Inventory, architecture: Architecture
) -> Iterator[str]:
    """Yield quantized layers that ComfyUI never decodes, or takes the model for another by.

    Only what is known of the model counts. For other models, kinds are a guess by the names.
    """
    known = known_model(architecture.id)
    for name, layer in layers.items():
        fmt = layer.format
        if fmt is None or layer.marker is None:
            continue
        kind = known.kind_of(name) if known else None
        if kind is not None and kind not in fmt.kinds:
            yield (
                f"{name}: it is stored as {fmt.name}, but in {architecture.title} it is no Linear "
                f"(kind {kind}), so ComfyUI would use its codes as values"
            )
        if known and known.is_rewritten(name):
            yield f"{name}: ComfyUI's loader changes this weight, so it must not be {fmt.name}"
        wanted = inventory.shape_of(name)
        if name in architecture.shapes_read and wanted and layer.weight.shape != wanted:
            yield (
                f"{name}: ComfyUI recognises the model by the shape of this weight, which "
                f"{fmt.name} packs, so it would take the file for another model"
            )


def _undecoded(view: TensorSource) -> Iterator[str]:
    """Yield the quantized weights that ComfyUI loads without their scales, by convention."""
    found: dict[str, list[str]] = {}
    for name in view.tensors:
        stored = view.stored_weight(name)
        if stored is None or stored.comfyui_reads or not is_readable(stored):
            continue
        if not (stored.format and stored.format.has_channel_scale):  # a newer ComfyUI reads it
            found.setdefault(stored.label, []).append(name.removesuffix(".weight"))
    for label, names in found.items():
        yield (
            f"{shorten(names)}: stored as {label}, which ComfyUI does not decode; convert the "
            "file with 'nvfp4 quantize'"
        )


def _unloaded(opened: TensorSource, checkpoint: TensorSource) -> Iterator[str]:
    """Yield the tensors that ComfyUI would not load because of the prefixes in the file."""
    loaded = loaded_names(opened.tensors)
    lost = [name for name in checkpoint.tensors if name not in loaded]
    if lost:
        prefix = f" (its prefix is {checkpoint.prefix!r})" if checkpoint.prefix else ""
        yield (
            f"ComfyUI would not find {len(lost)} of {len(checkpoint.tensors)} tensors by their "
            f"names{prefix}: {shorten(lost, 3)}; convert the file with 'nvfp4 quantize', which "
            "writes the names that ComfyUI reads"
        )


def not_understood(checkpoint: TensorSource) -> Iterator[str]:
    """Yield the first tensor that the file leaves without meaning, such as a scale of nothing."""
    try:
        decoded(checkpoint)
    except FoundryError as error:
        yield str(error)
