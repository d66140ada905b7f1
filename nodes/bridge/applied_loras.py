"""The LoRAs before a node, from the prompt that ComfyUI is running."""

from __future__ import annotations

from typing import Any

import folder_paths

import nodes as comfyui_nodes

from ...quant.sources import AppliedLora
from .lora_names import find_loras


def loras_before(hidden: Any) -> tuple[AppliedLora, ...]:
    """Return the LoRA files that the nodes before a node's ``model`` input apply.

    ``hidden`` holds the node's hidden inputs ``dynprompt`` and ``unique_id``; None outside of a
    queue run.
    """
    if hidden is None or hidden.dynprompt is None:
        return ()
    prompt = hidden.dynprompt
    return find_loras(
        {**prompt.original_prompt, **prompt.ephemeral_prompt},
        hidden.unique_id,
        folder_paths.get_filename_list("loras"),
        _output_type,
        expanded=prompt.ephemeral_parents,
    )


def _output_type(class_type: str, number: int) -> str | None:
    # ComfyUI's nodes.py, not this pack's folder of that name
    classes = comfyui_nodes.NODE_CLASS_MAPPINGS  # pyright: ignore[reportAttributeAccessIssue]
    types = getattr(classes.get(class_type), "RETURN_TYPES", ())
    # instead of a type's name, packs may list the options of a COMBO here
    return types[number] if number < len(types) and isinstance(types[number], str) else None
