"""Session: choices can be undone, results belong to what made them, and a saved state comes back."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.calibration import CalibrationStats
from workbench.errors import ModelError, WorkbenchError
from workbench.jobs import Job
from workbench.quantized import QuantizedLayer
from workbench.session import Selection, Session, SharedModel

RTN = wb.recipe("rtn", bits=2, group=32)
FINER = wb.recipe("rtn", bits=3, group=32)
QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def quantize(session: Session) -> QuantizedLayer:
    return Job(session.quantize_steps).run_here().result()


def test_it_begins_at_the_first_layer_with_nothing_to_undo(session: Session) -> None:
    assert (session.layer, session.recipe, session.result) == (session.model.layer_names[0], RTN, None)
    assert (session.can_undo, session.can_redo) == (False, False)


def test_every_choice_is_undone_and_redone_in_order(session: Session) -> None:
    session.select(DOWN)
    session.use(FINER)
    session.ask("A small bird")
    seen = [session.choice]
    while session.can_undo:
        session.undo()
        seen.append(session.choice)
    assert [(c.layer, c.recipe, c.prompt) for c in seen] == [
        (DOWN, FINER, "A small bird"),
        (DOWN, FINER, "Once upon a time"),
        (DOWN, RTN, "Once upon a time"),
        (QUERY, RTN, "Once upon a time"),
    ]
    for choice in reversed(seen[:-1]):
        assert session.can_redo
        session.redo()
        assert session.choice == choice
    assert not session.can_redo


def test_undo_and_redo_stop_at_the_ends(session: Session) -> None:
    session.undo()
    session.redo()
    assert session.layer == QUERY


def test_a_choice_after_an_undo_starts_a_new_branch(session: Session) -> None:
    session.use(FINER)
    session.undo()
    session.select(DOWN)
    assert (session.layer, session.recipe, session.can_redo) == (DOWN, RTN, False)
    session.undo()
    assert (session.layer, session.recipe) == (QUERY, RTN)


def test_choosing_the_same_again_is_no_step(session: Session) -> None:
    session.select(QUERY)
    session.use(wb.recipe("rtn", bits=2, group=32))
    assert not session.can_undo


def test_an_unknown_layer_changes_nothing(session: Session) -> None:
    with pytest.raises(ModelError, match="no_such_layer"):
        session.select("no_such_layer")
    assert (session.layer, session.can_undo) == (QUERY, False)


def test_a_result_is_found_again_and_never_shown_for_anything_else(session: Session) -> None:
    result = quantize(session)
    assert session.result is result
    assert result.weight().shape == session.original().shape
    session.select(DOWN)
    assert session.result is None
    session.select(QUERY)
    session.use(FINER)
    assert session.result is None
    session.use(RTN)
    assert session.result is result


def test_the_whole_models_results_belong_to_its_recipe(session: Session) -> None:
    whole = Job(session.quantize_model_steps).run_here().result()
    assert session.quantized_model is whole
    assert set(whole.layers) == set(session.model.layer_names)
    session.select(DOWN)
    assert session.result is whole.layers[DOWN]
    session.use(FINER)
    assert session.result is None, "made with another recipe"


def test_what_a_run_changed_beside_its_layers_is_used_with_them(session: Session) -> None:
    whole = Job(session.quantize_model_steps).run_here().result()
    norm = "model.norm.weight"
    session.quantized_model = replace(whole, changed_tensors={norm: torch.zeros(64)})
    assert not session.packed_model().module.get_parameter(norm).any()
    session.results.clear()
    quantize(session)
    assert session.packed_model().module.get_parameter(norm).any(), "no layer of that run is in use"


def test_a_layer_alone_brings_what_its_run_changed_before_it(session: Session) -> None:
    """Gains of half the size make the layer behind them half as large."""
    whole = Job(session.quantize_model_steps).run_here().result()
    gains = "model.layers.1.post_attention_layernorm.weight"
    session.select(name := "model.layers.1.mlp.up_proj")
    plain = session.effect(whole.layers[name]).kl
    session.quantized_model = replace(whole, changed_tensors={gains: 0.5 * session.model.tensor(gains)})
    changed = session.effect(whole.layers[name])
    assert changed.kl != pytest.approx(plain, rel=1e-3)
    expected = session.shared.replay().divergence({name: 0.5 * whole.layers[name].weight()})
    assert changed.kl == pytest.approx(expected.kl, rel=1e-4)
    other = Job(Session(session.shared, recipe=FINER).quantize_model_steps).run_here().result().layers[name]
    by_hand = session.shared.replay().divergence({name: 0.5 * other.weight()})
    assert session.effect(whole.layers[name], other).kl == pytest.approx(by_hand.kl, rel=1e-4)


def test_what_is_quantized_is_the_whole_run_until_a_layer_is_done_anew(session: Session) -> None:
    with pytest.raises(WorkbenchError, match="nothing is quantized yet"):
        session.quantized()
    whole = Job(session.quantize_model_steps).run_here().result()
    assert session.quantized() is whole
    session.use(FINER)
    alone = quantize(session)
    mixed = session.quantized()
    assert mixed.layers[session.layer] is alone
    assert mixed.plan.recipe_for(session.layer) == FINER
    assert len(mixed.layers) == len(whole.layers)
    session.quantized_model = replace(whole, fused={"seed": 1})
    session.results.clear()
    alone = quantize(session)
    assert (dict(session.quantized().layers), session.quantized().fused) == ({session.layer: alone}, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fused": {"seed": 1}}, "fused the model"),
        ({"changed_tensors": {"model.norm.weight": torch.ones(64)}}, "changed more than its layers"),
    ],
)
def test_a_layer_alone_does_not_join_a_run_that_changed_more_than_layers(
    session: Session, changes: dict[str, Any], words: str
) -> None:
    whole = Job(session.quantize_model_steps).run_here().result()
    session.quantized_model = whole = replace(whole, **changes)
    assert session.quantized() is whole
    session.adopt(replace(whole.layers[session.layer], edits=("merged codes 1 and 2",)))
    assert session.quantized().layers[session.layer].edits, "what was made of a layer of the run by hand still fits"
    session.use(FINER)
    alone = quantize(session)
    with pytest.raises(WorkbenchError, match=f"{session.layer}: quantized alone, but the last run .* {words}"):
        session.quantized()
    assert session.effect(alone).kl > 0


def test_sessions_on_one_model_keep_their_results_apart(session: Session, shared: SharedModel) -> None:
    quantize(session)
    assert Session(shared, recipe=RTN).result is None


def test_results_of_a_layer_are_listed_as_they_were_made(session: Session) -> None:
    quantize(session)
    session.use(FINER)
    quantize(session)
    session.use(RTN)
    again = quantize(session)
    assert [r.recipe for r in session.results_of(QUERY)] == [FINER, RTN]
    assert session.results_of(DOWN) == []
    assert session.latest() == {QUERY: again}


def test_a_cancelled_job_leaves_no_result(session: Session) -> None:
    job = Job(session.quantize_model_steps)
    job.on_change(lambda job: job.cancel())
    job.run_here()
    assert (session.quantized_model, session.results) == (None, {})


def test_who_leaves_while_the_text_is_read_leaves_at_once_and_the_others_still_get_it(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = Event(), Event()

    def slowly(*given: Any, **named: Any) -> CalibrationStats:
        begun.set()
        assert go_on.wait(60)
        return wb.calibrate(*given, **named)

    monkeypatch.setattr("workbench.session.shared.calibrate", slowly)
    shared = SharedModel(wb.open_model(tiny_models["llama"]))
    leaves, stays = (Job(Session(shared, recipe=RTN).quantize_steps).start() for _ in range(2))
    assert begun.wait(60)
    leaves.cancel()
    assert leaves.wait(20), "the job waits for a text that nobody wants any more"
    go_on.set()
    assert stays.result(60).bits_per_weight > 0
    assert shared.is_calibrated


def test_the_layer_table_shows_figures_only_where_there_is_a_result(session: Session) -> None:
    result = quantize(session)
    table = session.layer_table().set_index("name")
    assert list(table.index) == session.model.layer_names
    for column in ("std", "absmax", "kurtosis", "outlier_share"):
        assert table[column].notna().all()
    weight = session.original()
    assert table.loc[QUERY, "std"] == pytest.approx(weight.std(correction=0).item(), rel=1e-5)
    assert table.loc[QUERY, "absmax"] == weight.abs().max().item()
    measured = table[["bits_per_weight", "nominal_bits", "relative_error", "output_error"]]
    assert measured.loc[QUERY].tolist() == [
        result.bits_per_weight,
        result.nominal_bits,
        result.relative_error,
        result.output_error,
    ]
    assert measured.drop(QUERY).isna().all(axis=None)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        pytest.param(wb.recipe("rtn", group=7), "7 does not divide 64", id="group"),
    ],
)
def test_a_recipe_that_does_not_fit_is_explained_before_anything_runs(session: Session, recipe: wb.Recipe, said: str) -> None:
    session.check(RTN)
    with pytest.raises(WorkbenchError, match=said):
        session.check(recipe)


def test_the_packed_model_needs_a_result(session: Session) -> None:
    with pytest.raises(WorkbenchError, match="nothing is quantized yet"):
        session.packed_model()


def test_both_models_write_from_the_same_prompt(session: Session) -> None:
    session.ask("The small dog")
    quantize(session)
    *_, writing = session.write(tokens=6)
    for model, side in zip((session.model.language_model(), session.packed_model()), writing.sides, strict=True):
        assert "".join(token.text for token in side) == "".join(model.stream("The small dog", 6))
        assert side


def test_a_model_from_elsewhere_becomes_the_latest_result(session: Session) -> None:
    own = quantize(session)
    whole = wb.quantize_model(session.model, session.recipe, text=wb.text("calibration"), tokens=64)
    session.take(whole)
    assert session.quantized_model is whole
    assert session.result is whole.layers[QUERY]
    assert own in session.results_of(QUERY), "what was made here is still there"
    session.use(wb.recipe("rtn", bits=3, group=32))
    assert session.result is None


def test_its_code_makes_the_same_result(session: Session) -> None:
    session.select(DOWN)
    session.use(wb.recipe("gptq", bits=2, group=32))
    made = quantize(session)
    names: dict[str, object] = {}
    exec(session.code(), names)
    again = names["result"]
    assert isinstance(again, QuantizedLayer)
    assert (again.name, again.recipe) == (DOWN, made.recipe)
    torch.testing.assert_close(again.weight(), made.weight(), rtol=0, atol=0)


def test_a_state_survives_json_and_can_be_undone(session: Session, shared: SharedModel) -> None:
    session.select(DOWN)
    session.use(wb.recipe("pb-llm", share=0.2))
    session.ask("Lily said “hello”.")
    other = Session(shared, recipe=RTN)
    other.restore(json.loads(json.dumps(session.state())))
    assert other.choice == session.choice
    assert other.state() == session.state()
    other.undo()
    assert (other.layer, other.recipe) == (QUERY, RTN)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        pytest.param({"version": 99}, WorkbenchError, "session version 99 .* version 1", id="version"),
        pytest.param({"layer": "no_such_layer"}, ModelError, "no_such_layer", id="layer"),
        pytest.param({"recipe": {"version": 99}}, WorkbenchError, "recipe version 99", id="recipe"),
    ],
)
def test_a_state_that_cannot_be_read_changes_nothing(
    session: Session, change: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        session.restore({**session.state(), **change})
    assert not session.can_undo


@pytest.mark.parametrize("missing", ["layer", "recipe", "prompt"])
def test_a_state_with_something_missing_says_what(session: Session, missing: str) -> None:
    state = {key: value for key, value in session.state().items() if key != missing}
    with pytest.raises(WorkbenchError, match=missing):
        session.restore(state)


def test_a_layer_alone_and_the_same_layer_in_sequence_are_two_results(session: Session) -> None:
    session.use(wb.recipe("gptq", bits=2, group=32))
    alone = Job(session.quantize_steps).run_here().result()
    whole = Job(session.quantize_model_steps).run_here().result()
    assert session.result is whole.layers[session.layer]
    assert alone in session.results_of(session.layer)
    again = Job(session.quantize_steps).run_here().result()
    assert session.result is again
    assert session.latest()[session.layer] is again


def test_marks_are_part_of_the_choice_and_undone(session: Session) -> None:
    session.mark(channels=[3, 17, 3])
    session.mark(rows=[1])
    assert session.selection == Selection(channels=(3, 17), rows=(1,))
    session.mark(channels=[])
    assert session.selection == Selection(rows=(1,))
    session.undo()
    assert session.selection == Selection(), "marks in a row are one step"


def test_marks_stay_with_what_they_stand_for(session: Session) -> None:
    session.mark(layers=[DOWN], channels=[1], rows=[2], codes=[3], tokens=[4])
    session.select(QUERY)
    assert session.selection.channels == (1,), "the same layer"
    assert session.carried == ""
    session.select(DOWN)
    assert session.selection == Selection(layers=(DOWN,), rows=(1,), tokens=(4,)), "channel 1 is written by row 1"
    assert "Channels 1 of block 0 · q_proj are channels of the residual stream and stay marked, here as rows." in session.carried
    assert "Rows 2 of block 0 · q_proj have another meaning in block 0 · down_proj" in session.carried
    session.mark(rows=[])
    assert session.carried == "", "said once"


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        pytest.param({"channel": [1]}, "unknown mark 'channel'; use layers, channels", id="kind"),
        pytest.param({"channels": [64]}, "channels holds 64; .*q_proj has 64 channels, 0 to 63", id="beyond"),
        pytest.param({"rows": [-1]}, "rows holds -1; it takes whole numbers from 0", id="negative"),
        pytest.param({"codes": ["a"]}, "codes holds 'a'", id="type"),
        pytest.param({"layers": ["no_such_layer"]}, "no_such_layer", id="layer"),
    ],
)
def test_what_cannot_be_marked_is_explained_and_changes_nothing(session: Session, marks: dict[str, list], said: str) -> None:
    with pytest.raises(WorkbenchError, match=said):
        session.mark(**marks)
    assert not session.can_undo


def test_a_saved_selection_that_this_layer_lacks_is_refused(session: Session) -> None:
    with pytest.raises(WorkbenchError, match="channels holds 64"):
        session.restore({**session.state(), "selection": {"channels": [64]}})
