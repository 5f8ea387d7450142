"""Studies on a small model compute their default when their tab is opened."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import served
from tests.browser.visitor import Open, figure, tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_study_that_is_opened_is_computed(
    open_page: Open, tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_SQUEEZE", "build")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    with served(tmp_path / "log", "--args", str(tiny_models["llama"])) as address:
        page = open_page(address)
        figure(page, "weight")
        tab(page, "Budget")
        expect(page.get_by_text(re.compile("^Done: measuring options"))).to_be_visible()
        tab(page, "KV cache")
        expect(page.get_by_text(re.compile("^Done: measuring caches"))).to_be_visible()
        page.close()
