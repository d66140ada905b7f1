"""What a node shows while it works: its bar, a line of text, and events for the live panel."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_execution.utils import get_executing_context

from ...quant.progress import OnProgress, RemainingTime, Throttle, progress_line

#: The event that ``web/live.js`` shows. Its detail has ``node`` and ``kind``.
LIVE_EVENT = "nvfp4_foundry.live"
#: Seconds between two lines of text, and between two live events.
TEXT_SECONDS, LIVE_SECONDS = 0.25, 0.5


def progress_bar(*nodes: str) -> OnProgress:
    """Return a callback that shows progress in the running node and stops if the user cancels.

    It moves the node's bar and writes a line below it, such as ``layer 12 of 300:
    blocks.3.ffn.0, 1 min 20 s left``. The ids in ``nodes`` are of other nodes that show the line
    too.
    """
    bar = comfy.utils.ProgressBar(1000)
    remaining, throttle = RemainingTime(), Throttle(TEXT_SECONDS)

    def advance(done: int, total: int, name: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(int(1000 * done / max(1, total)), 1000)
        left = remaining.update(done, total)
        if throttle.ready(force=done >= total):
            show_text(progress_line(name, left if done < total else None), *nodes)

    return advance


def show_text(text: str, *nodes: str) -> None:
    """Show a line of text in the running node and in the nodes with these ids."""
    server, context = _server(), get_executing_context()
    if server is not None:
        running = (context.node_id,) if context is not None else ()
        for node in filter(None, dict.fromkeys((*running, *nodes))):
            server.send_progress_text(text, node, server.client_id)


def send_live(node: str, kind: str, detail: Mapping[str, Any]) -> None:
    """Send a live event to the page that queued the workflow: ``detail`` of one node."""
    server = _server()
    if server is not None:
        server.send_sync(LIVE_EVENT, {"node": node, "kind": kind, **detail}, server.client_id)


def _server() -> Any:
    """Return the running server; None in a process without one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
