"""Nodes that had another id or other inputs in earlier versions of the pack.

The server renames them in prompts, and the page in workflows that it opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...quant.derive import MIX_FORMATS


@dataclass(frozen=True)
class Migration:
    """How a node of an earlier version becomes one of this version.

    Attributes:
        id: the node's id now.
        widgets: the names of its widgets then, in their order. A dynamic choice is a mapping with
            ``name``, and ``options``: the widgets of each option.
        inputs: the names that changed, then and now.
        values: inputs that did not exist then, with the value that does the same as before.
        switches: switches that are now one list of choices: their ``prefix``, the ``input`` with
            the list, and the choices that were ``on`` by default.
        dropped: inputs that no longer exist.
        unless: a node that has this input is of this version already.
    """

    id: str
    widgets: tuple[str | Mapping[str, Any], ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    switches: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    unless: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data for the page."""
        return asdict(self)

    def new_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs of a prompt under their names of this version."""
        found = {**self.values}
        prefix = self.switches.get("prefix")
        chosen = dict.fromkeys(self.switches.get("on", ()), True)
        for name, value in inputs.items():
            if prefix and name.startswith(prefix):
                chosen[name.removeprefix(prefix)] = bool(value)
            elif name not in self.dropped:
                found[self.inputs.get(name, name)] = value
        if prefix:
            found[self.switches["input"]] = ", ".join(name for name, on in chosen.items() if on)
        return found


_OLD_FORMATS = (
    "nvfp4", "nvfp4_w4a16", "float8_e4m3fn", "bf16", "fp16", "keep", "int8_tensorwise",
    "int8_rowwise", "int8_convrot", "convrot_w4a4", "convrot_w4a8", "mxfp8",
    "float8_e4m3fn_w8a16", "float8_e5m2",
)  # fmt: skip

#: By the id of earlier versions.
MIGRATIONS: Mapping[str, Migration] = {
    "NVFP4FoundryLoadModel": Migration(
        "NVFP4FoundryLoadSourceModel", ("model_file", "complete_from")
    ),
    "NVFP4FoundryQuantize": Migration("NVFP4FoundryQuantizeModel", ("preview",)),
    "NVFP4FoundryCompare": Migration("NVFP4FoundryCompareSamples", ("gain",)),
    "NVFP4FoundryProbeModel": Migration(
        "NVFP4FoundryProbeLatentShift",
        ("unit", "sigmas", "measure", "formats"),
        dropped=("measure",),
    ),
    "NVFP4FoundryPlanTextEncoder": Migration(
        "NVFP4FoundryPlanLayers", ("encoder", "any_architecture"), {"clip": "model"}
    ),
    "NVFP4FoundryQuantizeTextEncoder": Migration(
        "NVFP4FoundryQuantizeModel",
        ("encoder",),
        {"clip": "model"},
        {"preview": "as this machine runs it"},
        dropped=("encoder",),
    ),
    "NVFP4FoundryLoadSensitivity": Migration(
        "NVFP4FoundryProbeResult", ("name",), {"name": "source"}, {"save_as": ""}
    ),
    "NVFP4FoundryLoadRecipe": Migration(
        "NVFP4FoundryLoadRecipe",
        ("name",),
        {"name": "source.name"},
        {"source": "recipe file"},
        unless="source",
    ),
    "NVFP4FoundryRecipeFromGguf": Migration(
        "NVFP4FoundryLoadRecipe",
        ("gguf_file", "bits_limit", "higher", "edge_blocks", "edge_format"),
        {
            name: f"source.{name}"
            for name in ("gguf_file", "bits_limit", "higher", "edge_blocks", "edge_format")
        },
        {"source": "GGUF"},
    ),
    "NVFP4FoundryRecipeFromCheckpoint": Migration(
        "NVFP4FoundryLoadRecipe",
        ("model_file",),
        {"model_file": "source.model_file"},
        {"source": "checkpoint"},
    ),
    "NVFP4FoundryRecipeFromCalibration": Migration(
        "NVFP4FoundryLoadRecipe",
        ("max_input_error", "max_spread", "careful", "unseen"),
        {
            name: f"source.{name}"
            for name in ("max_input_error", "max_spread", "careful", "unseen")
        },
        {"source": "calibration", "source.calibration": "the connected calibration"},
    ),
    "NVFP4FoundryAutoMix": Migration(
        "NVFP4FoundryAutoMix",
        (
            {
                "name": "budget",
                "options": {
                    "preset's own size": [],
                    "target size": ["budget.gigabytes"],
                    "average bits": ["budget.bits"],
                    "largest error": ["budget.percent"],
                },
            },
            "save_as",
            *(f"allow_{name}" for name in _OLD_FORMATS),
        ),
        switches={"prefix": "allow_", "input": "formats", "on": MIX_FORMATS},
        unless="formats",
    ),
}  # fmt: skip


def migrate(data: dict[str, Any]) -> dict[str, Any]:
    """Rename the nodes of earlier versions in a prompt that was posted."""
    prompt = data.get("prompt")
    if isinstance(prompt, dict):
        for key, node in prompt.items():
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict):
                prompt[key] = _migrated(node)
    return data


def _migrated(node: dict[str, Any]) -> dict[str, Any]:
    name = node.get("class_type")
    known = MIGRATIONS.get(name) if isinstance(name, str) else None
    if known is None or (known.unless and known.unless in node["inputs"]):
        return node
    return {**node, "class_type": known.id, "inputs": known.new_inputs(node["inputs"])}
