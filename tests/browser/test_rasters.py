"""Pictures of large matrices in a real browser: from 45 million weights to single ones, with small messages."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import served
from tests.browser.large_layer import COLS, OUTLIER, ROWS
from tests.browser.visitor import Open, button, field, quantize_one, serious

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EDGES = ("First row", "Last row", "First column", "Last column")
CELL = "4,096 × 11,008 weights, each cell: the weight of largest magnitude among 16 × 29"


@pytest.fixture(scope="module")
def large(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with the large matrix."""
    with served(tmp_path_factory.mktemp("large") / "log", apps=["tests/browser/large_layer.py"], page="large_layer") as address:
        yield address


def window(page: Page) -> list[int]:
    """The window in the fields."""
    return [int(field(page, edge).input_value()) for edge in EDGES]


# every picture from left to right: its inner frame in pixels of the page, and the range of its axes
PICTURES = """() => {
    const found = []
    for (const view of Bokeh.index.all_views?.() ?? Bokeh.index) {
        if (view.model.type !== 'Figure' || !view.el.getBoundingClientRect().width) continue
        const box = view.frame.bbox, edge = view.el.getBoundingClientRect(), {x_range: x, y_range: y} = view.model
        found.push({box: [edge.left + box.left, edge.top + box.top, box.width, box.height], range: `${x.start} ${y.start}`})
    }
    return found.sort((a, b) => a.box[0] - b.box[0])
}"""


def picture(page: Page, number: int = 0) -> tuple[float, float, float, float]:
    """The inner frame of a picture in pixels of the page: left, top, width, height."""
    return page.wait_for_function(f"() => ({PICTURES})()[{number}]?.box").json_value()


def drag(page: Page, start: tuple[float, float], end: tuple[float, float], number: int = 0) -> None:
    """Draw a box on a picture; places as shares of it."""
    left, top, width, height = picture(page, number)
    points = [(left + x * width, top + y * height) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=5)
    page.mouse.up()


def test_from_the_whole_matrix_to_single_weights(large: str, open_page: Open) -> None:
    page = open_page(large)
    expect(page.get_by_text(CELL)).to_be_visible()
    row, col, value = OUTLIER
    expect(page.get_by_text(f"the largest original weight is {value:+.3g}, at row {row}, column {col}")).to_be_visible()
    assert window(page) == [0, ROWS - 1, 0, COLS - 1]
    sizes = [(ROWS, COLS)]
    for _ in range(7):  # boxes around the outlier
        top, bottom, left, right = window(page)
        x, y = (col - left + 0.5) / (right - left + 1), (row - top + 0.5) / (bottom - top + 1)
        drag(page, (max(x - 0.12, 0.01), max(y - 0.12, 0.01)), (min(x + 0.12, 0.99), min(y + 0.12, 0.99)))
        expect(field(page, "Last column")).not_to_have_value(str(right))
        top, bottom, left, right = window(page)
        assert top <= row <= bottom
        assert left <= col <= right
        sizes.append((bottom - top + 1, right - left + 1))
        if sizes[-1][0] <= 8 and sizes[-1][1] <= 8:
            break
    assert sizes[-1] <= (8, 8), sizes
    expect(page.get_by_text("single weights; the largest original weight")).to_be_visible()

    left, top, width, height = picture(page)
    seen = window(page)
    at = (left + width * (col - seen[2] + 0.5) / sizes[-1][1], top + height * (row - seen[0] + 0.5) / sizes[-1][0])
    page.mouse.move(*at)
    expect(page.get_by_text(re.compile(rf"original:\s*{value}\b"))).to_be_visible()
    button(page, "Whole matrix").click()
    expect(page.get_by_text(CELL)).to_be_visible()
    assert serious(page) == []


def test_keys_and_the_table_need_no_mouse(large: str, open_page: Open) -> None:
    page = open_page(large)
    expect(page.get_by_text(CELL)).to_be_visible()
    row, col, value = OUTLIER
    for edge, number in zip(EDGES, (row - 1, row + 2, col - 3, col + 4), strict=True):
        field(page, edge).fill(str(number))
        field(page, edge).press("Tab")
    expect(page.get_by_text(f"4 × 8 weights, single weights; the largest original weight is {value:+.3g}")).to_be_visible()
    button(page, "↓").focus()
    page.keyboard.press("Enter")
    expect(field(page, "First row")).to_have_value(str(row + 1))
    button(page, "Show as table").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".tabulator-row")).to_have_count(20)


def test_a_click_marks_row_and_channel(address: str, open_page: Open) -> None:
    page = open_page(f"{address}?layer=model.layers.0.self_attn.q_proj")
    button(page, "Picture").click()
    expect(page.get_by_text("Where are the large weights?")).to_be_visible()
    left, top, width, height = picture(page)
    page.mouse.click(left + width / 2, top + height / 2)
    expect(field(page, "Marked rows")).not_to_have_value("")
    expect(field(page, "Marked channels")).not_to_have_value("")
    field(page, "Marked channels").fill("7")
    field(page, "Marked channels").press("Tab")
    expect(page).to_have_url(re.compile(r"channels=7\b"))


def test_three_pictures_zoom_together(address: str, open_page: Open) -> None:
    page = open_page(f"{address}?layer=model.layers.0.self_attn.q_proj")
    page.set_viewport_size({"width": 1440, "height": 1600})  # the mouse reaches only what is in view
    quantize_one(page, 2)
    button(page, "Picture").click()
    expect(page.get_by_text("256 × 256 weights, single weights")).to_be_visible()
    button(page, "side by side").click()
    expect(page.get_by_text(re.compile("256 × 256 weights, each cell"))).to_be_visible()
    page.wait_for_function(f"() => ({PICTURES})().length === 3")
    for number in range(3):
        drag(page, (0.3, 0.3), (0.7, 0.7), number)
        expect(field(page, "First row")).not_to_have_value("0")
        page.wait_for_function(f"() => new Set(({PICTURES})().map(p => p.range)).size === 1")
        inside = window(page)
        assert inside[1] - inside[0] < 120, "all three follow, and none jumps back"
        button(page, "Whole matrix").click()
        expect(field(page, "First row")).to_have_value("0")
        expect(field(page, "Last row")).to_have_value("255")
        expect(page.get_by_text(re.compile("256 × 256 weights, each cell"))).to_be_visible()
        page.wait_for_function(f"() => ({PICTURES})().every(p => Math.abs(parseFloat(p.range)) < 1)")
