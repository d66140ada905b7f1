"""ComfyUI's page in a browser, as a user works with it."""

from __future__ import annotations

import contextlib
import json
import os
import time
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
        self._set("Comfy.VueNodes.Enabled", look.renderer == "vue")
        self._set("Comfy.ColorPalette", look.theme)
        self._set("Comfy.TutorialCompleted", True)
        self._set("Comfy.Minimap.Visible", False)
        self.context = browser.new_context(
            **{"viewport": {"width": WIDTH, "height": HEIGHT}, **context}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(10 * SECONDS)
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error.stack}"))
        self.page.on("console", self._console)
        self.page.goto(f"http://127.0.0.1:{server.port}/")
        self._wait_ready()

    def close(self) -> None:
        """Close the page."""
        self.context.close()

    def reload(self) -> None:
        """Load the page again, as after pressing F5."""
        self.page.wait_for_timeout(700)  # ComfyUI keeps a draft half a second after a change
        self.page.reload()
        self._wait_ready()

    def screenshot(self, name: str) -> None:
        """Save a picture of the page in the folder ``NVFP4_SCREENSHOTS``, if that is set."""
        folder = os.environ.get("NVFP4_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(300)
            self.page.screenshot(path=Path(folder) / f"{name}-{self.look}.png")

    # Workflows ------------------------------------------------------------------------------------

    def load(self, workflow: Workflow) -> None:
        """Open a workflow in a new tab and show all of it."""
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.page.wait_for_timeout(400)

    def load_api(self, workflow: Workflow) -> None:
        """Open a workflow in API form."""
        self.page.evaluate("w => window.app.loadApiJson(w, 'test')", workflow)
        self.page.wait_for_timeout(600)

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
        self.page.wait_for_timeout(200)

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
                self.page.wait_for_timeout(1200)  # for what follows in the page
                return
        raise TimeoutError("the workflow did not end")

    def refused(self) -> dict[str, Any]:
        """Return the problems for which ComfyUI refused the workflow, by node."""
        return self.page.evaluate("() => window.app.lastNodeErrors") or {}

    def queue(self) -> None:
        """Press Run."""
        self.page.get_by_test_id("queue-button").first.click()

    def undo(self) -> None:
        """Press Ctrl+Z over the canvas."""
        self.page.evaluate("() => document.activeElement?.blur?.()")
        self.page.keyboard.press("Control+z")
        self.page.wait_for_timeout(1500)  # ComfyUI loads the workflow of before

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
        self.page.wait_for_timeout(600)

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

    def _set(self, name: str, value: Any) -> None:
        self.server.post(f"/settings/{name}", value)

    def _wait_ready(self) -> None:
        self.page.wait_for_function(_READY, timeout=90 * SECONDS)
        self.page.wait_for_timeout(500)

    def _console(self, message: ConsoleMessage) -> None:
        source = json.dumps(message.location) + message.text
        if message.type == "error" and (_OUR_FOLDER in source or "NVFP4 Foundry" in source):
            self.problems.append(f"console: {message.text} {message.location}")
