"""What a node sends to the page: a view, its text, pictures, and the files that it saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import ui

from ...quant.reports.view import LayerView, text_view
from .store import keep_report


def shown(
    view: LayerView, pictures: torch.Tensor | None = None, saved: Sequence[Path] = ()
) -> dict[str, Any]:
    """Return the ``ui`` of a node's output, and keep the view for pages that load later.

    Args:
        view: what the node shows.
        pictures: ``[N, H, W, 3]``, 0 to 1, to show below it.
        saved: the model files that the node wrote; the page then refreshes its lists of models.
    """
    # As text: ComfyUI keeps what nodes showed in its history, where the objects of a large model
    # would take ten times the memory.
    data = json.dumps(view.to_json(), separators=(",", ":"))
    kept = keep_report(data)
    output: dict[str, Any] = {
        **ui.PreviewText(view.text).as_dict(),
        "nvfp4_view": [data],
        "nvfp4_report": [asdict(kept)],
    }
    if pictures is not None:
        output |= ui.PreviewImage(pictures).as_dict()
    if saved:
        output["nvfp4_saved"] = [str(path) for path in saved]
    return output


def shown_text(title: str, text: str, saved: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the ``ui`` of a node whose report is text alone."""
    return shown(text_view(title, text), saved=saved)
