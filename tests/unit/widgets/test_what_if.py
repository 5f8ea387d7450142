"""The tabs What-if and Budget and the fork finder: live on a tiny model, in sentences where there is nothing yet."""

import numpy as np
import pytest

import workbench as wb
from workbench.session import Session
from workbench.views.theme import LIGHT
from workbench.widgets.decisions.pareto_painter import FREE, BudgetPainter, suggest_recipes
from workbench.widgets.predictions.fork import ForkView
from workbench.widgets.predictions.what_if import BudgetOfErrors, LayerEffect, WhatIfView


@pytest.fixture
def whole(session: Session) -> Session:
    """A session with every layer quantized."""
    for _ in session.quantize_model_steps():
        pass
    return session


def test_the_effect_follows_the_bench(session: Session) -> None:
    view = LayerEffect(session, threaded=False)
    assert view.effect is not None
    first = view.effect[1]
    assert first.kl == wb.what_if(session.model, session.layer, session.result, wb.text("evaluation")).kl
    assert "nats per token" in view.sentence.object
    assert view.text.object.count("title=") == 400
    view.live.choose(lambda: session.use(wb.recipe("rtn", bits=8, group=32)))
    assert view.effect[1].kl < first.kl
    view.as_table.value = True
    assert view.text.object == ""
    assert len(view.table[0].value) == first.tokens


def test_without_following_it_waits_for_a_result(session: Session) -> None:
    view = LayerEffect(session, threaded=False)
    view.follow.value = False
    view.live.choose(lambda: session.select(session.model.layer_names[3]))
    assert "This layer is not quantized yet" in view.sentence.object
    for _ in session.quantize_steps():
        pass
    view.live.announce("results")
    assert view.effect is not None
    assert view.effect[0] is session.result


def test_a_recipe_that_does_not_fit_is_a_notice(session: Session) -> None:
    view = LayerEffect(session, threaded=False)
    view.live.choose(lambda: session.use(wb.recipe("rtn", bits=2, group=7)))
    assert "does not fit this layer" in view.sentence.object
    assert len(view.notices.messages) == 1


def test_error_budget(whole: Session) -> None:
    view = BudgetOfErrors(whole, threaded=False)
    assert "14 of 14 layers are quantized" in view.waterfall.answer.object
    view.top.value = 3
    view.measure()
    assert len(view.waterfall.figure.table) == 14
    assert len(view.interactions.figure.table) == 3


def test_error_budget_of_nothing_and_of_one(session: Session) -> None:
    view = BudgetOfErrors(session, threaded=False)
    assert view.go.disabled
    assert "press Quantize the whole model" in view.waterfall.answer.object
    for _ in session.quantize_steps():
        pass
    view.live.announce("results")
    assert not view.go.disabled
    view.measure()
    assert view.waterfall.figure is not None
    assert view.interactions.figure is None


def test_both_parts_are_only_drawn_in_front(session: Session) -> None:
    view = WhatIfView(session, threaded=False)
    view.look(False)
    view.layer.live.choose(lambda: session.use(wb.recipe("rtn", bits=3, group=32)))
    assert view.layer.effect[0].recipe != session.recipe
    view.look(True)
    assert view.layer.effect[0].recipe == session.recipe


def test_painter(session: Session) -> None:
    view = BudgetPainter(session, threaded=False)
    assert view.bits.disabled
    assert "Press Measure the options" in view.plan.answer.object
    assert view.names.value == "rtn:bits=2,group=64; rtn:bits=3,group=64; rtn:bits=4,group=64"
    view.measure_options()
    assert view.options is not None
    assert len(view.options) == 14 * 3
    coarsest = view.options[view.options["recipe"] == "rtn:bits=2,group=64"].set_index("name")["kl"]
    assert session.layer_table().set_index("name")["sensitivity"].equals(coarsest.rename("sensitivity")), "for the layer map"
    assert not view.bits.disabled
    low, middle = view.bits.start, view.bits.value
    loss = view.allocation.loss
    view.bits.value = low
    assert set(view.allocation.choice.values()) == {"rtn:bits=2,group=64"}
    assert view.allocation.loss > loss
    view.bits.value = middle
    view.layer.value = name = session.model.layer_names[5]
    view.brush.value = "rtn:bits=4,group=64"
    view.paint.clicks += 1
    assert view.allocation.choice[name] == "rtn:bits=4,group=64"
    assert "1 set by hand" in view.plan.answer.object
    other = session.model.layer_names[7]
    cells = view.plan.figure.plot["data"][0]
    row, column = next(cell for cell in np.ndindex(np.shape(cells["z"])) if cells["customdata"][cell[0]][cell[1]][0] == other)
    view.plan.plot.click_data = {"points": [{"curveNumber": 0, "x": cells["x"][column], "y": cells["y"][row]}]}
    assert view.painted == dict.fromkeys([name, other], "rtn:bits=4,group=64"), "a click on a cell paints it"
    view.brush.value = FREE
    view.paint.clicks += 1
    assert view.painted == {name: "rtn:bits=4,group=64"}, "the budget has it again"
    namespace: dict = {}
    head = view.code.partition("result =")[0].replace(session.model.code(), "None")
    exec(head, namespace)
    assert namespace["plan"] == view.allocation.plan
    view.measure_plan()
    assert len(view.measured) == 1
    assert "times its prediction" in view.pareto.answer.object
    view.method.value = "ranked by lim"
    assert view.allocation.bits_per_weight <= middle
    view.clear_paint()
    assert view.painted == {}


def test_paint_that_the_budget_cannot_pay_is_taken_back(session: Session) -> None:
    view = BudgetPainter(session, threaded=False)
    view.measure_options()
    view.bits.value = view.bits.start
    view.brush.value = "rtn:bits=4,group=64"
    view.paint.clicks += 1
    assert view.painted == {}
    assert "bits per weight are not enough" in view.notices.messages[0]


def test_unknown_recipes_are_a_notice(session: Session) -> None:
    view = BudgetPainter(session, threaded=False)
    view.names.value = "rtm:bits=2"
    view.go.clicks += 1
    assert "Did you mean 'rtn'" in view.notices.messages[0]
    assert view.bits.disabled


def test_first_recipes_divide_every_layer() -> None:
    assert suggest_recipes([96, 64]).startswith("rtn:bits=2,group=32;")
    assert suggest_recipes([7, 5]).startswith("rtn:bits=2,group=0;")


def test_fork(whole: Session) -> None:
    view = ForkView(whole, threaded=False)
    view.tokens.value = 30
    view.find()
    assert view.finder is not None
    assert view.finder.fork is not None  # two bits on a random model
    assert len(view.along.figure.table) == len(view.finder.table)
    assert len(view.blame.figure.table) == 14
    assert view.blame.figure.table["guilty"].any()
    assert not view.back.disabled
    assert f'data-place="{view.finder.fork - 1}"' in view.text.object
    view.text._handle_msg(4)
    assert view.session.selection.tokens == (4,)
    assert view.text.object.count('aria-pressed="true"') == 1
    edges = view.along.figure.plot["data"][0]["marker"]["line"]["color"]
    assert [place for place, edge in enumerate(edges) if edge == LIGHT.accent] == [4]
    view.continuations.value = 3
    view.rewind()
    assert "of 3 continuations of 24 tokens" in view.recovery.object


def test_fork_of_nothing(session: Session) -> None:
    view = ForkView(session, threaded=False)
    assert view.go.disabled
    assert "quantize a layer or the whole model first" in view.along.answer.object


def test_no_fork(session: Session) -> None:
    session.use(wb.recipe("none"))
    for _ in session.quantize_steps():
        pass
    view = ForkView(session, threaded=False)
    view.find()
    assert "They do not diverge: both models write the same" in view.along.answer.object
    assert view.blame.figure is None
    assert view.back.disabled
