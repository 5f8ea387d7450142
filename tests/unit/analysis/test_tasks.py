"""Accuracy on tasks of lm-evaluation-harness, against a plain loop, and the flips between two models."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from workbench import intervals
from workbench.analysis.predictions import task_accuracy
from workbench.analysis.predictions.task_accuracy import TaskResult, TaskScore, measure_tasks
from workbench.analysis.predictions.task_flips import count_flips, tabulate_flips
from workbench.errors import ModelError
from workbench.models import ModelHandle

TASKS = Path(__file__).parents[3] / "docs" / "tasks"
needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None or find_spec("accelerate") is None,
    reason="lm-evaluation-harness is not installed; it comes with the extra 'eval'",
)
quiet_libraries = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:.*:UserWarning")


def result(right: list[int], task: str = "colours", metric: str = "acc") -> TaskResult:
    scores = np.array(right, dtype=float)
    questions = tuple(str(number) for number in range(len(right)))
    return TaskResult("a model", (TaskScore(task, metric, "none", float(scores.mean()), None, questions, scores),), "0")


def test_flips_are_counted_both_ways() -> None:
    (found,) = count_flips(result([1, 1, 1, 0, 0, 1]), result([1, 0, 0, 1, 0, 1]))
    assert (found.worsened, found.improved, found.kept_right, found.kept_wrong, found.questions) == (2, 1, 2, 1, 6)
    assert found.difference == pytest.approx(-1 / 6)
    assert found.flips == 0.5
    assert found.flips_interval == intervals.compute_binomial_interval(3, 6)
    low, high = found.difference_interval
    assert low < -1 / 6 < high
    row = tabulate_flips([found]).iloc[0]
    assert (row["worsened"], row["improved"], row["difference_low"]) == (2, 1, low)


def test_equal_accuracies_hide_flips() -> None:
    (found,) = count_flips(result([1, 1, 0, 0]), result([0, 0, 1, 1]))
    assert (found.difference, found.flips) == (0.0, 1.0)


def test_no_flip_is_no_proof_of_none() -> None:
    """Of 20 questions without a flip the difference may still be some percent either way."""
    (found,) = count_flips(result([1] * 20), result([1] * 20))
    low, high = found.difference_interval
    assert found.difference == 0.0
    assert low == pytest.approx(-high)
    assert 0.05 < high < 0.2


def test_metrics_that_are_not_right_or_wrong_have_no_flips() -> None:
    score = TaskScore("colours", "f1", "none", 0.4, None, ("0", "1"), np.array([0.3, 0.5]))
    graded = TaskResult("a model", (score,), "0")
    assert count_flips(graded, graded) == []


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (result([1, 1, 0]), "2 and 3 questions of task 'colours' are not the same ones"),
        (result([1, 0], task="shapes"), "acc of task 'colours' is scored for one of the models only"),
    ],
    ids=["questions", "tasks"],
)
def test_other_questions_have_no_flips(other: TaskResult, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        count_flips(result([1, 0]), other)


@pytest.mark.parametrize(("worsened", "improved"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.04), (0.3, 0.1)])
def test_the_paired_interval_covers_as_often_as_it_says(worsened: float, improved: float) -> None:
    draw, held = np.random.default_rng(5), 0
    for down, up, _ in draw.multinomial(60, [worsened, improved, 1 - worsened - improved], size=1000):
        low, high = intervals.compute_paired_share_interval(int(down), int(up), 60)
        held += low <= improved - worsened <= high
    assert held >= 930


def test_a_missing_library_is_one_sentence(builtin: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_accuracy, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"not installed \(no lm_eval and no accelerate\); run: pip install"):
        measure_tasks(builtin, ["arc_easy"])


@pytest.mark.parametrize(
    ("tasks", "options", "sentence"),
    [
        ([], {}, "no task is named"),
        (["arc_easy"], {"include_path": "nowhere"}, "there is no folder 'nowhere'"),
        (["arc_easy"], {"limit": 0}, "0 questions of each task; use 1 or more"),
    ],
    ids=["no-task", "no-folder", "no-questions"],
)
def test_what_cannot_be_asked(builtin: ModelHandle, tasks: list[str], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        measure_tasks(builtin, tasks, **options)


def choose_names(lm: wb.measures.Text, questions: list[dict[str, object]]) -> list[bool]:
    """Which questions the model answers, by the log-probability of each name after the story, in plain torch."""
    right = []
    for question in questions:
        begin, scores = lm.encode(question["story"]).shape[1], []
        for name in question["names"]:
            ids = lm.encode(f"{question['story']} {name}")
            log_p = lm.logits(ids)[0].log_softmax(-1)
            scores.append(float(log_p[begin - 1 : -1].gather(1, ids[0, begin:, None]).sum()))
        right.append(int(np.argmax(scores)) == question["gold"])
    return right


@needs_harness
@quiet_libraries
def test_accuracy_is_that_of_a_plain_loop(builtin: ModelHandle) -> None:
    """The original, and packed layers in place."""
    questions = [json.loads(line) for line in (TASKS / "story_names.jsonl").read_text().splitlines()][:6]
    small = wb.pack_model(wb.quantize_model(builtin, wb.recipe("rtn", bits=2)))
    shares: list[float] = []
    found = {}
    for name, model in {"original": builtin, "packed": small}.items():
        lm = model if name == "packed" else model.language_model()
        found[name] = measure_tasks(
            model, ["story_names"], include_path=TASKS, limit=6, on_progress=lambda done, total: shares.append(done / total)
        )
        (score,) = found[name].scores
        assert (score.metric, score.value) == ("acc", pytest.approx(np.mean(score.scores)))
        assert score.scores.astype(bool).tolist() == choose_names(lm, questions)
    (flips,) = count_flips(found["original"], found["packed"])
    assert flips.questions == 6
    assert (shares[0], shares[-1]) == (0.0, 1.0)


@needs_harness
@quiet_libraries
def test_a_task_file_that_is_none_is_one_sentence(builtin: ModelHandle, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("task: broken\ndataset_path: json\ndataset_kwargs: {data_files: nowhere.jsonl}\n")
    with pytest.raises(ModelError, match="the data of task 'broken' is not on this machine"):
        measure_tasks(builtin, ["broken"], include_path=tmp_path)
    (tmp_path / "broken.yaml").write_text(
        f"task: broken\ncustom_dataset: !function {TASKS}/story_names.read_questions\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: '{{nothing}}'\ndoc_to_choice: '{{nothing}}'\ndoc_to_target: gold\n"
    )
    with pytest.raises(ModelError, match="task 'broken' cannot be r"):
        measure_tasks(builtin, ["broken"], include_path=tmp_path)


def test_the_questions_of_the_example_hold() -> None:
    for line in (TASKS / "story_names.jsonl").read_text().splitlines():
        question = json.loads(line)
        assert len(set(question["names"])) == 4
        right = question["names"].pop(question["gold"])
        assert right in question["story"]
        assert not any(name in question["story"].split() for name in question["names"])
