"""The view of a result that has no layers to show: its text alone."""

from __future__ import annotations

from collections.abc import Iterable

from ..messages import Message
from .layer_view import LayerView, Tile


def text_view(
    title: str, text: str, messages: Iterable[Message] = (), tiles: Iterable[Tile] = ()
) -> LayerView:
    """Return the view of a text report, with messages and tiles above it."""
    return LayerView("text", title, text, tuple(tiles), tuple(messages))
