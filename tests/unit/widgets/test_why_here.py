"""Why here? The layers to blame for the fork of the run on show are marked on the map, until another run is shown."""

from pathlib import Path

import pytest

from tests.unit.widgets.test_run_bar import strip
from tests.unit.widgets.test_squeeze import stops, visitor
from workbench.analysis.predictions.fork import ForkFinder
from workbench.session import SharedModel
from workbench.session.runs import ORIGINAL
from workbench.widgets.decisions.squeeze import SqueezeView
from workbench.widgets.predictions.why_here import LOOK_AHEAD
from workbench.widgets.shell.explorer import Explorer
from workbench.widgets.shell.run_bar import RunBar

__all__ = ["stops"]  # a fixture that these tests share


@pytest.fixture
def explorer(shared: SharedModel, stops: Path) -> Explorer:
    """A visitor at the stop of one bit, who asks why."""
    explorer = Explorer(visitor(shared, stops), threaded=False)
    squeeze = strip(explorer, SqueezeView)
    assert squeeze.why_here.go.disabled, "the original parts from nothing"
    squeeze.slider.value = 2
    assert not squeeze.why_here.go.disabled
    squeeze.why_here.go.clicks += 1
    assert explorer.notices.messages == []
    return explorer


def test_the_guilty_layers_are_framed_and_the_map_is_coloured_by_blame(explorer: Explorer) -> None:
    session, why = explorer.session, strip(explorer, SqueezeView).why_here
    quantized = session.shared.squeeze.quantized_at(session.runs.current.stop)
    finder = ForkFinder(session.model, quantized, session.choice.prompt, LOOK_AHEAD)
    guilty = set(finder.guilty().layers)
    assert guilty
    assert set(session.selection.layers) == guilty
    figure = explorer.layers.frame.figure
    dotted = [shape for shape in figure.plot["layout"]["shapes"] if shape.get("line", {}).get("dash") == "dot"]
    assert len(dotted) == len(guilty)
    assert explorer.layers.colour.value == "fork_blame"
    table = figure.table.set_index("name")["fork_blame"]
    blame = finder.blame().set_index("name")["lead_gain"]
    assert table.to_dict() == pytest.approx(blame.to_dict())
    assert f"At token {finder.fork} the original writes" in why.answer.object


def test_blame_holds_for_one_run_and_prompt(explorer: Explorer) -> None:
    session, why = explorer.session, strip(explorer, SqueezeView).why_here
    strip(explorer, RunBar).chips.value = ORIGINAL
    assert session.selection.layers == ()
    assert "fork_blame" not in explorer.layers.colour.options.values()
    assert why.answer.object == ""
    assert why.go.disabled


def test_the_fork_in_the_text_tab_marks_its_layers_too(explorer: Explorer) -> None:
    session = explorer.session
    strip(explorer, SqueezeView).detail.clicks += 1
    session.mark(layers=())
    forks = explorer.bring("Text").forks
    forks.find()
    assert explorer.notices.messages == []
    assert forks.blame.figure.table.loc[forks.blame.figure.table["guilty"], "name"].sort_values().tolist() == sorted(
        session.selection.layers
    )
