"""The prompt that ComfyUI is running, as the node sees it that runs or is about to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..prompts.used_outputs import used_outputs


def outputs_in_use() -> frozenset[int] | None:
    """Return the numbers of the node's outputs that lead to a node that will run.

    Works in ``execute`` and in ``fingerprint_inputs``. None if it is not known: in a graph that
    another node made, whose results go where no link shows, or outside of a queue run.
    """
    context, state = get_executing_context(), get_progress_state()
    if context is None or context.prompt_id != state.prompt_id:
        return None
    prompt = state.dynprompt
    if context.node_id in prompt.ephemeral_parents:
        return None
    nodes = {**prompt.original_prompt, **prompt.ephemeral_prompt}
    targets = [*_targets(context.prompt_id, nodes), *prompt.ephemeral_prompt]
    return used_outputs(nodes, context.node_id, targets)


def _targets(prompt_id: str, nodes: Collection[str]) -> Collection[str]:
    """Return the output nodes that ComfyUI was asked to run; all nodes if that is not known."""
    server = getattr(PromptServer, "instance", None)
    queue: Any = getattr(server, "prompt_queue", None)
    if queue is not None:
        running, _ = queue.get_current_queue()
        # (number, id, prompt, extra data, outputs to run, ...)
        for item in running:
            if item[1] == prompt_id:
                return item[4]
    return nodes
