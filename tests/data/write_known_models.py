"""Writes what the pack knows of each architecture: ``python -m tests.data.write_known_models``.

Reads the key lists that ``generate_key_lists.py`` made with ComfyUI's code, joins those of one
architecture, and writes ``quant/planning/architectures/known/ID.json``.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from nvfp4_foundry.quant.planning import detect_architecture, inventory_of
from nvfp4_foundry.quant.planning.architectures.folding import expand, fold, natural
from nvfp4_foundry.quant.planning.layers import block_positions
from nvfp4_foundry.quant.sources import TensorInfo

from tests.data import manifests

KNOWN = Path(__file__).parents[2] / "quant" / "planning" / "architectures" / "known"
#: Names that published files have in another form, which ComfyUI renames as it loads them.
OTHER_FORMS: Mapping[str, str] = {
    "flux1": r"_norm\.weight$",
    "flux2": r"_norm\.weight$",
    "longcat-image": r"_norm\.weight$",
    "ovis-image": r"norm\.weight$",
    "chroma": r"norms?\.(\d+\.)?weight$|_norm\.weight$",
    "chroma-radiance": r"norm",
    "hunyuan-video": r"_attn|_mod|_mlp|norm|modulation|_layer\.|embedder",
    "hunyuan-video-1.5": r"_attn|_mod|_mlp|norm|modulation|_layer\.|embedder",
    "hunyuan-image-2.1": r"_attn|_mod|_mlp|norm|modulation|_layer\.|embedder",
    "hunyuan-image-2.1-refiner": r"_attn|_mod|_mlp|norm|modulation|_layer\.|embedder",
    "hunyuan3d-2": r"norm",
    "stable-cascade": r"\.to_[qkv]\.",
    "wan-dancer": r"^music_encoder\.",
    "sam3": r"[qkv]_proj|^tracker\.",
    "mistral3": r"^model\.norm\.",  # pruned for Flux.2
    "gpt-oss": r"^norm\.",  # Lens does not use it
    # without the towers for pictures and sound, which a prompt of text does not need
    "qwen3.5": r"^model\.visual\.",
    "gemma4": r"^(vision|audio)_\w+\.|^multi_modal_projector\.",
    "minimax-music3-te": r"embed_tokens|lm_head|\.[qkv]_proj|\.(gate|up)_proj",  # joined or pruned
    "pid": r"adaLN_modulation",
    "pixeldit": r"adaLN_modulation",
    "qwen2.5-vl": r"^lm_head\.",
}
#: Architectures that stand for many models, of which one list says little.
MANY_MODELS = ("language-model",)


def inventory_named(model: str) -> Any:
    """Return the inventory of a key list."""
    record = manifests.load_record(model)
    metadata = {"config": json.dumps({"transformer": record.get("transformer", {})})}
    infos = [TensorInfo(n, s, torch.bfloat16) for n, s in manifests.load_key_list(model).items()]
    return inventory_of(infos, metadata=metadata)


def known_models() -> dict[str, dict[str, Any]]:
    """Return what is known of each architecture, ready to be written."""
    models: dict[str, list[str]] = defaultdict(list)
    for model in manifests.GENERATED:
        models[detect_architecture(inventory_named(model)).id].append(model)
    return {
        identity: joined(identity, names)
        for identity, names in models.items()
        if identity not in MANY_MODELS
    }


def joined(identity: str, models: list[str]) -> dict[str, Any]:
    """Join the lists of an architecture."""
    templates = [Templates(manifests.load_key_list(model)) for model in models]
    records = [manifests.load_record(model) for model in models]
    every = set.intersection(*(t.in_every_block for t in templates))
    other_form = OTHER_FORMS.get(identity)
    if other_form:
        every = {name for name in every if not re.search(other_form, name)}
    some = set.union(*(t.all for t in templates)) - every
    found: dict[str, Any] = {"lists": sorted({p for t in templates for p in t.lists}, key=natural)}
    found["since"] = min(record.get("since", "") for record in records)
    for key, read in (("shapes_read", "columns_read"), ("rows_read", "rows_read")):
        names = {n.removesuffix(".weight") for record in records for n in record.get(read, ())}
        found[key] = sorted(names, key=natural)
    found["rows_read"] = [name for name in found["rows_read"] if name not in found["shapes_read"]]
    for kind in ("embedding", "parameter", "rewritten", "bank"):
        found[kind] = short(
            t.of(name)
            for t, record in zip(templates, records, strict=True)
            for folded in record.get(kind, ())
            for name in expand(folded)
        )
    found |= {"every": short(every), "some": short(some)}
    return {key: value for key, value in found.items() if value or key in ("lists", "every")}


class Templates:
    """The names of a key list with ``#`` for the numbers of blocks."""

    def __init__(self, shapes: manifests.Manifest):
        counts = {p.container: p.count for p in block_positions(shapes).values() if p.count > 1}
        self.lists = tuple(counts)
        numbers: dict[str, set[int]] = defaultdict(set)
        for name in shapes:
            prefix, number, _ = self._split(name)
            numbers[self.of(name)].add(number if prefix else 0)
        self.all = set(numbers)
        self.in_every_block = {
            template
            for template, found in numbers.items()
            if found == set(range(counts.get(template.partition(".#.")[0], 1)))
        }

    def of(self, name: str) -> str:
        """Return the template of a name."""
        prefix, _, rest = self._split(name)
        return f"{prefix}.#{rest}" if prefix else name

    def _split(self, name: str) -> tuple[str, int, str]:
        """Return the list of a name, the number of its block, and what follows."""
        for prefix in self.lists:
            if name.startswith(f"{prefix}."):
                number, dot, rest = name[len(prefix) + 1 :].partition(".")
                if number.isdigit():
                    return prefix, int(number), dot + rest
        return "", 0, name


def short(names: Iterable[str]) -> list[str]:
    """Fold names into few."""
    return list(fold(dict.fromkeys(sorted(names, key=natural), True)))


def text_of(known: Mapping[str, Any]) -> str:
    """Return the text of a file, an entry a line."""
    lines = []
    for key, value in known.items():
        if isinstance(value, list) and value:
            entries = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
            lines.append(f" {json.dumps(key)}: [\n{entries}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    KNOWN.mkdir(exist_ok=True)
    for old in KNOWN.glob("*.json"):
        old.unlink()
    for identity, known in known_models().items():
        (KNOWN / f"{identity}.json").write_text(text_of(known), encoding="utf-8")
