"""The layer map: steps over the grid, a table that filters and selects, and layers read in the background."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import workbench as wb
from workbench.jobs import run_steps
from workbench.session import Session, SharedModel
from workbench.widgets.shell import layer_browser
from workbench.widgets.shell.layer_browser import LayerBrowser, LayerTable

NAMES = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]


@pytest.fixture
def fresh(tiny_models: dict[str, Path]) -> Session:
    """A visitor of a model of which no layer has been read."""
    return Session(SharedModel(wb.open_model(tiny_models["llama"])))


def test_steps_walk_over_the_grid_and_end_at_its_edges(session: Session) -> None:
    view = LayerBrowser(session, threaded=False)
    assert {label: button.disabled for label, button in view.steps.items()} == {
        "◀ matrix": True, "matrix ▶": False, "▲ block": True, "▼ block": False
    }  # fmt: skip
    seen = []
    for _ in range(7):
        view.steps["matrix ▶"].clicks += 1
        seen.append(session.layer)
    assert seen == [f"model.layers.0.{name}" for name in (*NAMES[1:], NAMES[-1])]
    view.steps["▼ block"].clicks += 1
    assert session.layer == f"model.layers.1.{NAMES[-1]}"
    assert (view.steps["▼ block"].disabled, view.steps["▲ block"].disabled) == (True, False)
    view.steps["◀ matrix"].clicks += 1
    assert (session.layer, view.menu.value) == (f"model.layers.1.{NAMES[-2]}",) * 2


def test_a_small_model_is_read_at_once(fresh: Session) -> None:
    view = LayerBrowser(fresh, threaded=False)
    assert fresh.shared.is_sketched
    assert not view.jobs.view.visible
    assert "All 73,728 weights" in view.frame.answer.object


def test_the_map_shows_errors_once_every_layer_is_quantized_unless_a_colour_was_chosen(fresh: Session) -> None:
    view, chooser = LayerBrowser(fresh, threaded=False), LayerBrowser(fresh, threaded=False)
    chooser.colour.value = "absmax"
    run_steps(fresh.quantize_model_steps())
    for browser in (view, chooser):
        browser.live.announce("results")
    assert (view.colour.value, chooser.colour.value) == ("output_error", "absmax")
    assert view.frame.figure.question == "Which layers have the largest output error?"
    view.colour.value = "kurtosis"
    view.live.announce("results")
    assert view.colour.value == "kurtosis"


def test_a_large_model_is_read_while_the_page_is_there(fresh: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_browser, "AT_ONCE", 1000)
    later = []
    monkeypatch.setattr("panel.state.onload", later.append)
    view = LayerBrowser(fresh, threaded=False)
    table = LayerTable(view.live)
    assert fresh.shared.sketches == {}
    assert "No layer has a value for kurtosis yet" in view.frame.answer.object
    assert "14 layers, 0 of them read" in table.hint.object
    later[0]()
    assert fresh.shared.is_sketched
    assert view.frame.figure.table["kurtosis"].notna().all()
    assert "14 layers; model.layers.0.self_attn.q_proj is selected" in table.hint.object


def test_a_page_can_be_used_while_layers_are_read(fresh: Session) -> None:
    steps = fresh.shared.sketch_steps()
    first = next(steps)
    assert first.layer == fresh.model.layer_names[0]
    assert 0 < first.fraction < 0.2
    table = fresh.layer_table(wait=False)
    assert table["kurtosis"].notna().tolist() == [True] + [False] * 13
    assert len(fresh.shared.sketches) == 1, "nothing more was read for the table"
    fresh.shared.sketch(fresh.model.layer_names[5])
    read = [step.layer for step in steps]
    assert fresh.model.layer_names[5] not in read, "what another visitor has read is not read again"
    assert fresh.layer_table()["kurtosis"].notna().all()


def test_a_measure_of_another_view_colours_the_map(session: Session) -> None:
    view = LayerBrowser(session, threaded=False)
    session.measured["sensitivity"] = {name: number / 10 for number, name in enumerate(session.model.layer_names)}
    view.live.announce("results")
    assert "sensitivity" in view.colour.options.values()
    assert view.colour.value == "sensitivity", "somebody has just asked for it"
    assert view.frame.figure.table["sensitivity"].tolist() == [number / 10 for number in range(14)]
    assert "block 1 · down_proj (1.3)" in view.frame.answer.object


def test_the_table_filters_and_a_row_selects_its_layer(session: Session) -> None:
    view = LayerTable(session, threaded=False)
    filters = view.table.header_filters
    assert filters["name"]["func"] == "like"
    assert filters["kurtosis"]["func"] == ">="
    view._clicked(SimpleNamespace(row=6))
    assert session.layer == session.model.layer_names[6]
    assert session.layer in view.hint.object
