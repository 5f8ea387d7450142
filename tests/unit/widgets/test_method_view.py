"""The Method tab shows what the recipe has, says in a sentence what it has not, and follows a run while it goes on."""

import re
from dataclasses import replace

import pytest
import torch

import workbench as wb
from workbench.jobs import Job
from workbench.kernels.formats.rotation import ANGLES
from workbench.presets.preset import make_part
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.learning.basis import BasisState
from workbench.quantizers.learning.descent import LearningStep
from workbench.quantizers.runs.progress import LayerProgress
from workbench.recipe import Recipe
from workbench.session import Session
from workbench.widgets.base.component import FigureFrame
from workbench.widgets.method.method_view import GroupView, MethodView, SignView, SweepView, TransformView
from workbench.widgets.shell.layer_bench import find_learning_step

QUERY = "model.layers.0.self_attn.q_proj"


def made(session: Session, recipe: str | Recipe, **settings: object) -> Session:
    """The session with this recipe's result of the selected layer."""
    session.use(wb.recipe(recipe, **settings) if isinstance(recipe, str) else recipe)
    for _ in session.quantize_steps():
        pass
    return session


def questions(*frames: FigureFrame) -> list[bool]:
    """Which frames show a figure."""
    return [frame.figure is not None for frame in frames]


def test_a_codebook_and_a_transform(session: Session) -> None:
    view = SignView(made(session, "btc", transform="hadamard"))
    assert questions(view.patterns, view.flips) == [True, True]
    assert [trace["name"] for trace in view.patterns.figure.plot["data"]] == ["original", "transformed", "uniform distribution"]
    assert view.flips.figure.table["flip_rate"].between(0.02, 0.4).all()
    assert "when error feedback changed the weights" in view.flips.figure.answer


@pytest.mark.parametrize(("recipe", "sentence"), [("rtn", "has no binary codebook"), (None, "not quantized yet")])
def test_no_codebook_is_a_sentence_beside_the_patterns(session: Session, recipe: str | None, sentence: str) -> None:
    view = SignView(session if recipe is None else made(session, recipe, group=32))
    assert questions(view.patterns, view.flips) == [True, False]
    assert sentence in view.flips.answer.object


def test_learning_is_shown_while_it_runs_and_its_transform_at_the_end(session: Session) -> None:
    session.use(wb.recipe("btc").replace(transform=make_part("transform", "learned", steps=20)))
    view, run = TransformView(session), session.quantize_steps()
    assert "not quantized yet" in view.loss.answer.object
    for _ in range(12):
        next(run)
    view.live.announce("steps")
    assert questions(view.loss, view.diagonal, view.rotation) == [True, False, False]
    assert len(view.loss.figure.table) == 12
    for _ in run:
        pass
    view.live.announce("results")
    assert questions(view.loss, view.diagonal, view.rotation) == [True, True, False]
    assert "No rotation is stored" in view.rotation.answer.object  # on a matrix as small as this one none is worth its bits


def test_a_stored_rotation_is_a_picture(session: Session) -> None:
    learned = make_part("transform", "learned")
    result = made(session, "btc", transform="signs").result
    cols = result.packed.cols
    sizes = learned.factors.sizes(cols)
    angles = {side: torch.full((size * (size - 1) // 2,), 0.1).half() for side, size in zip(ANGLES, sizes, strict=True)}
    rotated = learned.pack(result.packed.children[0], BasisState(signs=torch.ones(cols), **angles))
    session.adopt(replace(result, packed=rotated))
    view = TransformView(session)
    assert questions(view.diagonal, view.rotation) == [True, True]
    assert "A rotation of 64 inputs as 8 × 8 ⊗ 8 × 8" in view.rotation.answer.object


def test_without_a_learned_transform_there_is_a_sentence(session: Session) -> None:
    view = TransformView(made(session, "btc", transform="hadamard"))
    assert questions(view.loss, view.diagonal, view.rotation) == [False, False, False]
    assert "does not learn a transform" in view.loss.answer.object
    signs = wb.recipe("btc").replace(transform=make_part("transform", "learned", rotation="none", steps=2))
    view = TransformView(made(session, signs))
    assert questions(view.loss, view.diagonal, view.rotation) == [True, True, False]
    assert "only the fixed Hadamard transform rotates" in view.rotation.answer.object


def test_groups_and_their_window(session: Session) -> None:
    view = GroupView(made(session, "billm"))
    assert "magnitude 1 of 2" in view.frame.figure.answer
    view.row.value, view.col.value = 40, 8
    (picture,) = view.frame.figure.plot["data"]
    assert (picture["z"].shape, picture["y0"]) == ((64 - 40, 64 - 8), 40)
    made(session, "rtn", group=32)
    view.live.announce("results")
    assert "codes all weights in the same way" in view.frame.answer.object
    assert not view.row.visible


def test_sweeps_of_each_set_of_scales(session: Session) -> None:
    view = SweepView(made(session, "billm"))
    assert questions(view.errors, view.paths) == [False, False]
    assert "has no sweeps" in view.errors.answer.object
    made(session, "arb-llm", block=32)
    view.live.announce("results")
    assert questions(view.errors, view.paths) == [True, True]
    assert len(view.fit.options) == len(session.trace.settled) > 4
    view.fit.value = 3
    assert list(view.fit.options)[3] in view.paths.figure.answer


def test_only_the_chosen_section_is_built_and_drawn(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    view, drawn = MethodView(session), []
    assert list(view.built) == ["Signs"]
    for name in ("Signs", "Groups"):
        section = view[name]
        monkeypatch.setattr(section, "refresh", lambda name=name: drawn.append(name))
    view.live.announce("results")
    view.section.value = "Groups"
    assert list(view.shown) == [view["Groups"].view]
    view.look(False)
    view.live.announce("results")
    assert drawn == ["Signs", "Groups"]
    view.look(True)
    assert drawn == ["Signs", "Groups", "Groups"]


def test_a_block_that_learns_together_tells_every_layer_of_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.session.session.CALIBRATION_TOKENS", 256)
    learned = make_part("transform", "learned", rotation="none", steps=3, tokens=32)
    session.use(wb.recipe("btc", bits=1.0, sweeps=2, block=128).replace(transform=learned))
    for _ in session.quantize_model_steps():
        pass
    first = session.trace.learning
    session.select("model.layers.0.mlp.down_proj")
    assert session.trace.learning == first != []
    session.select("model.layers.1.mlp.down_proj")
    assert session.trace.learning != first
    assert {sweeps.coder for sweeps in session.trace.sweeps} == {0}


def test_a_run_that_does_not_end_leaves_the_trace_before_it(session: Session) -> None:
    before = made(session, "btc").trace
    run = session.quantize_steps()
    next(run)
    assert session.trace is not before
    run.close()
    assert session.trace is before


STEP = LearningStep(3, 10, 0.5)
LEARNING = Snapshot("learn", 0, 8, {"step": STEP})


@pytest.mark.parametrize(
    ("latest", "expected"),
    [
        pytest.param(None, None, id="nothing-yet"),
        pytest.param(LEARNING, STEP, id="learning"),
        pytest.param(Snapshot("block", 8, 8, {}), None, id="coding"),
        pytest.param(LayerProgress("a", 0, 1, "learn", LEARNING), STEP, id="learning-in-a-model"),
        pytest.param(LayerProgress("a", 0, 1, "share"), None, id="sharing"),
    ],
)
def test_a_job_says_where_its_learning_stands(latest: object, expected: LearningStep | None) -> None:
    assert find_learning_step(latest) is expected


def test_the_bench_says_the_loss_while_the_whole_model_is_trained(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.session.session.CALIBRATION_TOKENS", 256)
    part, said = make_part("refinement", "model", steps=0, model_steps=2, written=0), list[str | None]()
    bench = wb.LayerBench(session, threaded=False)
    session.use(wb.recipe("gptq", bits=2, group=32).replace(refinement=part))
    job = Job(session.quantize_model_steps, "quantizing the whole model")
    job.on_change(lambda job: said.append(bench._on_step(job)))
    job.run_here()
    words = [sentence for sentence in said if sentence is not None]
    assert any(sentence.startswith("Reading the original's predictions: ") for sentence in words)
    assert any(
        re.match(r"Training the whole model: step 1 of 2, divergence \d\S+ nats per token", sentence) for sentence in words
    )
