"""The HTML page: self-contained, safe with hostile texts, and alive in an offline browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from nvfp4_foundry.quant.conversion.report import ConversionReport, LayerReport
from nvfp4_foundry.quant.errors import FoundryError
from nvfp4_foundry.quant.reports.page import WEB, modules, render_page
from nvfp4_foundry.quant.reports.view import LayerView, conversion_view, text_view
from nvfp4_foundry.quant.text import printable

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u202e\x1b[31m<!--&amp;\u2028"


def hostile_view(blocks: int = 12) -> LayerView:
    layers = [
        LayerReport(
            f"blocks.{n}.{row}", "linear", (64, 32 + n), "nvfp4" if n else "float8_e4m3fn",
            f"rule 1: {HOSTILE}", 4096, 1300, weight_error=0.08 + n / 1000,
            output_error_w4a4=0.1 + n / 900, max_rule_weight_error=0.09, weight_norm=1.0,
        )
        for n in range(blocks)
        for row in ("attn.q", "attn.k", "ffn.0", f"x{HOSTILE}")
    ]  # fmt: skip
    layers.append(LayerReport(HOSTILE, "linear", (8, 32), "keep", "default", 512, 512))
    report = ConversionReport(
        "in.safetensors", HOSTILE, "mine", "WAN", "mse", tuple(layers), warnings=(HOSTILE,)
    )
    return conversion_view(report)


class _Page(HTMLParser):
    """Collects elements, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def test_the_page_holds_the_view_and_nothing_of_it_is_markup() -> None:
    view = hostile_view()
    page = render_page(view)
    parsed = _Page(page)
    assert "img" not in [tag for tag, _ in parsed.tags]
    kinds = [attributes.get("type") for attributes, _ in parsed.scripts]
    assert kinds == ["importmap", "application/json", "module"]
    assert json.loads(parsed.scripts[1][1]) == view.to_json()
    assert not any({"src", "href"} & set(attributes) for _, attributes in parsed.tags)
    assert "\x1b" not in page and "\u202e" not in page and "\u2028" not in page


def test_every_module_is_in_the_import_map_and_no_specifier_is_relative() -> None:
    found = modules()
    assert {"view/page.js", "view/mount.js", "vendor/uplot/uPlot.esm.js"} <= set(found)
    imported = set()
    for name, source in found.items():
        assert not re.search(r"""\b(from|import)\s*["']\.{1,2}/""", source), name
        assert not re.search(r"^(?!\s*(\*|//|/\*)).*\bimport\s*\(", source, re.M), name
        imported |= set(re.findall(r"""["']nvfp4/([^"']+)["']""", source))
    assert imported | {"view/page.js"} == set(found)


def test_specifiers_of_every_form_are_rewritten(tmp_path: Path) -> None:
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "page.js").write_text(
        "import \"./a.js\";\nimport {\n  x,\n  y as z,\n} from '../b.js';\n"
        'export * from "./c.js"\n/** @type {import("./types.js").X} */\nconst s = "./kept.js";\n'
    )
    for name in ("view/a.js", "b.js", "view/c.js"):
        (tmp_path / name).write_text("export const x = 1, y = 2;\n")
    found = modules(tmp_path)
    assert set(found) == {"view/page.js", "view/a.js", "b.js", "view/c.js"}
    for text in ('import "nvfp4/view/a.js"', "from 'nvfp4/b.js'", '"./kept.js"'):
        assert text in found["view/page.js"]
    (tmp_path / "b.js").unlink()
    with pytest.raises(FoundryError, match=r"web/b\.js of the node pack is missing"):
        modules(tmp_path)


def test_the_browser_half_is_beside_the_package() -> None:
    assert (WEB / "view" / "page.js").is_file()


def test_control_and_bidirectional_characters_are_shown() -> None:
    assert printable("a\x1b[1m\u202eb\tc\né") == "a\\u001b[1m\\u202eb\tc\né"


@pytest.fixture
def browser(chromium: Any) -> Any:
    """The Chromium of all tests."""
    return chromium


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "view", [hostile_view(), text_view("Verify", HOSTILE)], ids=["layers", "text"]
)
def test_a_browser_shows_the_page_without_network(
    browser: Any, tmp_path: Path, view: LayerView, scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_page(view), encoding="utf-8")
    context = browser.new_context(
        color_scheme=scheme, offline=True, viewport={"width": 1280, "height": 800}
    )
    requests: list[str] = []
    problems: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("#nvfp4-page")
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert problems == []
    assert "owned" not in page.title() or "<img" in page.title()
    assert page.locator("img").count() == 0
    if view.layers is not None:
        assert page.locator("canvas").count() >= 1
        for tile in view.tiles:
            assert tile.value in page.inner_text("#nvfp4-page")
    page.screenshot(path=tmp_path / "page.png")
    context.close()
