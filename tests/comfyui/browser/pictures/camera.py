"""Pictures of nodes and of the page, small enough to be kept in a repository."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tests.comfyui.browser.comfy_page import ComfyPage
from tests.comfyui.comfy_workflows import Workflow

SCALE = 2  # pixels of the screen for one of the page
KILOBYTE = 1000
_MARGIN = 12
_LEFT, _TOP = 110, 130  # beside and below ComfyUI's own bars
_APART = 5000
_RUN_SECONDS = 900

# The links are hidden: in pictures of one node they end nowhere.
_OPEN = """async ([workflow, apart]) => {
  await window.app.loadApiJson(workflow, "picture");
  window.app.canvas.links_render_mode = -1;
  for (const node of window.app.rootGraph.nodes) {
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed";
      const several = workflow[node.id].inputs[widget.name]?.__value__;
      if (several) widget.value = several;
    }
  }
  window.app.rootGraph.nodes.forEach((node, index) => {
    node.pos = [0, index * apart];
    node.setSize([Math.max(node.size[0], 400), node.size[1]]);
  });
}"""
_BOX = """id => {
  const node = window.app.graph.getNodeById(id);
  const drawn = document.querySelector(`[data-node-id="${id}"]`);
  if (drawn) { const { x, y, width, height } = drawn.getBoundingClientRect();
    return { x, y, width, height }; }
  const { ds } = window.app.canvas, [x, y, width, height] = node.getBounding();
  const host = window.app.canvas.canvas.getBoundingClientRect();
  return { x: host.x + (x + ds.offset[0]) * ds.scale, y: host.y + (y + ds.offset[1]) * ds.scale,
    width: width * ds.scale, height: height * ds.scale };
}"""

# How much higher (or lower, if negative) a node must be to show its report and no empty space.
_MISSING = """id => {
  const body = document.querySelector(`.nvfp4-node[data-node="${id}"] .nv-body`);
  if (!body?.clientHeight) return 0;
  const more = body.scrollHeight - body.clientHeight;
  const most = (body.closest(".nv-plain") ? 700 : 1100) - window.app.graph.getNodeById(id).size[1];
  if (more > 1) return Math.max(0, Math.min(more, most));
  const ends = [...body.querySelectorAll("*")].filter(part => !part.children.length)
    .map(part => {
      const range = document.createRange();
      range.selectNodeContents(part);
      return (part.textContent ? range : part).getBoundingClientRect();
    }).filter(box => box.height > 0);
  const end = Math.max(...ends.map(box => box.bottom));
  return Math.min(0, end + 12 - body.getBoundingClientRect().bottom);
}"""
_GROW = """([id, more]) => {
  const node = window.app.graph.getNodeById(id);
  node.setSize([node.size[0], node.size[1] + more]);
}"""

_LAY_OUT = """columns => {
  let x = 0, most = 0;
  for (const column of columns) {
    const nodes = column.map(id => window.app.graph.getNodeById(id));
    let y = 0;
    for (const node of nodes) {
      node.pos = [x, y + 30];
      const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
      y += (drawn ? drawn.offsetHeight : node.size[1] + 30) + 40;
    }
    most = Math.max(most, y);
    x += Math.max(...nodes.map(node => node.size[0])) + 80;
  }
  window.app.canvas.links_render_mode = 2;
  window.app.canvas.setDirty(true, true);
  return [x - 80, most];
}"""


@dataclass(frozen=True)
class Limits:
    """The most that a picture may have: pixels across, and bytes."""

    width: int
    size: int


NODE = Limits(width=840, size=50 * KILOBYTE)
DOCS = Limits(width=1400, size=120 * KILOBYTE)


def open_workflow(page: ComfyPage, workflow: Workflow) -> dict[str, int]:
    """Open a workflow in API form with its nodes far apart; return their ids by class.

    The second node of a class has `` 2`` behind it.
    """
    numbers = {key: number for number, key in enumerate(workflow, 1)}
    numbered = {}
    for key, node in workflow.items():
        inputs = {name: _numbered(value, numbers) for name, value in node["inputs"].items()}
        numbered[str(numbers[key])] = {"class_type": node["class_type"], "inputs": inputs}
    page.page.evaluate(_OPEN, [numbered, _APART])
    page.page.wait_for_timeout(1200)
    ids: dict[str, int] = {}
    for key, node in workflow.items():
        name = node["class_type"]
        ids[f"{name} 2" if name in ids else name] = numbers[key]
    return ids


def _numbered(value: Any, numbers: dict[str, int]) -> Any:
    if isinstance(value, list) and len(value) == 2 and value[0] in numbers:
        return [str(numbers[value[0]]), value[1]]
    return value


def finish(page: ComfyPage) -> None:
    """Queue what is open and wait until it has ended well."""
    before = page.runs()
    page.queue()
    wait_for_end(page, before)


def wait_for_end(page: ComfyPage, before: set[str]) -> None:
    """Wait until a run that was not ``before`` has ended; RuntimeError if it failed."""
    page.wait_for_run(before, _RUN_SECONDS)
    ended = [run["status"] for key, run in page.server.get("/history").items() if key not in before]
    if page.refused() or any(status["status_str"] != "success" for status in ended):
        raise RuntimeError(f"the workflow did not run: {page.refused() or ended}")


def aim(page: ComfyPage, node: int, scale: float = 1.0) -> None:
    """Show a node at the top left of the canvas."""
    position = page.page.evaluate("id => [...window.app.graph.getNodeById(id).pos]", node)
    page.show(position[0] - 40 / scale, position[1] - 90 / scale, scale)
    page.page.mouse.move(1450, 900)  # over nothing
    page.page.wait_for_timeout(500)


def fit(page: ComfyPage, node: int) -> None:
    """Give a node the height that its report needs."""
    for _ in range(2):
        more = page.page.evaluate(_MISSING, node)
        page.page.evaluate(_GROW, [node, more])
        page.page.wait_for_timeout(300)


def lay_out(page: ComfyPage, columns: list[list[int]]) -> Image.Image:
    """Return a picture of nodes in columns, with their links."""
    for node in (node for column in columns for node in column):
        aim(page, node)
        fit(page, node)
    width, height = page.page.evaluate(_LAY_OUT, columns)
    page.page.wait_for_timeout(300)
    view = page.page.viewport_size or {}
    scale = min((view["width"] - _LEFT - 20) / width, (view["height"] - _TOP - 20) / height)
    page.show(-40 / scale, -90 / scale, scale)
    page.page.mouse.move(view["width"] - 5, view["height"] - 200)
    page.page.wait_for_timeout(800)
    clip = {"x": 0, "y": _TOP, "width": 0, "height": height * scale}
    clip |= {"x": _LEFT - _MARGIN, "width": width * scale + 2 * _MARGIN}
    clip |= {"y": _TOP - _MARGIN - 20, "height": height * scale + 2 * _MARGIN + 20}
    return _image(page.page.screenshot(clip=clip))


def picture_of(page: ComfyPage, node: int) -> Image.Image:
    """Return the picture of a node."""
    aim(page, node)
    fit(page, node)
    box = page.page.evaluate(_BOX, node)
    clip = {
        "x": box["x"] - _MARGIN, "y": box["y"] - _MARGIN,
        "width": box["width"] + 2 * _MARGIN, "height": box["height"] + 2 * _MARGIN,
    }  # fmt: skip
    return _image(page.page.screenshot(clip=clip))


def picture_of_page(page: Any) -> Image.Image:
    """Return the picture of all that a page of Playwright shows."""
    return _image(page.screenshot())


def save(image: Image.Image, path: Path, limits: Limits) -> None:
    """Write a WebP within the limits; of lower quality, then smaller, if it must be."""
    width = min(limits.width, image.width)
    while True:
        height = round(image.height * width / image.width)
        small = image.resize((width, height), Image.Resampling.LANCZOS)
        for quality in (88, 80, 70, 60):
            data = io.BytesIO()
            small.save(data, "WEBP", quality=quality, method=6)
            if data.tell() <= limits.size:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data.getvalue())
                return
        width = width * 9 // 10


def _image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
