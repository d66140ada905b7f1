"""Views served to a Chromium; without one, the tests that need it are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .view_server import make_views, serve

#: What is drawn on, and the rows of the table that are in the document.
MAP, ROWS = ".nv-canvas", ".nv-table tbody tr:not(.nv-space)"
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    views = tmp_path_factory.mktemp("views")
    make_views(views)
    with serve(views) as url:
        yield url


@pytest.fixture
def browser(chromium: Any) -> Any:
    """The Chromium of all tests."""
    return chromium


@pytest.fixture
def open_view(browser: Any, address: str) -> Iterator[Open]:
    """Open a view in a node of some size. No page may report an error or open a dialog."""
    troubles: list[str] = []
    pages = []

    def opened(view: str, width: int = 560, height: int = 640, query: str = "", **context: Any):
        page = browser.new_page(viewport={"width": width, "height": height}, **context)
        pages.append(page)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        url = f"{address}/tests/web/browser/view.html?view={view}&size={width}x{height}&{query}"
        page.goto(url)
        page.wait_for_function("window.test?.ready")
        return page

    yield opened
    for page in pages:
        page.close()
    assert not troubles
