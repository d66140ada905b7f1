"""Take the pictures of the help pages and of the documentation.

``python -m tests.comfyui.browser.take_pictures`` runs a ComfyUI with the tiny demo model and a
made-up WAN of 30 blocks, works through every node in Chromium and writes
``web/docs/<node id>.webp`` and ``docs/images/*.webp``. Names of groups as
arguments take only those, see ``GROUPS``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.comfyui.browser.comfy_page import ComfyPage, Look
from tests.comfyui.browser.pictures import model, scenes
from tests.comfyui.browser.pictures.groups import GROUPS
from tests.comfyui.comfy_python import comfyui_path, comfyui_python, why_not
from tests.comfyui.comfy_server import ComfyServer, make_base
from tests.helpers.chromium import find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LOOK = Look("vue", "dark")
_WINDOW = {"width": 1500, "height": 1600}


@contextmanager
def comfyui() -> Iterator[ComfyServer]:
    """Run a ComfyUI with the models of the pictures; its folder is removed in the end.

    The folder is not a random one, because pictures show paths.
    """
    path = comfyui_path()
    if path is None or why_not():
        raise SystemExit(f"ComfyUI: {why_not()}")
    base = Path(tempfile.gettempdir()) / "ComfyUI"
    base.mkdir()
    try:
        make_base(base)
        (pack,) = (base / "custom_nodes").glob("nvfp4-foundry*")
        pack.rename(pack.with_name("nvfp4-foundry"))
        shapes = model.write_model(base / "models" / scenes.FILE)
        model.write_log(base / "input" / scenes.LOG, shapes)
        server = ComfyServer(comfyui_python(path), path, base)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(base)


def take(browser: Browser, server: ComfyServer, names: list[str]) -> None:
    """Take the pictures of some groups, each in a new page."""
    for name in names:
        page = ComfyPage(browser, server, LOOK, viewport=_WINDOW, device_scale_factor=2)
        try:
            GROUPS[name](page)
        finally:
            page.close()
        print(name, *page.problems, sep="\n  ")


def main() -> None:
    """Take all pictures, or those that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    names = parser.parse_args().groups or list(GROUPS)
    if unknown := set(names) - set(GROUPS):
        parser.error(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    needed = [name for name in GROUPS if name in names or name == "calibrate"]
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, comfyui() as server:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        take(browser, server, needed)
        browser.close()


if __name__ == "__main__":
    main()
