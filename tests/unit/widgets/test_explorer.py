"""The explorer's components without a server: what each shows follows the session, and mistakes become sentences."""

import logging
from collections.abc import Iterator

import pytest

import workbench as wb
from workbench import presets
from workbench.errors import WorkbenchError
from workbench.jobs import Job, Status
from workbench.session import Session, SharedModel
from workbench.widgets import Explorer
from workbench.widgets.component import FigureFrame

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
    assert f"{64 * 128:,} weights" in explorer.weights.histogram.answer.object
    assert DOWN in explorer.code
    explorer.bench.undo.clicks += 1
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


@pytest.mark.parametrize("name", [name for name in presets.names() if name != "none"])
def test_every_preset_can_be_put_on_the_bench(explorer: Explorer, name: str) -> None:
    explorer.bench.preset.value = "gptq" if name == "rtn" else "rtn"
    explorer.bench.preset.value = name
    assert explorer.recipe == presets.recipe(name)
    assert {key: field.value for key, field in explorer.bench.settings.items()} == vars(presets.find(name)())
    assert presets.find(name).source.split(",")[0] in explorer.bench.note.object


def test_a_setting_changes_the_recipe_and_is_undone(explorer: Explorer) -> None:
    explorer.bench.settings["bits"].value = 3
    assert explorer.recipe == wb.recipe("rtn", bits=3, group=32)
    press(explorer.bench.undo)
    assert explorer.recipe == wb.recipe("rtn", bits=2, group=32)
    assert explorer.bench.settings["bits"].value == 2
    press(explorer.bench.redo)
    assert explorer.bench.settings["bits"].value == 3
    assert (explorer.bench.undo.disabled, explorer.bench.redo.disabled) == (False, True)


def test_a_setting_that_does_not_fit_is_explained_and_changes_nothing(explorer: Explorer) -> None:
    bench, before = explorer.bench, explorer.recipe
    bench.settings["group"].value = 7
    assert bench.problem.visible
    assert "group size 7 does not divide 64 columns" in bench.problem.object
    assert (bench.one.disabled, bench.all.disabled) == (True, True)
    assert explorer.recipe == before
    bench.settings["group"].value = 16
    assert not bench.problem.visible
    assert (bench.one.disabled, bench.all.disabled) == (False, False)
    assert explorer.recipe == wb.recipe("rtn", bits=2, group=16)


def test_an_emptied_field_is_explained(explorer: Explorer) -> None:
    explorer.bench.settings["group"].value = None
    assert explorer.bench.problem.visible
    assert "group is None" in explorer.bench.problem.object


@pytest.mark.parametrize("leave", ["undo", "another-layer", "another-preset"])
def test_leaving_a_setting_that_does_not_fit_frees_the_buttons(explorer: Explorer, leave: str) -> None:
    bench = explorer.bench
    bench.settings["bits"].value = 3
    bench.settings["group"].value = 7
    if leave == "undo":
        press(bench.undo)
    elif leave == "another-layer":
        explorer.layers.menu.value = DOWN
    else:
        bench.preset.value = "btc"
    assert not bench.problem.visible
    assert (bench.one.disabled, bench.all.disabled) == (False, False)
    assert "group" not in bench.settings or bench.settings["group"].value == 32


def test_quantizing_a_layer_changes_every_figure(explorer: Explorer) -> None:
    press(explorer.bench.one)
    result = explorer.result
    assert explorer.notices.messages == []
    assert result.name == QUERY
    assert result.recipe == explorer.recipe
    assert f"{result.bits_per_weight:.2f}" in explorer.bench.outcome.object
    assert "Done" in explorer.bench.status.object
    assert numbers(explorer.weights.histogram) == ["original", "quantized"]
    explorer.bring("Ledger")
    assert numbers(explorer.ledger.frame)[-1] == "as the paper counts"
    explorer.bring("Error")
    assert explorer.errors.layers.figure.table["relative_error"].tolist() == [result.relative_error]
    assert explorer.errors.tried.figure.table["bits_per_weight"].tolist() == [result.bits_per_weight]
    assert explorer.layers.frame.figure.table.set_index("name").loc[QUERY, "bits_per_weight"] == result.bits_per_weight


def test_another_recipe_takes_the_figures_of_the_last_one_away(explorer: Explorer) -> None:
    press(explorer.bench.one)
    explorer.bench.settings["bits"].value = 3
    assert explorer.result is None
    assert "not quantized yet" in explorer.bench.outcome.object
    assert numbers(explorer.weights.histogram) == ["original"]
    explorer.bring("Ledger")
    assert explorer.ledger.frame.figure is None
    assert "Nothing is stored yet" in explorer.ledger.frame.answer.object


@pytest.mark.parametrize("what", ["original", "quantized", "difference"])
def test_the_raster_shows_what_is_asked(explorer: Explorer, what: str) -> None:
    explorer.weights.what.value = what
    waiting = explorer.weights.raster.figure is None
    assert waiting == (what != "original")
    press(explorer.bench.one)
    original, quantized = explorer.session.original(), explorer.result.weight()
    shown = {"original": original, "quantized": quantized, "difference": quantized - original}[what]
    largest = shown.flatten()[shown.abs().argmax()].item()
    expected = f"{largest:+.3g}" if what == "difference" else f"{abs(largest):.3g}"
    assert expected in explorer.weights.raster.answer.object


def test_one_row_has_its_own_histogram_and_levels(explorer: Explorer) -> None:
    explorer.bench.settings["group"].value = 0
    press(explorer.bench.one)
    explorer.weights.row.value = 3
    levels = explorer.result.weight()[3].unique()
    assert "64 weights of row 3" in explorer.weights.histogram.answer.object
    assert [shape["x0"] for shape in explorer.weights.histogram.figure.plot["layout"]["shapes"]] == levels.tolist()


def test_a_row_that_the_next_layer_lacks_is_not_asked_of_it(explorer: Explorer) -> None:
    explorer.layers.menu.value = "model.layers.0.mlp.gate_proj"
    explorer.weights.row.value = 127
    explorer.layers.menu.value = DOWN
    assert explorer.weights.row.value == 63


def test_quantizing_the_whole_model_fills_the_map_and_the_ledger(explorer: Explorer) -> None:
    press(explorer.bench.all)
    whole = explorer.session.whole
    explorer.bring("Ledger")
    explorer.ledger.scope.value = "the whole model"
    assert f"{whole.bits_per_weight:.2f} bits per weight" in explorer.ledger.frame.answer.object
    explorer.bring("Error")
    assert explorer.errors.layers.figure.table["name"].tolist() == explorer.session.model.layer_names


def test_both_models_write(explorer: Explorer) -> None:
    press(explorer.bench.one)
    explorer.text.prompt.value, explorer.text.tokens.value = "The <b>small</b> dog", 6
    press(explorer.text.go)
    assert all(explorer.text.pieces)
    assert "The &lt;b&gt;small&lt;/b&gt; dog" in explorer.text.left.object
    assert "original text" in explorer.text.left.object
    assert "quantized text" in explorer.text.right.object
    assert explorer.session.choice.prompt == "The <b>small</b> dog"
    explorer.text.as_table.value = True
    assert len(explorer.text.table[0].value) == max(map(len, explorer.text.pieces))


def test_writing_before_anything_is_quantized_says_what_to_do(explorer: Explorer) -> None:
    press(explorer.text.go)
    assert "nothing is quantized yet" in explorer.notices.messages[0]
    assert explorer.notices.view.visible
    assert (explorer.text.go.disabled, explorer.text.stop.disabled) == (False, True)


def failing() -> Iterator[None]:
    """A job that ends badly after its first step."""
    yield None
    raise WorkbenchError("the layer is on fire; pour water on it.")


def test_a_failed_job_becomes_a_notice_and_frees_the_buttons(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer.session, "quantize_steps", failing)
    press(explorer.bench.one)
    assert explorer.notices.messages == ["the layer is on fire; pour water on it."]
    assert "Failed" in explorer.bench.status.object
    assert (explorer.bench.one.disabled, explorer.bench.cancel.disabled, explorer.bench.job) == (False, True, None)


def test_a_bug_becomes_a_notice_with_its_traceback(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(explorer.session, "undo", broken)
    with caplog.at_level(logging.ERROR):
        press(explorer.bench.undo)
    assert "ZeroDivisionError: planted" in explorer.notices.messages[0]
    assert "in broken" in explorer.notices.messages[0]
    assert "unexpected error" in caplog.text


def test_a_figure_and_its_table_take_turns(explorer: Explorer) -> None:
    frame = explorer.weights.histogram
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


def test_only_the_tab_in_front_is_drawn(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for name, part in explorer.parts.items():
        monkeypatch.setattr(part, "refresh", lambda name=name: drawn.append(name))
    explorer.layers.menu.value = DOWN
    assert drawn == ["Weights"]
    explorer.bring("Ledger")
    explorer.bring("Weights")
    explorer.bring("Ledger")
    assert drawn == ["Weights", "Ledger"], "what has not changed is not drawn again"
    explorer.bench.settings["bits"].value = 3
    assert drawn == ["Weights", "Ledger", "Ledger"]


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


class EndsWhileLookedAt(Job[None]):
    """A job that is running at the first look at its status and done at the next, as when its thread ends in between."""

    looks = 0

    @property
    def status(self) -> Status:
        self.looks += 1
        return Status.RUNNING if self.looks == 1 else Status.DONE


def test_a_text_that_ends_while_it_is_looked_at_is_shown_to_its_end(explorer: Explorer) -> None:
    text = explorer.text
    text.job = EndsWhileLookedAt(lambda: iter(()))  # type: ignore[arg-type,return-value]
    text.job.latest = (["a", "b"], ["a", "c"])
    text.go.disabled = True
    text._look()
    assert text.job is not None, "it was running when looked at: look again"
    text._look()
    assert text.job is None
    assert not text.go.disabled
    assert "token 2 is “b” in the original and “c” in the quantized" in text.sentence.object
