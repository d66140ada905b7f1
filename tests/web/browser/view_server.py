"""Serves the browser half and made-up views to a browser, on a port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from ..node import ROOT, run_node

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Report</title><link rel="icon" href="data:,">
<body><script type="application/json" id="nvfp4-view">{data}</script>
<script type="module">
import {{ openPage }} from "/web/view/page.js";
window.mounted = openPage();
</script></body></html>"""


def make_views(folder: Path) -> None:
    """Write the made-up views into a folder as JSON, and each as a page of its own.

    Raises:
        RuntimeError: the script that makes them failed.
    """
    done = run_node("tests/web/fixtures/make_views.mjs", str(folder))
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    for path in folder.glob("*.json"):
        data = path.read_text(encoding="utf-8").replace("<", "\\u003c")
        path.with_suffix(".html").write_text(_PAGE.format(data=data), encoding="utf-8")


@contextmanager
def serve(views: Path) -> Iterator[str]:
    """Serve the repository at ``/`` and the views at ``/views/``. Yield the address."""

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            name = path.partition("?")[0]
            if name.startswith("/views/"):
                return str(views / Path(name).name)
            return str(ROOT / name.lstrip("/"))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
