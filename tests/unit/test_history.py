"""History: a tree of typed steps that can be walked, told in words, written to one file and repeated as a cell."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.jobs import Job
from workbench.session import Choice, Kind, Selection, Session, SharedModel, describe_differences, session_file

RTN, FINER = wb.recipe("rtn", bits=2, group=32), wb.recipe("rtn", bits=3, group=32)
QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def test_every_step_has_a_kind_and_words(session: Session) -> None:
    session.select(DOWN)
    session.use(FINER)
    session.ask("A dog")
    session.mark(channels=range(8))
    Job(session.quantize_steps).run_here()
    history = session.history
    assert [step.kind for step in history.steps] == [Kind.OPEN, Kind.SELECT, Kind.USE, Kind.ASK, Kind.MARK, Kind.QUANTIZE]
    assert [history.words(number) for number in range(6)] == [
        f"opened {QUERY}",
        f"layer {DOWN} (was {QUERY})",
        "rtn bits 3 (was 2)",
        "prompt “A dog” (was “Once upon a time”)",
        "channels 0, 1, 2, 3, 4, 5 and 2 more marked (were none)",
        "quantized this layer: 3.59 stored bits",
    ]


def test_the_branch_that_was_left_stays(session: Session) -> None:
    session.select(DOWN)
    session.use(FINER)
    session.undo()
    session.ask("A dog")
    assert session.history.children(1) == [2, 3]
    session.go(2)
    assert (session.recipe, session.choice.prompt) == (FINER, "Once upon a time")
    session.undo()
    session.redo()
    assert session.recipe == FINER, "forward goes along the branch that was current last"
    with pytest.raises(WorkbenchError, match="no step 9; steps go from 0 to 3"):
        session.go(9)


def test_undo_does_not_stop_at_a_run(session: Session) -> None:
    Job(session.quantize_steps).run_here()
    assert not session.can_undo, "a run changes no choice"
    session.use(FINER)
    Job(session.quantize_steps).run_here()
    session.undo()
    assert session.recipe == RTN
    session.redo()
    assert session.recipe == FINER
    assert not session.can_redo


def test_a_run_belongs_to_the_step_it_was_started_from(session: Session) -> None:
    run = session.quantize_steps()
    next(run)
    session.use(FINER)
    for _ in run:
        pass
    assert session.history.steps[2].parent == 0
    assert (session.history.at, session.recipe) == (1, FINER), "the visitor stays where they went meanwhile"


def test_marks_in_a_row_are_one_step(session: Session) -> None:
    for channel in range(5):
        session.mark(channels=[channel])
    assert len(session.history.steps) == 2
    session.ask("A dog")
    session.mark(rows=[1])
    session.undo()
    assert session.selection == Selection(channels=(4,))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        pytest.param(wb.recipe("rtn", bits=2), ["rtn group default (was 32)"], id="setting"),
        pytest.param(wb.recipe("btc", bits=1.1), ["recipe btc:bits=1.1 (was rtn:bits=2,group=32)"], id="preset"),
        pytest.param(RTN.replace(seed=3), ["seed 3 (was 0)"], id="seed"),
        pytest.param(
            RTN.replace(correction=wb.part("correction", "low-rank", rank=4)),
            ["correction low-rank (rank 4) (was none)"],
            id="part",
        ),
    ],
)
def test_recipes_differ_in_words(recipe: wb.Recipe, said: list[str]) -> None:
    assert describe_differences(Choice(QUERY, RTN), Choice(QUERY, recipe)) == said


def test_a_coder_that_differs_is_named() -> None:
    coarser = FINER.replace(coders=(wb.part("coder", "uniform", bits=5),))
    (said,) = describe_differences(Choice(QUERY, RTN.replace()), Choice(QUERY, coarser))
    assert said.startswith("coder uniform (bits 5")


def test_the_same_choice_differs_in_nothing() -> None:
    assert describe_differences(Choice(QUERY, RTN), Choice(QUERY, wb.recipe("rtn", bits=2, group=32))) == []


def walked(session: Session) -> Session:
    """A session with two branches, a run and marks."""
    session.select(DOWN)
    session.use(wb.recipe("btc", bits=1.0).replace(seed=5))
    session.undo()
    session.use(FINER)
    Job(session.quantize_steps).run_here()
    session.mark(channels=[3], codes=[1])
    session.ask("Lily said “hello”.")
    return session


def test_one_file_brings_everything_back(session: Session, shared: SharedModel, tmp_path: Path) -> None:
    walked(session)
    other = Session(shared)
    session_file.restore_session(other, session_file.save(session, tmp_path / "session.json").read_text())
    assert other.history.steps == session.history.steps
    assert other.choice == session.choice
    other.undo()
    session.undo()
    assert other.choice == session.choice
    assert [path.name for path in tmp_path.iterdir()] == ["session.json"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda d: "{", "not JSON", id="json"),
        pytest.param(lambda d: "[1]", r"the saved session is \[1\]; it must be an object", id="root"),
        pytest.param(lambda d: json.dumps({**d, "format": 1}), "its format is not 'workbench session'", id="format"),
        pytest.param(lambda d: json.dumps({**d, "version": 9}), "version 9 is not known here; .* version 1", id="version"),
        pytest.param(lambda d: json.dumps({**d, "history": None}), "history is null; it must be an object", id="history"),
        pytest.param(
            lambda d: json.dumps({**d, "history": {"at": 0}}), "history has no 'steps'; save the session again", id="steps"
        ),
        pytest.param(lambda d: json.dumps({**d, "history": {"at": 0, "steps": []}}), "no first step", id="empty"),
        pytest.param(
            lambda d: json.dumps({**d, "model": {"source": "other", "fingerprint": ""}}),
            "saved with the model 'other'",
            id="model",
        ),
        pytest.param(
            lambda d: changed(d, "kind", "dance"), r"steps\[1\]\.kind is 'dance'; it must be one of open, select", id="kind"
        ),
        pytest.param(
            lambda d: changed(d, "parent", 1), r"steps\[1\]\.parent is 1; it must be a whole number from 0 to 0", id="parent"
        ),
        pytest.param(lambda d: json.dumps({**d, "history": {**d["history"], "at": 99}}), "no step 99", id="at"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_sentence_and_changes_nothing(session: Session, spoil: Any, said: str) -> None:
    document = json.loads(session_file.encode_session(walked(session)))
    before = session.history
    with pytest.raises(WorkbenchError, match=said):
        session_file.restore_session(session, spoil(document))
    assert session.history is before


def changed(document: dict[str, Any], name: str, value: object) -> str:
    """A saved session whose second step has something wrong."""
    document["history"]["steps"][1][name] = value
    return json.dumps(document)


def test_its_cell_takes_the_same_steps(session: Session) -> None:
    walked(session)
    names: dict[str, Any] = {}
    exec(session_file.write_session_code(session).replace("wb.Explorer(session)", ""), names)
    again = names["session"]
    assert again.choice == session.choice
    torch.testing.assert_close(again.result.weight(), session.result.weight(), rtol=0, atol=0)


def test_a_file_cannot_plant_code_in_the_cell(session: Session, shared: SharedModel) -> None:
    document = json.loads(session_file.encode_session(walked(session)))
    for number, step in enumerate(document["history"]["steps"]):
        step["choice"]["recipe"] |= {"name": "rtn", "settings": {f"bits={number}) or print(": 1}}
        step["choice"]["prompt"] = "'); print('"
    other = Session(shared)
    session_file.restore_session(other, json.dumps(document))
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(session_file.write_session_code(other)))
        if isinstance(node, ast.Call)
    }
    assert "print" not in calls
    document["history"]["steps"][2]["choice"]["recipe"]["seed"] = "0) or print("
    with pytest.raises(WorkbenchError, match=r"steps\[2\]\.choice\.recipe\.seed is '0\) or print\('; it must be a whole number"):
        session_file.restore_session(other, json.dumps(document))


def test_a_long_history_is_read(session: Session, shared: SharedModel) -> None:
    document = json.loads(session_file.encode_session(session))
    first = document["history"]["steps"][0]
    steps = [first, *({**first, "kind": "ask", "parent": number} for number in range(3000))]
    other = Session(shared)
    session_file.restore_session(other, json.dumps({**document, "history": {"at": 3000, "steps": steps}}))
    assert other.history.path(3000) == list(range(3001))
