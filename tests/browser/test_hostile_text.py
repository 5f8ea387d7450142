"""Text that a stranger wrote (tokens, a folder's name, a prompt) is shown as it is written, never run."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import served
from tests.browser.visitor import Open, button, fill, quantize_one, tab
from tests.tiny_models import write_model

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLANTED = "<img src=x onerror=window.planted=1><s>"
FIRST_WORD = 259  # below are the special tokens and the bytes
PICTURES = """() => {
    let count = 0;
    const walk = root => root.querySelectorAll('*').forEach(e => {
        if (e.matches('img[src=x], s')) count++;
        if (e.shadowRoot) walk(e.shadowRoot);
    });
    walk(document);
    return [count, window.planted === undefined];
}"""


def plant_in_tokenizer(folder: Path) -> None:
    """Give every second word of a model's vocabulary a name that is HTML."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    hostile = {word: f"{PLANTED}{index}" for word, index in words.items() if index >= FIRST_WORD and index % 2}
    tokenizer["model"]["vocab"] = {hostile.get(word, word): index for word, index in words.items()}
    tokenizer["model"]["merges"] = [pair for pair in tokenizer["model"]["merges"] if not {*pair, "".join(pair)} & hostile.keys()]
    path.write_text(json.dumps(tokenizer))


@pytest.fixture(scope="module")
def hostile(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The explorer on a model whose vocabulary and folder are named by a stranger."""
    root = tmp_path_factory.mktemp("hostile")
    folder = write_model("llama", root / "<img src=x onerror=window.planted=1><s>")
    plant_in_tokenizer(folder)
    with served(root / "log", "--args", str(folder)) as address:
        yield address


def see_text(page: Page) -> None:
    """What was planted can be read on the page, and did nothing there."""
    expect(page.get_by_text(re.compile("<img src=x onerror")).locator("visible=true").first).to_be_visible()
    assert page.evaluate(PICTURES) == [0, True]


def test_what_a_stranger_wrote_is_shown_and_never_run(hostile: str, open_page: Open) -> None:
    page = open_page(hostile)
    see_text(page)
    quantize_one(page, 1)
    tab(page, "Text")
    fill(page, "Prompt", f"Once {PLANTED}")
    fill(page, "Tokens", 12)
    button(page, "Write").click()
    # The squeeze writes a text of its own beside the layers, sooner or later than this view does.
    texts = page.get_by_label("original text", exact=True).filter(has_text="<img src=x onerror")
    expect(texts).to_be_visible()
    texts.get_by_role("button").filter(has_text="<img").first.click()
    expect(page.get_by_text(re.compile(r"At token \d+ of the original text"))).to_be_visible()
    see_text(page)
    button(page, "Find the fork").click()
    expect(page.get_by_text(re.compile("They do not diverge: both models write the same|: the original writes"))).to_be_visible()
    see_text(page)


@pytest.mark.parametrize(
    ("title", "press", "answer"),
    [("What-if", "Measure the error budget", "The one quantized layer"), ("Card", None, None), ("History", None, None)],
)
def test_every_page_that_names_the_model_shows_its_name_as_text(
    hostile: str, open_page: Open, title: str, press: str | None, answer: str | None
) -> None:
    page = open_page(hostile)
    quantize_one(page, 1)
    tab(page, title)
    if press and answer:
        button(page, press).click()
        expect(page.get_by_text(answer)).to_be_visible()
    see_text(page)
