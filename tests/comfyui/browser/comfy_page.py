"""ComfyUI's page in a browser, as a user works with it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.comfyui.comfy_server import ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator

WIDTH, HEIGHT = 1600, 1000
SECONDS = 1000  # milliseconds
Workflow = dict[str, Any]

# Ours are the files of the pack; all others are ComfyUI's and its other extensions'.
_OUR_FOLDER = "nvfp4-foundry"
_READY = (
    "() => window.app?.vueAppReady && window.app.canvas?.graph"
    " && window.app.extensionManager?.workflow?.activeWorkflow"
)
_RENEW = """async () => {
  document.querySelectorAll('dialog[open]').forEach(dialog => dialog.close());
  const { workflow } = window.app.extensionManager;
  const before = [...workflow.openWorkflows];
  await window.app.loadGraphData({ nodes: [], links: [], version: 0.4, last_node_id: 0,
    last_link_id: 0, groups: [], config: {}, extra: {} });
  for (const one of before) await workflow.closeWorkflow(one);
  sessionStorage.clear();
  document.activeElement?.blur?.();
}"""


@dataclass(frozen=True)
class Look:
    """How ComfyUI draws its page: ``classic`` (canvas) or ``vue`` nodes, ``dark`` or ``light``."""

    renderer: str
    theme: str = "dark"

    def __str__(self) -> str:
        """Return a name for files and tests."""
        return f"{self.renderer}-{self.theme}"


def _timeout() -> type[Exception]:
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

    return PlaywrightTimeoutError


class ComfyPage:
    """One page of ComfyUI with a storage of its own."""

    def __init__(self, browser: Browser, server: ComfyServer, look: Look, **context: Any) -> None:
        """Open the page and wait until it can be used; ``context`` is for Playwright's context."""
        self.server, self.look = server, look
        self.problems: list[str] = []
        self.expected: list[str] = []  # parts of errors that are none
        self.context = browser.new_context(
            **{"viewport": {"width": WIDTH, "height": HEIGHT}, **context}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20 * SECONDS)
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error.stack}"))
        self.page.on("console", self._console)
        self._apply_look()
        self.page.goto(f"http://127.0.0.1:{server.port}/")
        self._wait_ready()

    def close(self) -> None:
        """Close the page."""
        self.context.close()

    def reload(self) -> None:
        """Load the page again, as after pressing F5."""
        self.settle(700)  # ComfyUI keeps a draft half a second after a change
        self._apply_look()
        self.page.reload()
        self._wait_ready()

    def renew(self) -> None:
        """Close all workflows, for another test; loading the page takes much longer."""
        self.page.unroute_all()
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        self._apply_look()
        self.page.evaluate(_RENEW)
        self.page.mouse.move(5, 5)
        self.problems.clear()
        self.expected.clear()

    def settle(self, milliseconds: int = 500) -> None:
        """Wait on the page's own clock, so that a busy page does what is due before."""
        self.page.evaluate(
            "ms => new Promise(done => setTimeout("
            "() => requestIdleCallback(done, { timeout: 2000 }), ms))",
            milliseconds,
        )

    def eventually(self, condition: Callable[[], bool], seconds: float = 15) -> bool:
        """Wait until a condition holds; return whether it does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            self.settle(100)
        return condition()

    def screenshot(self, name: str) -> None:
        """Save a picture of the page in the folder ``NVFP4_SCREENSHOTS``, if that is set."""
        folder = os.environ.get("NVFP4_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.settle(300)
            self.page.screenshot(path=Path(folder) / f"{name}-{self.look}.png")

    # Workflows ------------------------------------------------------------------------------------

    def load(self, workflow: Workflow) -> None:
        """Open a workflow in a new tab and show all of it."""
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.settle(400)

    def load_api(self, workflow: Workflow) -> None:
        """Open a workflow in API form, with its nodes far apart."""
        self.page.evaluate(
            "async workflow => { await window.app.loadApiJson(workflow, 'test');"
            " window.app.rootGraph.nodes.forEach((node, at) => { node.pos = [at * 1500, 0]; }); }",
            workflow,
        )
        self.settle(600)

    def tab(self) -> str:
        """Return the path of the workflow that is open."""
        return self.page.evaluate("() => window.app.extensionManager.workflow.activeWorkflow.path")

    def open_tab(self, path: str) -> None:
        """Open the tab of a workflow with a click."""
        name = path.rsplit("/", 1)[-1].removesuffix(".json")
        self.page.get_by_text(name, exact=True).first.click()
        self.page.wait_for_function(
            "path => window.app.extensionManager.workflow.activeWorkflow.path === path", arg=path
        )
        self.settle(1000)

    def clear(self) -> None:
        """Take all nodes away."""
        self.page.evaluate("() => window.app.rootGraph.clear()")

    def show(self, left: float, top: float, scale: float = 1.0) -> None:
        """Move the canvas so that a point of the graph is at the top left."""
        self.page.evaluate(
            "([x, y, scale]) => { const { ds } = window.app.canvas; ds.scale = scale;"
            " ds.offset[0] = 70 / scale - x; ds.offset[1] = 60 / scale - y;"
            " window.app.canvas.setDirty(true, true); }",
            [left, top, scale],
        )
        self.settle(200)

    def show_node(self, node: int, below: int = 0) -> None:
        """Move the canvas so that a node is at the top left, from ``below`` its top on."""
        left, top = self.page.evaluate("id => [...window.app.graph.getNodeById(id).pos]", node)
        self.show(left - 20, top - 40 + below)

    def run(self) -> None:
        """Queue the workflow with the button and wait until it has ended."""
        before = self.runs()
        self.queue()
        self.wait_for_run(before)

    def runs(self) -> set[str]:
        """Return the ids of all runs that have ended."""
        return set(self.server.get("/history"))

    def wait_for_run(self, before: set[str], seconds: float = 60) -> None:
        """Wait until a run that was not ``before`` has ended, or until ComfyUI refused it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.page.wait_for_timeout(300)
            queue = self.server.get("/queue")
            idle = not queue["queue_running"] and not queue["queue_pending"]
            if idle and (self.runs() - before or self.refused()):
                self.settle(700)  # for what follows in the page
                break
        else:
            raise TimeoutError("the workflow did not end")
        self.page.wait_for_function(
            "() => !document.querySelector('.nv-status[data-tone=running]:not([hidden])')"
        )

    def refused(self) -> dict[str, Any]:
        """Return the problems for which ComfyUI refused the workflow, by node."""
        return self.page.evaluate("() => window.app.lastNodeErrors") or {}

    def queue(self) -> None:
        """Press Run."""
        self.forget_errors()
        self.page.get_by_test_id("queue-button").first.click()

    def forget_errors(self) -> None:
        """Make ComfyUI forget why it refused an earlier workflow."""
        self.page.evaluate("() => { window.app.lastNodeErrors = null; }")

    def undo(self) -> None:
        """Press Ctrl+Z over the canvas."""
        self.page.evaluate("() => document.activeElement?.blur?.()")
        self._undo("Control+z")

    def redo(self) -> None:
        """Press Ctrl+Y over the canvas."""
        self._undo("Control+y")

    def _undo(self, keys: str) -> None:
        queues = (
            "() => { const { workflow } = window.app.extensionManager;"
            " const { undoQueue, redoQueue } = workflow.activeWorkflow.changeTracker;"
            " return [undoQueue.length, redoQueue.length]; }"
        )
        before = self.page.evaluate(queues)
        self.page.keyboard.press(keys)
        assert self.eventually(lambda: self.page.evaluate(queues) != before), f"{keys}: no effect"
        self.settle(2000)  # ComfyUI loads the workflow of before

    def queued_prompt(self) -> dict[str, Any]:
        """Return the newest workflow that ran, in API form."""
        history = self.server.get("/history")
        return list(history.values())[-1]["prompt"][2]

    def new_node(self, name: str) -> str:
        """Add a node to an empty graph through the search that a double click opens."""
        box = self.page.get_by_placeholder("Add a node")
        for _ in range(4):  # a busy page misses a double click
            self.page.mouse.dblclick(WIDTH * 0.5, HEIGHT * 0.45)
            with contextlib.suppress(_timeout()):
                box.wait_for(timeout=3 * SECONDS)
                break
        box.fill(name)
        self.page.locator("#results-list").get_by_text(name).first.wait_for()
        self.page.keyboard.press("Enter")
        self.page.wait_for_function("() => window.app.rootGraph.nodes.length > 0")
        box.wait_for(state="hidden")
        return self.page.evaluate("() => window.app.rootGraph.nodes.at(-1).comfyClass")

    # Nodes ----------------------------------------------------------------------------------------

    def widget(self, node: int, name: str) -> Any:
        """Return the value of a widget."""
        return self.page.evaluate(
            "([id, name]) => window.app.graph.getNodeById(id)?.widgets"
            "?.find(w => w.name === name)?.value",
            [node, name],
        )

    def set_widget(self, node: int, name: str, value: Any) -> None:
        """Set a widget as its own controls do, and let ComfyUI notice."""
        self.page.evaluate(
            "([id, name, value]) => {"
            " const widget = window.app.graph.getNodeById(id).widgets.find(w => w.name === name);"
            " widget.value = value; widget.callback?.(value);"
            " const { changeTracker } = window.app.extensionManager.workflow.activeWorkflow;"
            " changeTracker.captureCanvasState?.() ?? changeTracker.checkState?.(); }",
            [node, name, value],
        )
        self.settle(600)

    def size(self, node: int) -> list[float]:
        """Return the size of a node."""
        return self.page.evaluate("id => [...window.app.graph.getNodeById(id).size]", node)

    def report(self, node: int | str) -> Locator:
        """Return what the pack shows in a node."""
        return self.page.locator(f".nvfp4-node[data-node='{node}']")

    def status(self, node: int | str) -> str:
        """Return what the report of a node says about its age, "" for a fresh one."""
        shown = self.report(node).locator(".nv-status:not([hidden])")
        return (shown.first.text_content() or "") if shown.count() else ""

    def problem(self, node: int | str) -> str:
        """Return the errors that a node shows."""
        shown = self.report(node).locator(".nvfp4-node-problem")
        return "\n".join(shown.all_text_contents())

    # ----------------------------------------------------------------------------------------------

    def _apply_look(self) -> None:
        self._set("Comfy.VueNodes.Enabled", self.look.renderer == "vue")
        self._set("Comfy.ColorPalette", self.look.theme)
        self._set("Comfy.TutorialCompleted", True)
        self._set("Comfy.Minimap.Visible", False)

    def _set(self, name: str, value: Any) -> None:
        self.server.post(f"/settings/{name}", value)

    def _wait_ready(self) -> None:
        self.page.wait_for_function(_READY, timeout=90 * SECONDS)
        self.settle(500)

    def _console(self, message: ConsoleMessage) -> None:
        source = json.dumps(message.location) + message.text
        if any(part in source for part in self.expected):
            return
        if message.type == "error" and (_OUR_FOLDER in source or "NVFP4 Foundry" in source):
            self.problems.append(f"console: {message.text} {message.location}")
