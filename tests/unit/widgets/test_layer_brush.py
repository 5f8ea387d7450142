"""Several layers at once: marked by a box, by name or by block, painted, and quantized as one run; and the drawing of a block."""

import re

import pytest

import workbench as wb
from workbench.session import Session
from workbench.views.theme import DARK, LIGHT, Theme
from workbench.views.weights.block_drawing import draw_block
from workbench.widgets.decisions.pareto_painter import BudgetPainter
from workbench.widgets.shell.layer_browser import LayerBrowser

QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


@pytest.fixture
def browser(session: Session) -> LayerBrowser:
    return LayerBrowser(session, threaded=False)


def frames(browser: LayerBrowser, kind: str) -> list[dict]:
    """Marks on the map: `dot` around marked layers, `solid` around the selected one, `path` in painted ones."""
    shapes = browser.frame.figure.plot["layout"]["shapes"]
    return [shape for shape in shapes if shape.get("line", {}).get("dash", shape["type"]) == kind]


def test_a_box_over_the_map_marks_the_layers_inside(browser: LayerBrowser) -> None:
    points = [{"x": "gate_proj", "y": "0"}, {"x": "down_proj", "y": "1"}]
    browser.frame.plot.selected_data = {"points": points}
    assert browser.session.selection.layers == ("model.layers.0.mlp.gate_proj", DOWN)
    assert {(shape["x0"] + 0.5, shape["y0"] + 0.5) for shape in frames(browser, "dot")} == {(4, 0), (6, 1)}
    browser.frame.plot.selected_data = {"points": []}
    assert len(browser.session.selection.layers) == 2, "a figure that is drawn anew unmarks nothing"
    assert browser.brush.names.value == f"model.layers.0.mlp.gate_proj, {DOWN}"
    unseen = browser.frame.figure.plot["data"][1]
    assert len(unseen["x"]) == 14
    assert unseen["marker"]["opacity"] == unseen["selected"]["marker"]["opacity"] == 0


def test_layers_are_marked_by_name_block_and_matrix(browser: LayerBrowser) -> None:
    brush, session = browser.brush, browser.session
    brush.names.value = "*.0.mlp.*"
    assert len(session.selection.layers) == 3
    brush.names.value = "*.nothing"
    assert "no layer matches" in browser.notices.messages[0]
    assert brush.names.value == "", "what cannot be marked does not stay in the field"
    brush.block.clicks += 1
    assert [name.split(".")[2] for name in session.selection.layers] == ["0"] * 7
    brush.matrix.clicks += 1
    assert session.selection.layers == (QUERY, QUERY.replace(".0.", ".1."))
    brush.none.clicks += 1
    assert session.selection.layers == ()
    assert brush.paint.disabled


def test_what_is_painted_is_a_run(browser: LayerBrowser) -> None:
    brush, session = browser.brush, browser.session
    session.use(wb.recipe("rtn", bits=3, group=32))
    brush.names.value = "*.mlp.*"
    brush.paint.clicks += 1
    brush.names.value = "*.0.mlp.*"
    brush.recipe.value = "rtn:bits=2,group=32"
    brush.paint.clicks += 1
    assert "Plan: rtn bits=2 group=32 on 3 layers; rtn bits=3 group=32 on 3 layers." in brush.plan.object
    assert len(frames(browser, "path")) == 6
    brush.go.clicks += 1
    assert browser.notices.messages == []
    run = session.runs.current
    assert run.label == "a mix of 2 recipes, 6 of 14 layers"
    assert run.quantized.layers["model.layers.0.mlp.up_proj"].recipe == wb.recipe("rtn", bits=2, group=32)
    assert run.quantized.layers[DOWN].recipe == wb.recipe("rtn", bits=3, group=32)
    assert session.latest() == dict(run.quantized.layers)
    assert session.history.steps[session.history.at].outcome.startswith("quantized 6 painted layers: 3.08")
    session.select("model.layers.0.mlp.up_proj")
    assert session.compared.shown is run.quantized.layers["model.layers.0.mlp.up_proj"], "whatever is on the bench"
    brush.names.value = ""
    brush.clear.clicks += 1
    assert session.painting.recipes == {}
    assert brush.go.disabled
    with pytest.raises(wb.errors.WorkbenchError, match="no layer is painted: mark layers on the map"):
        next(session.painting.quantize_steps())


def test_a_recipe_that_there_is_not_paints_nothing(browser: LayerBrowser) -> None:
    browser.brush.names.value = "*.mlp.*"
    browser.brush.recipe.value = "rnt:bits=2"
    browser.brush.paint.clicks += 1
    assert "rnt" in browser.notices.messages[0]
    assert browser.session.painting.recipes == {}


def test_the_budget_knows_what_is_painted_on_the_map(browser: LayerBrowser) -> None:
    painter = BudgetPainter(browser.live, threaded=False)
    painter.names.value = "rtn:bits=2,group=32; rtn:bits=4,group=32"
    painter.measure_options()
    browser.brush.names.value = DOWN
    browser.brush.recipe.value = "rtn:bits=4,group=32"
    browser.brush.paint.clicks += 1
    assert painter.painted == {DOWN: "rtn:bits=4,group=32"}
    assert painter.allocation.choice[DOWN] == "rtn:bits=4,group=32"
    assert "1 set by hand" in painter.plan.answer.object
    painter.clear_paint()
    assert browser.session.painting.recipes == {}
    assert frames(browser, "path") == []


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_a_block_is_drawn_in_the_order_of_its_data(browser: LayerBrowser, theme: Theme) -> None:
    table = browser.session.layer_table()
    drawing = draw_block(table, DOWN, "kurtosis", (DOWN,), theme=theme)
    words = re.findall(r">(q|k|v|o|gate|up|down|softmax\(qkᵀ\)·v|activation)<", drawing)
    assert words == ["q", "k", "v", "softmax(qkᵀ)·v", "o", "gate", "up", "activation", "down"]
    (selected,) = re.findall(r'data-place="(\d+)"[^>]*aria-pressed="true"', drawing)
    assert table["name"].iloc[int(selected)] == DOWN
    assert re.search(r'aria-label="down_proj: kurtosis [^"]*, marked"', drawing)
    assert theme.accent in drawing


def test_a_matrix_of_the_drawing_selects_its_layer(browser: LayerBrowser) -> None:
    browser.drawing._handle_msg(browser.session.model.layer_names.index(DOWN))
    assert browser.session.layer == DOWN
    assert "Block 1" in browser.drawing.object


def test_experts_beyond_the_first_are_counted(browser: LayerBrowser) -> None:
    table = browser.session.layer_table().iloc[:1]
    experts = table.loc[table.index.repeat(20)].assign(
        name=[f"experts.{number}" for number in range(20)], matrix=[f"mlp.experts.w1.{number}" for number in range(20)]
    )
    drawing = draw_block(experts, "experts.0", "kurtosis")
    assert drawing.count("<button") == 8
    assert "and 12 more" in drawing


def test_the_drawing_has_the_colours_of_the_map(browser: LayerBrowser) -> None:
    table = browser.session.layer_table().iloc[:3].assign(kurtosis=[0.0, 1.0, float("nan")], error_difference=[-2.0, 0.0, 2.0])
    tints = re.findall(r'style="(background:[^"]*|)"', draw_block(table, QUERY, "kurtosis"))
    assert tints == ["background:rgb(0, 34, 78);color:#ffffff", "background:rgb(254, 232, 56);color:#000000", ""]
    blue, white, orange = re.findall(
        r'style="background:rgb\((\d+), (\d+), (\d+)\)', draw_block(table, QUERY, "error_difference")
    )
    assert (blue, white, orange) == (("31", "95", "153"), ("255", "255", "255"), ("194", "94", "0"))
