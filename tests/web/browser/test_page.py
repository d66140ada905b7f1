"""A page of its own for a view: on the screen and printed."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import MAP, ROWS


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_readers_scheme(browser: Any, address: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.goto(f"{address}/views/qwen.html")
    page.wait_for_selector(MAP)
    colour = page.locator(".nv-root").evaluate("box => getComputedStyle(box).backgroundColor")
    assert (colour == "rgb(246, 247, 249)") == (scheme == "light")
    page.close()


def test_print_has_every_layer(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page.goto(f"{address}/views/qwen.html")
    page.wait_for_selector(MAP)
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator(ROWS).count() == 846
    assert page.locator(MAP).is_visible() and page.locator(".nv-table").is_visible()
    assert page.locator(".nv-text").is_hidden()
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator(ROWS).count() < 100
    page.close()
