"""The layer view in Chromium, alone in a static page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import MAP, ROWS, Open

SHOWN_MS, REACTION_MS = 300, 50


def cell(page: Any, block: int, row: int, section: int = 0) -> tuple[float, float]:
    """Return where the cell of a block and row is on the screen, in the map of a full width."""
    place = page.evaluate(
        """async ([block, row, section]) => {
            const { layoutMap } = await import("/web/view/map_layout.js");
            const { Layers } = await import("/web/view/layers.js");
            const layers = new Layers(test.view);
            const canvas = document.querySelector(".nv-canvas");
            const all = document.querySelector(".nv-check input")?.checked ?? false;
            const layout = layoutMap(layers, layers.shown(!all), canvas.offsetWidth);
            const s = layout.sections[section];
            canvas.scrollIntoView({ block: "center" });
            const box = canvas.getBoundingClientRect();
            const zoom = box.width / canvas.offsetWidth;
            const x = block < 0 ? 20 : s.x + (block + 0.5) * s.cellWidth;
            const y = row < 0 ? s.headY + 5 : s.y + (row + 0.5) * s.cellHeight;
            return [box.left + zoom * x, box.top + zoom * y];
        }""",
        [block, row, section],
    )
    return place[0], place[1]


def apply_format(page: Any, name: str) -> list[str]:
    page.locator(".nv-edit-bar select").select_option(name)
    page.get_by_role("button", name="Apply").click()
    return page.evaluate("test.lines.at(-1)")


def test_all_layers_of_qwen_image_show_at_once(open_view: Open) -> None:
    times = [open_view("qwen").evaluate("test.mountMs") for _ in range(3)]
    assert min(times) < SHOWN_MS, times


def test_hover_and_filter_react_at_once(open_view: Open) -> None:
    page = open_view("qwen")
    hover = page.evaluate(
        """async () => {
            const canvas = document.querySelector(".nv-canvas");
            const box = canvas.getBoundingClientRect();
            const times = [];
            for (let i = 0; i < 20; i += 1) {
                const start = performance.now();
                const at = { clientX: box.left + 160 + 9 * i, clientY: box.top + 60 + 5 * i };
                canvas.dispatchEvent(new PointerEvent("pointermove", at));
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                times.push(performance.now() - start);
            }
            return times.sort((a, b) => a - b)[10];
        }"""
    )
    page.get_by_role("tab", name="Table").click()
    filtering = page.evaluate(
        """async () => {
            const input = document.querySelector(".nv-toolbar input[type=search]");
            const times = [];
            for (const text of ["a", "at", "attn", "attn.to", "*.to_q", "", "mlp", "proj", "x"]) {
                const start = performance.now();
                input.value = text;
                input.dispatchEvent(new Event("input"));
                document.querySelector(".nv-viewport").getBoundingClientRect();
                times.push(performance.now() - start);
            }
            return times.sort((a, b) => a - b)[4];
        }"""
    )
    print(f"hover {hover:.1f} ms, filter {filtering:.1f} ms")
    assert hover < REACTION_MS and filtering < REACTION_MS


def test_hover_tells_what_a_cell_is(open_view: Open) -> None:
    page = open_view("qwen")
    page.mouse.move(*cell(page, 30, 1))
    tip = page.locator(".nv-tooltip").inner_text()
    assert "transformer_blocks.30.attn.to_q" in tip and "3072x3072" in tip and "nvfp4" in tip


def test_hover_finds_the_cell_in_a_scaled_node(open_view: Open) -> None:
    page = open_view("qwen", query="zoom=0.6")
    page.mouse.move(*cell(page, 42, 5))
    assert "transformer_blocks.42.attn.add_v_proj" in page.locator(".nv-tooltip").inner_text()


def test_a_click_opens_the_details_and_escape_closes_them(open_view: Open) -> None:
    page = open_view("qwen")
    page.mouse.click(*cell(page, 12, 2))
    detail = page.locator(".nv-detail")
    assert detail.locator("h3").inner_text() == "transformer_blocks.12.attn.to_k"
    assert detail.locator(".uplot canvas").count() == 1
    assert detail.locator(".nv-errors tbody tr").count() >= 1
    page.keyboard.press("Escape")
    assert detail.is_hidden()


@pytest.mark.parametrize("size", [(560, 640), (560, 360), (1300, 800)], ids=str)
def test_details_leave_the_bar_for_edits_free(open_view: Open, size: tuple[int, int]) -> None:
    page = open_view("qwen", *size)
    page.mouse.click(*cell(page, 12, 2))
    details, bar = page.locator(".nv-detail"), page.locator(".nv-edit-bar")
    assert details.is_visible()
    lower, upper = details.bounding_box(), page.locator(".nv-body").bounding_box()
    if size[0] == 560:
        assert lower["y"] >= upper["y"] + upper["height"] - 1
    bar.locator("select").select_option("bf16")
    bar.get_by_role("button", name="Apply").click(timeout=3000)  # fails if something lies over it
    assert page.evaluate("test.lines.at(-1)") == ["transformer_blocks.12.attn.to_k = bf16"]
    page.mouse.click(*cell(page, -1, 1))
    assert details.is_hidden(), "the details are not of the row that is selected now"


def test_a_wrong_rule_is_told_and_shown(open_view: Open) -> None:
    page = open_view("qwen")
    page.evaluate("test.rules = '*.attn.to_q = fp9'; test.mounted.refreshEdits()")
    message = page.locator(".nv-message.nv-error").first.inner_text()
    assert "Line 1 of the rules, *.attn.to_q = fp9: there is no format fp9" in message
    assert "no such format (60)" in page.locator(".nv-legend").inner_text()
    page.mouse.move(*cell(page, 30, 1))
    assert "no such format" in page.locator(".nv-tooltip").inner_text()
    page.evaluate("test.rules = ''; test.mounted.refreshEdits()")
    assert page.locator(".nv-message.nv-error").count() == 0


def test_a_block_with_its_norms_is_offered_as_one_line(open_view: Open) -> None:
    page = open_view("qwen")
    page.mouse.click(*cell(page, 7, -1))
    bar = page.locator(".nv-edit-bar")
    assert bar.locator(".nv-check").is_hidden()
    bar.locator("select").select_option("bf16")
    assert "with 4 other layers of this block" in bar.inner_text()
    bar.locator(".nv-check input").check()
    assert apply_format(page, "bf16") == ["transformer_blocks.7.* = bf16"]
    assert "Added transformer_blocks.7.* = bf16. Run to apply." in bar.inner_text()
    page.mouse.click(*cell(page, 9, -1))
    assert not bar.locator(".nv-check input").is_checked()


def test_words_wrap_and_tables_keep_their_columns(open_view: Open) -> None:
    page = open_view("text", 560, 360)
    page.evaluate(
        """() => {
            const wide = "column ".repeat(40);
            const text = `note: ${"word ".repeat(80)}\n\n${wide}\n${"-".repeat(280)}\n${wide}`;
            test.mounted.update({ ...test.view, text });
        }"""
    )
    box, words = page.locator(".nv-text"), page.locator(".nv-words")
    assert words.evaluate("e => e.offsetWidth") < 560
    assert words.evaluate("e => e.offsetHeight") > 40, "the words take several lines"
    assert page.locator(".nv-columns").evaluate("e => e.offsetHeight") < 70
    assert box.evaluate("e => e.scrollWidth > e.clientWidth"), "the table scrolls"
    box.evaluate("e => { e.scrollLeft = 500; }")
    left = words.bounding_box()["x"] - box.bounding_box()["x"]
    assert 0 <= left <= 10, "the words stay in sight"


def test_a_row_a_column_and_a_rectangle_become_rule_lines(open_view: Open) -> None:
    page = open_view("qwen")
    page.mouse.click(*cell(page, -1, 1))
    assert apply_format(page, "bf16") == ["transformer_blocks.*.attn.to_q = bf16"]
    page.mouse.click(*cell(page, 7, -1))
    assert apply_format(page, "float8_e4m3fn") == ["transformer_blocks.7.* = float8_e4m3fn"]
    page.mouse.move(*cell(page, 20, 1))
    page.mouse.down()
    page.mouse.move(*cell(page, 29, 1), steps=4)
    page.mouse.up()
    lines = apply_format(page, "nvfp4")
    assert lines == ["transformer_blocks.*.attn.to_q @ 20-29 = nvfp4"]
    assert page.locator(".nv-edit-tile").count() == 3
    assert page.evaluate("test.rules").splitlines()[0] == lines[0]


def test_control_toggles_cells_and_the_filter_selects(open_view: Open) -> None:
    page = open_view("qwen")
    page.mouse.click(*cell(page, 3, 1))
    page.keyboard.press("Escape")
    page.keyboard.down("Control")
    page.mouse.click(*cell(page, 5, 1))
    page.mouse.click(*cell(page, 9, 1))
    page.mouse.click(*cell(page, 9, 1))
    page.keyboard.up("Control")
    note = page.locator(".nv-edit-note")
    assert note.inner_text().startswith("2 layers selected")
    page.locator(".nv-edit-bar input").fill("*.attn.to_out.0")
    assert note.inner_text().startswith("60 layers selected")


def test_the_map_works_with_the_keyboard(open_view: Open) -> None:
    page = open_view("qwen")
    page.locator(MAP).focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    spoken = page.locator(".nv-map .nv-unseen").inner_text
    assert "transformer_blocks" in spoken() or "." in spoken()
    page.mouse.click(*cell(page, 10, 1))
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert spoken().startswith("transformer_blocks.11.attn.to_q")
    page.keyboard.press("Escape")
    page.keyboard.press("Space")
    assert "selected" in spoken()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert page.locator(".nv-edit-note").inner_text().startswith("4 layers selected")
    page.keyboard.press("Enter")
    assert page.locator(".nv-detail h3").inner_text() == "transformer_blocks.12.attn.to_k"


def test_the_table_draws_what_is_in_sight_and_sorts(open_view: Open) -> None:
    page = open_view("qwen")
    page.get_by_role("tab", name="Table").click()
    assert 10 < page.locator(ROWS).count() < 80
    page.get_by_role("button", name="W4A4 error").click()
    head = page.locator("th", has_text="W4A4 error")
    assert head.get_attribute("aria-sort") == "descending"
    first = page.locator(ROWS).first.inner_text()
    page.get_by_role("button", name="Worst 20").click()
    assert page.locator(ROWS).count() == 20
    assert page.locator(ROWS).first.inner_text() == first
    page.get_by_role("button", name="Worst 20").click()
    page.locator(".nv-viewport").evaluate("box => { box.scrollTop = 1e6; }")
    page.wait_for_timeout(50)
    assert "proj_out" in page.locator(ROWS).last.inner_text()
    box = page.locator(".nv-viewport")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")


def test_the_table_opens_the_same_details(open_view: Open) -> None:
    page = open_view("qwen")
    page.get_by_role("tab", name="Table").click()
    page.locator(".nv-viewport").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(".nv-detail h3").inner_text() == "txt_in"


def test_full_screen_covers_the_page_and_comes_back(open_view: Open) -> None:
    page = open_view("qwen", 900, 700, query="zoom=0.5")
    button = page.locator(".nv-icon")
    button.click()
    box = page.locator(".nv-root").bounding_box()
    assert (box["width"], box["height"]) == (900, 700)
    page.mouse.move(*cell(page, 30, 1))
    assert "transformer_blocks.30.attn.to_q" in page.locator(".nv-tooltip").inner_text()
    button.focus()
    page.keyboard.press("Escape")
    assert page.evaluate("document.querySelector('.nv-root').parentElement.id") == "node"


@pytest.mark.parametrize("tab", ["Map", "Table", "Text"])
def test_hostile_names_are_text(open_view: Open, tab: str) -> None:
    page = open_view("hostile", 700, 900)
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(100)
    assert page.locator(".nv-root img, .nv-root script").count() == 0
    shown = page.locator(".nv-root").inner_text()
    assert "<img src=x onerror=alert(3)>\\u202e" in shown
    assert not {"\u202e", "\u001b"} & set(page.locator(".nv-root").inner_html())


@pytest.mark.parametrize("name", ["CSV", "JSON", "PNG"])
def test_exports_are_files(open_view: Open, name: str, tmp_path: Path) -> None:
    page = open_view("qwen")
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    data = path.read_bytes()
    if name == "CSV":
        assert data.count(b"\r\n") == 1 + page.evaluate("test.view.layers.name.length")
    elif name == "PNG":
        assert data.startswith(b"\x89PNG") and int.from_bytes(data[16:20], "big") == 2 * 1008
    else:
        assert page.evaluate("json => JSON.parse(json).layers.name.length", data.decode()) > 1000


def test_dragging_along_the_frontier_sets_the_budget_once(open_view: Open) -> None:
    page = open_view("mix", 640, 900)
    box = page.locator(".nv-frontier .u-over").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 60, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, y, steps=6)
    page.mouse.up()
    budgets = page.evaluate("test.budgets")
    assert len(budgets) == 1 and budgets[0]["kind"] == "size" and 12 < budgets[0]["value"] < 25
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(900)
    assert len(page.evaluate("test.budgets")) == 2
    page.locator(".nv-frontier-box select").select_option("error")
    page.locator(".nv-budget").fill("3.5")
    page.locator(".nv-budget").press("Enter")
    assert page.evaluate("test.budgets.at(-1)") == {"kind": "error", "value": 3.5}


def test_mixes_that_were_sampled_whole_are_rows_with_bars_of_one_scale(open_view: Open) -> None:
    page = open_view("mix", 640, 1200)
    rows = page.locator(".nv-sampled tbody tr")
    assert not rows.first.is_visible()
    page.get_by_text("6 mixes were sampled whole").click()
    assert rows.first.is_visible()
    points = page.evaluate("test.view.frontier.sampled")
    assert rows.count() == len(points) > 3
    assert rows.nth(0).inner_text().startswith("this mix")
    assert page.locator(".nv-sampled .nv-own").count() == 1
    (preset,) = (i for i, point in enumerate(points) if point["is_preset"])
    assert rows.nth(preset).inner_text().startswith("preset wan2.2")
    assert "not finite" in rows.nth(len(points) - 1).inner_text()
    bars = page.evaluate(
        """[...document.querySelectorAll(".nv-sampled td:not(.nv-none):not(.nv-plain-number)")]
        .map((td) => [td, parseFloat(td.style.backgroundSize), parseFloat(td.innerText)])
        .map(([td, share, value]) => [td.clientWidth * share, value])
        """
    )
    lengths = [length / value for length, value in bars]
    assert max(lengths) < 1.02 * min(lengths)
    assert page.evaluate("document.documentElement.scrollWidth") <= 640


def test_a_mix_that_was_not_sampled_has_no_such_rows(open_view: Open) -> None:
    page = open_view("mix", 640, 900)
    page.evaluate(
        "test.mounted.update({ ...test.view, frontier: { ...test.view.frontier, sampled: [] } })"
    )
    assert page.locator(".nv-frontier").count() == 1
    assert page.locator(".nv-sampled").count() == 0


def test_a_view_without_layers_has_no_tabs(open_view: Open) -> None:
    page = open_view("text", 560, 360)
    assert page.get_by_role("tab").count() == 0
    assert "3 layers differ" in page.locator(".nv-text").inner_text()
    assert page.get_by_role("button", name="Copy").is_visible()


def test_update_keeps_the_tab_and_status_is_shown(open_view: Open) -> None:
    page = open_view("qwen")
    page.get_by_role("tab", name="Table").click()
    page.evaluate("test.mounted.update({ ...test.view, title: 'Another run' })")
    assert page.get_by_role("tab", name="Table").get_attribute("aria-selected") == "true"
    assert page.locator("h2").inner_text() == "Another run"
    page.evaluate("test.mounted.setStatus({ text: 'from an earlier run', tone: 'stale' })")
    assert page.locator(".nv-status").inner_text() == "from an earlier run"
    page.evaluate("test.mounted.destroy()")
    assert page.locator(".nv-root").count() == 0


def test_nothing_is_cut_in_a_small_node(open_view: Open) -> None:
    page = open_view("qwen", 560, 360)
    body = page.locator(".nv-body")
    assert body.evaluate("box => box.scrollWidth <= box.clientWidth")
    for message in page.locator(".nv-message span").all():
        assert message.evaluate("box => box.scrollWidth <= box.clientWidth + 1")
