"""Every inspector alone, on whatever it is opened on, and linked to others."""

from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import workbench as wb
from workbench.errors import ModelError, WorkbenchError
from workbench.session import Session, SharedModel
from workbench.widgets.base.component import Component, FigureFrame
from workbench.widgets.shell.tabs import STRIPS, TABS

LAYER = "model.layers.1.mlp.down_proj"
RECIPE = wb.recipe("rtn", bits=2, group=32)
COMPONENTS = [name for name in wb.__all__ if isinstance(getattr(wb, name), type) and issubclass(getattr(wb, name), Component)]


def test_every_component_of_the_explorer_is_public_under_its_own_name() -> None:
    shown = {kind for section in TABS.values() for kind in section.values()} | set(STRIPS)
    public = {getattr(wb, name) for name in COMPONENTS}
    assert shown <= public
    assert [name for name in COMPONENTS if getattr(wb, name).__name__ != name] == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_it_shows_itself_alone(name: str, shared: SharedModel) -> None:
    part = getattr(wb, name)(shared, LAYER, threaded=False)
    assert part.session.layer == LAYER
    assert part.notices.messages == []
    assert isinstance(part.ipywidget(), ipywidgets.DOMWidget)
    assert part._repr_mimebundle_({}, {})


def test_what_it_is_opened_on(tiny_models: dict[str, Path], shared: SharedModel, session: Session, tmp_path: Path) -> None:
    model = wb.open_model(tiny_models["llama"])
    small = wb.quantize_model(model, RECIPE)
    subjects = [model, str(tiny_models["llama"]), tiny_models["llama"], shared, session, small]
    subjects += [wb.load(wb.save(small, tmp_path / "out", model)), model.to_transformers()]
    for subject in subjects:
        view = wb.WeightInspector(subject, LAYER, threaded=False)
        assert view.session.layer == LAYER
        assert view.session.model.layer_names == model.layer_names
    assert wb.LayerErrors(small, threaded=False).session.latest().keys() == small.layers.keys()


def test_a_result_opens_its_model(tiny_models: dict[str, Path]) -> None:
    model = wb.open_model(tiny_models["llama"])
    result = wb.quantize(model, LAYER, RECIPE)
    for view in (wb.LedgerView(result, threaded=False), wb.LedgerView(model, result, threaded=False)):
        assert (view.session.layer, view.session.recipe) == (LAYER, RECIPE)
        assert view.session.result is result


def test_a_result_of_a_fused_model_asks_for_the_model(builtin: Any) -> None:
    model = wb.fuse(builtin)
    result = wb.quantize(model, LAYER, RECIPE)
    with pytest.raises(WorkbenchError, match=r"names no model that can be opened; give both: wb.LedgerView\(model, result\)"):
        wb.LedgerView(result)
    assert wb.LedgerView(model, result, threaded=False).session.result is result


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            (3,),
            "WeightInspector takes a model from wb.open_model, its name, a session, another component, or a result of wb.quant",
        ),
        ((None,), "not a NoneType"),
        (("builtin", 3), "WeightInspector takes a layer's name or a result of wb.quantize as its layer, not a int"),
    ],
)
def test_a_wrong_type_is_one_sentence(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(WorkbenchError, match=sentence) as failure:
        wb.WeightInspector(*arguments)
    assert "\n" not in str(failure.value)


def test_an_unknown_layer_is_named(shared: SharedModel) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        wb.WeightInspector(shared, "model.layers.1.mlp.down")


def drawn(view: Component) -> list[str]:
    """What the component's figures say, as a reader sees it."""
    return [frame.answer.object for frame in vars(view).values() if isinstance(frame, FigureFrame)]


def test_linked_inspectors_follow_each_other(shared: SharedModel) -> None:
    first = wb.LedgerView(shared, threaded=False)
    second, bench = wb.LayerErrors(first, threaded=False), wb.LayerBench(first, threaded=False)
    other = wb.LayerErrors(shared, threaded=False)
    assert first.session is second.session is bench.session is not other.session
    before = drawn(first), drawn(second), drawn(other)
    second.live.choose(lambda: second.session.select(LAYER))
    bench.one.param.trigger("clicks")
    assert first.session.result is not None
    assert bench.notices.messages == []
    assert drawn(first) != before[0]
    assert drawn(second) != before[1]
    assert drawn(other) == before[2], "nobody but the linked ones"


def test_an_explorer_and_an_inspector_are_linked(shared: SharedModel) -> None:
    explorer = wb.Explorer(shared, threaded=False)
    view = wb.WeightInspector(explorer, LAYER, threaded=False)
    assert explorer.session is view.session
    assert LAYER in explorer.heading.object
    assert wb.Explorer(view, threaded=False).session is view.session


def test_inspectors_stand_side_by_side(shared: SharedModel) -> None:
    first = wb.LedgerView(shared, threaded=False)
    box = ipywidgets.HBox([first.ipywidget(), wb.LayerErrors(first, threaded=False).ipywidget()])
    assert len(box.children) == 2
