"""The explorer's components without a server: what each shows follows the session, and mistakes become sentences."""

import gc
import logging
from collections.abc import Iterator
from weakref import ref

import pytest

import workbench as wb
from workbench import presets
from workbench.errors import WorkbenchError
from workbench.session import Session, SharedModel
from workbench.widgets import Explorer
from workbench.widgets.base.component import FigureFrame
from workbench.widgets.base.presentation import enlarge_fonts
from workbench.widgets.shell.tabs import TABS

QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture
def explorer(session: Session) -> Explorer:
    return Explorer(session, threaded=False)


def press(button: object) -> None:
    """Click a button as a visitor does."""
    button.clicks += 1  # type: ignore[attr-defined]


def numbers(frame: FigureFrame) -> list[str]:
    """The names of the traces that a frame shows."""
    assert frame.figure is not None
    return [trace["name"] for trace in frame.figure.plot["data"]]


def test_everything_follows_the_selected_layer(explorer: Explorer) -> None:
    explorer.layers.menu.value = DOWN
    assert explorer.session.layer == DOWN
    assert "block 0 · down_proj" in explorer.heading.object
    assert "64 × 128" in explorer.heading.object
    assert f"{64 * 128:,} weights" in explorer.tabs["Weights"]["Histogram"].frame.answer.object
    assert DOWN in explorer.code
    explorer.toolbar.undo.clicks += 1
    assert explorer.layers.menu.value == QUERY


def test_a_click_on_the_map_selects_a_layer(explorer: Explorer) -> None:
    # as Panel sends it: points of a heat map come without customdata
    explorer.layers.frame.plot.click_data = {"points": [{"x": "down_proj", "y": "0", "z": 1.2, "customdata": None}]}
    assert (explorer.session.layer, explorer.layers.menu.value) == (DOWN, DOWN)


@pytest.mark.parametrize(
    "event", [None, {}, {"points": []}, {"points": [{}]}, {"points": [{"x": "down_proj", "y": "outside"}]}], ids=str
)
def test_a_click_beside_the_map_selects_nothing(explorer: Explorer, event: object) -> None:
    explorer.layers.menu.value = DOWN
    explorer.layers.frame.plot.click_data = event
    assert explorer.session.layer == DOWN


@pytest.mark.parametrize("name", [name for name in presets.list_presets() if name != "none"])
def test_every_preset_can_be_put_on_the_bench(explorer: Explorer, name: str) -> None:
    explorer.bench.gallery.choose("gptq" if name == "rtn" else "rtn")
    explorer.bench.gallery.choose(name)
    assert explorer.recipe == presets.recipe(name)
    assert {key: field.value for key, field in explorer.bench.form.settings.items()} == vars(presets.find(name)())
    assert presets.find(name).source.split(",")[0] in explorer.bench.note.object


def test_a_setting_changes_the_recipe_and_is_undone(explorer: Explorer) -> None:
    explorer.bench.form.settings["bits"].value = 3
    assert explorer.recipe == wb.recipe("rtn", bits=3, group=32)
    press(explorer.toolbar.undo)
    assert explorer.recipe == wb.recipe("rtn", bits=2, group=32)
    assert explorer.bench.form.settings["bits"].value == 2
    press(explorer.toolbar.redo)
    assert explorer.bench.form.settings["bits"].value == 3
    assert (explorer.toolbar.undo.disabled, explorer.toolbar.redo.disabled) == (False, True)


def test_a_setting_that_does_not_fit_is_explained_and_changes_nothing(explorer: Explorer) -> None:
    bench, before = explorer.bench, explorer.recipe
    bench.form.settings["group"].value = 7
    assert bench.problem.visible
    assert "group size 7 does not divide 64 columns" in bench.problem.object
    assert (bench.one.disabled, bench.all.disabled) == (True, True)
    assert explorer.recipe == before
    bench.form.settings["group"].value = 16
    assert not bench.problem.visible
    assert (bench.one.disabled, bench.all.disabled) == (False, False)
    assert explorer.recipe == wb.recipe("rtn", bits=2, group=16)


def test_an_emptied_field_is_explained(explorer: Explorer) -> None:
    explorer.bench.form.settings["group"].value = None
    assert explorer.bench.problem.visible
    assert "group is None" in explorer.bench.problem.object


@pytest.mark.parametrize("leave", ["undo", "another-layer", "another-preset"])
def test_leaving_a_setting_that_does_not_fit_frees_the_buttons(explorer: Explorer, leave: str) -> None:
    bench = explorer.bench
    bench.form.settings["bits"].value = 3
    bench.form.settings["group"].value = 7
    if leave == "undo":
        press(explorer.toolbar.undo)
    elif leave == "another-layer":
        explorer.layers.menu.value = DOWN
    else:
        bench.gallery.choose("btc")
    assert not bench.problem.visible
    assert (bench.one.disabled, bench.all.disabled) == (False, False)
    assert "group" not in bench.form.settings or bench.form.settings["group"].value == 32


def test_quantizing_a_layer_changes_every_figure(explorer: Explorer) -> None:
    press(explorer.bench.one)
    result = explorer.result
    assert explorer.notices.messages == []
    assert result.name == QUERY
    assert result.recipe == explorer.recipe
    assert f"{result.bits_per_weight:.2f}" in explorer.bench.outcome.object
    assert "Done" in explorer.bench.jobs.words.object
    assert numbers(explorer.tabs["Weights"]["Histogram"].frame) == ["original", "quantized"]
    explorer.bring("Ledger")
    assert numbers(explorer.tabs["Ledger"].frame)[-1] == "as the paper counts"
    explorer.bring("Error")
    assert explorer.tabs["Error"].layers.figure.table["relative_error"].tolist() == [result.relative_error]
    assert explorer.tabs["Error"].tried.figure.table["bits_per_weight"].tolist() == [result.bits_per_weight]
    assert explorer.layers.frame.figure.table.set_index("name").loc[QUERY, "bits_per_weight"] == result.bits_per_weight


def test_another_recipe_takes_the_figures_of_the_last_one_away(explorer: Explorer) -> None:
    press(explorer.bench.one)
    explorer.bench.form.settings["bits"].value = 3
    assert explorer.result is None
    assert "not quantized yet" in explorer.bench.outcome.object
    assert numbers(explorer.tabs["Weights"]["Histogram"].frame) == ["original"]
    explorer.bring("Ledger")
    assert explorer.tabs["Ledger"].frame.figure is None
    assert "Nothing is stored yet" in explorer.tabs["Ledger"].frame.answer.object


def test_quantizing_the_whole_model_fills_the_map_and_the_ledger(explorer: Explorer) -> None:
    press(explorer.bench.all)
    whole = explorer.session.quantized_model
    explorer.bring("Ledger")
    explorer.tabs["Ledger"].scope.value = "the whole model"
    assert f"{whole.bits_per_weight:.2f} bits per weight" in explorer.tabs["Ledger"].frame.answer.object
    explorer.bring("Error")
    assert explorer.tabs["Error"].layers.figure.table["name"].tolist() == explorer.session.model.layer_names


def test_writing_before_anything_is_quantized_says_what_to_do(explorer: Explorer) -> None:
    press(explorer.tabs["Text"].go)
    assert "nothing is quantized yet" in explorer.notices.messages[0]
    assert "nothing is quantized yet" in explorer.tabs["Text"].pages.sentence.object
    assert explorer.notices.view.visible
    text = explorer.tabs["Text"]
    assert (text.go.disabled, text.jobs.stop.disabled) == (False, True)


def failing() -> Iterator[None]:
    """A job that ends badly after its first step."""
    yield None
    raise WorkbenchError("the layer is on fire; pour water on it.")


def test_a_failed_job_becomes_a_notice_and_frees_the_buttons(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer.session, "quantize_steps", failing)
    press(explorer.bench.one)
    assert explorer.notices.messages == ["the layer is on fire; pour water on it."]
    assert "Failed" in explorer.bench.jobs.words.object
    assert (explorer.bench.one.disabled, explorer.bench.jobs.running) == (False, False)


def test_a_bug_becomes_a_sentence_and_the_log_has_its_traceback(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bugs: list[BaseException]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(explorer.session, "undo", broken)
    with caplog.at_level(logging.ERROR):
        press(explorer.toolbar.undo)
    assert "a bug in the workbench (ZeroDivisionError: planted). The log has" in explorer.notices.messages[0]
    assert "Traceback" not in explorer.notices.messages[0]
    assert "unexpected error" in caplog.text
    assert "in broken" in caplog.text
    bugs.clear()


def test_a_figure_and_its_table_take_turns(explorer: Explorer) -> None:
    frame = explorer.tabs["Weights"]["Histogram"].frame
    frame.as_table.value = True
    assert not frame.plot.visible
    assert len(frame.table[0].value) == len(frame.figure.table)
    explorer.layers.menu.value = DOWN
    assert len(frame.table) == 1, "another layer keeps the table"
    frame.as_table.value = False
    assert frame.plot.visible
    assert len(frame.table) == 0


def test_two_explorers_on_one_session_agree(session: Session) -> None:
    first, second = Explorer(session, threaded=False), Explorer(session, threaded=False)
    first.layers.menu.value = DOWN
    assert second.code == first.code


def test_only_the_tab_in_front_is_built_and_drawn(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(explorer.tabs.built) == ["Weights"]
    drawn = []
    explorer.bring("Error")
    for name in ("Error", "Ledger"):
        part = explorer.tabs[name]
        monkeypatch.setattr(part, "refresh", lambda name=name: drawn.append(name))
    explorer.layers.menu.value = DOWN
    assert drawn == ["Error"]
    explorer.bring("Ledger")
    explorer.bring("Error")
    explorer.bring("Ledger")
    assert drawn == ["Error", "Ledger"], "what has not changed is not drawn again"
    explorer.bench.form.settings["bits"].value = 3
    assert drawn == ["Error", "Ledger", "Ledger"]


def test_every_tab_opens(explorer: Explorer) -> None:
    for title in explorer.tabs.kinds:
        explorer.bring(title)
        assert list(explorer.tabs.front_pane) == [explorer.tabs[title].view]
    assert explorer.notices.messages == []


def test_a_section_comes_back_with_the_tab_that_was_in_front(explorer: Explorer) -> None:
    tabs = explorer.tabs
    assert (tabs.section.value, tabs.tab.options) == ("See", ["Weights", "Saliency", "Layers"])
    tabs.tab.value = "Saliency"
    tabs.section.value = "Decide"
    assert (tabs.front, tabs.tab.label) == ("Budget", "Views in Decide")
    tabs.section.value = "See"
    assert (tabs.front, tabs.tab.value) == ("Saliency", "Saliency")


def test_every_title_is_found_in_one_section_only() -> None:
    titles = [title for own in TABS.values() for title in own]
    assert len(set(titles) | set(TABS)) == len(titles) + len(TABS)


def test_a_tab_that_fails_takes_no_other_with_it(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bugs: list[BaseException]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(explorer.layers, "refresh", broken)
    with caplog.at_level(logging.ERROR):
        explorer.live.choose(lambda: explorer.session.select(DOWN))
    assert DOWN in explorer.heading.object
    assert f"{64 * 128:,} weights" in explorer.tabs["Weights"]["Histogram"].frame.answer.object
    assert "ZeroDivisionError: planted" in explorer.notices.messages[0]
    bugs.clear()


@pytest.mark.parametrize("give", ["shared", "model", "source"])
def test_an_explorer_opens_whatever_names_a_model(shared: SharedModel, give: str) -> None:
    given = {"shared": shared, "model": shared.model, "source": str(shared.model.source)}[give]
    assert Explorer(given, threaded=False).session.model.layer_names == shared.model.layer_names


def test_what_names_no_model_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="not a float"):
        Explorer(0.8)  # type: ignore[arg-type]


@pytest.mark.slow
def test_it_becomes_an_ipywidget(explorer: Explorer) -> None:
    import ipywidgets

    assert isinstance(explorer.ipywidget(), ipywidgets.Widget)
    assert isinstance(explorer.bench.ipywidget(), ipywidgets.Widget)


def test_the_toolbar_leads_to_the_history(explorer: Explorer) -> None:
    press(explorer.toolbar.history)
    assert explorer.tabs.front == "History"


def test_a_presented_page_has_slider_texts_and_map_alone(explorer: Explorer) -> None:
    squeeze, layers = explorer.strips[0], explorer.layers
    parts = [*explorer.hidden_columns, layers.controls, squeeze.detail, squeeze.why_here.go]
    assert all(part.visible for part in parts)
    press(explorer.toolbar.presenting)
    assert not any(part.visible for part in parts)
    assert [button.label for button in explorer.toolbar.buttons if button.visible] == []
    assert explorer.toolbar.keys.presented
    assert squeeze.slider.follows_page_keys
    assert squeeze.slider.visible
    assert layers.frame.view.visible
    explorer.toolbar.keys._handle_msg("end")
    assert all(part.visible for part in parts)
    assert not squeeze.slider.follows_page_keys


def test_type_in_figures_grows_once_and_colour_bars_with_it() -> None:
    tick = {"size": 10}  # as the axes of a layout share theirs
    values = [[1.0, 2.0]]
    bar = {"thickness": 10, "tickfont": {"size": 20}, "title": {"font": {"size": 5}, "text": "KL"}}
    plot = {
        "data": [{"z": values, "colorbar": bar, "marker": {"size": 30, "colorbar": {"tickfont": tick}}}],
        "layout": {"xaxis": {"tickfont": tick}, "yaxis": {"tickfont": tick}, "annotations": [{"font": {"size": 5}}]},
    }
    grown = enlarge_fonts(plot)
    trace, layout = grown["data"][0], grown["layout"]
    assert [layout[axis]["tickfont"]["size"] for axis in ("xaxis", "yaxis")] == [16, 16]
    assert layout["annotations"][0]["font"]["size"] == 8
    assert trace["colorbar"] == {"thickness": 16, "tickfont": {"size": 32}, "title": {"font": {"size": 8}, "text": "KL"}}
    assert trace["marker"] == {"size": 30, "colorbar": {"tickfont": {"size": 16}}}, "a mark is no type"
    assert trace["z"] is values
    assert tick == {"size": 10}, "the figure itself stays as it was"


def test_an_explorer_that_nobody_holds_is_freed_with_all_its_tabs(session: Session) -> None:
    explorer = Explorer(session, threaded=False)
    made = {"the page": ref(explorer)} | {title: ref(explorer.bring(title)) for title in explorer.tabs.kinds}
    assert explorer.notices.messages == []
    del explorer
    gc.collect()
    assert [name for name, part in made.items() if part() is not None] == []
