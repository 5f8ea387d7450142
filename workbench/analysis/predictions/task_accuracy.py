"""Accuracy of a model on the tasks of lm-evaluation-harness, question by question."""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from workbench import intervals
from workbench.analysis.predictions.compare import Readable, get_language_model
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import ModelError
from workbench.intervals import Interval
from workbench.models.language_model import LanguageModel

if TYPE_CHECKING:
    import pandas as pd

BATCH_TOKENS = 2048  # read at a time: so many questions at once as have fewer tokens together


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task: `value` as the harness reports it, and what each question scored, in the order of `questions`.

    `scores` is None for metrics that are no mean of one number a question; `interval` is None there, and where there are fewer
    than two questions. `filter` is how the harness took the answer out of a generated text, "none" where it did nothing.
    """

    task: str
    metric: str
    filter: str
    value: float
    interval: Interval | None
    questions: tuple[str, ...]
    scores: np.ndarray | None

    @property
    def is_binary(self) -> bool:
        """Whether each question is either right or wrong."""
        return self.scores is not None and bool(np.isin(self.scores, (0.0, 1.0)).all())


@dataclass(frozen=True)
class TaskResult(ShownInCell):
    """What a model scored on some tasks, one `TaskScore` for each task and metric; `harness` is the harness's version."""

    model: str
    scores: tuple[TaskScore, ...]
    harness: str

    def table(self) -> "pd.DataFrame":
        """One row a metric: task, metric, value, value_low, value_high (95 %), questions."""
        import pandas as pd

        rows = [
            {
                "task": score.task,
                "metric": score.metric,
                "value": score.value,
                **intervals.make_interval_columns("value", score.interval),
                "questions": len(score.questions),
            }
            for score in self.scores
        ]
        return pd.DataFrame(rows, columns=["task", "metric", "value", "value_low", "value_high", "questions"])

    def cell_summary(self) -> CellSummary:
        """The figures with their intervals."""
        rows = [
            (score.task, score.metric, f"{score.value:.4g}", intervals.format_interval(score.interval), str(len(score.questions)))
            for score in self.scores
        ]
        answer = f"{len({score.task for score in self.scores})} tasks of lm-evaluation-harness {self.harness}."
        return CellSummary(
            f"How many questions does {self.model} answer?", answer, ("task", "metric", "value", "95 %", "of"), rows
        )


def measure_tasks(
    model: Readable | LanguageModel,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    download: bool = False,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> TaskResult:
    """Let a model answer the questions of tasks of lm-evaluation-harness, with the harness's own prompts and metrics.

    Args:
        model: From `wb.open_model`, `wb.load` or `wb.pack_model`: packed layers answer as they are stored.
        tasks: Names of tasks or groups.
        include_path: A folder with task files of your own (YAML; what they name with `!function` is run).
        limit: At most so many questions of each task, the first ones; all when absent.
        download: Whether data sets that are not on this machine may be fetched from the Hugging Face hub.
        on_progress: Called with how many tasks are answered, the share of the one at hand included, and all of them.

    Returns:
        One score for each task and metric, with its 95 % interval over questions.

    Raises:
        ModelError: Where lm-evaluation-harness is not installed, a task is unknown or cannot be read, or its data is not here.

    Example:
        >>> import workbench as wb
        >>> try:
        ...     wb.measures.task_accuracy(wb.open_model("builtin"), [])
        ... except wb.errors.ModelError as error:
        ...     print(str(error).partition(";")[0])
        no task is named
    """
    if not tasks:
        raise ModelError("no task is named; give one or more, such as 'arc_easy'.")
    if include_path is not None and not Path(include_path).expanduser().is_dir():
        raise ModelError(f"there is no folder {str(include_path)!r}; give one with task files (YAML).")
    if limit is not None and limit < 1:
        raise ModelError(f"{limit} questions of each task; use 1 or more, or None for all.")
    check_harness()
    lm = get_language_model(model)
    with _keep_quiet(), _set_offline(not download):
        import lm_eval

        manager = _find_tasks(tasks, include_path)
        scores: list[TaskScore] = []
        for number, name in enumerate(tasks):
            loaded = _load_task(manager, name, download=download)
            reader = _build_reader(lm, lambda share, number=number: on_progress(number + share, len(tasks)))  # type: ignore[misc]
            answers = _evaluate_task(lm_eval, reader, [*loaded.values()], manager, limit, name)
            scores += [score for task in loaded for score in _read_scores(task, answers)]
        on_progress(len(tasks), len(tasks))
    return TaskResult(lm.name, tuple(scores), str(lm_eval.__version__))


def check_harness() -> None:
    """ModelError where lm-evaluation-harness, or what it needs to run a model, is missing."""
    missing = [name for name in ("lm_eval", "accelerate") if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"tasks need lm-evaluation-harness, which is not installed (no {' and no '.join(missing)}); run: "
            f"pip install 'quantization-workbench[eval]'."
        )


@contextmanager
def _keep_quiet() -> Iterator[None]:
    """Without the harness's own bars and remarks on standard error: `on_progress` says how far it is, and errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def _set_offline(offline: bool) -> Iterator[None]:
    """Let data sets come from this machine alone: what the environment says is read as these libraries are imported."""
    import datasets
    import huggingface_hub

    places = [(datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, offline or getattr(module, name))
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


def _find_tasks(tasks: Sequence[str], include_path: str | Path | None) -> Any:
    """The harness's list of tasks; it reads all of its own, thousands of files, only where one of these is needed."""
    from lm_eval.tasks import TaskManager

    folder = None if include_path is None else str(Path(include_path).expanduser())
    manager = None
    try:
        if folder is not None:
            manager = TaskManager(include_path=folder, include_defaults=False)
        if manager is None or not set(tasks) <= set(manager.all_tasks):
            manager = TaskManager(include_path=folder)
    except Exception as error:  # the YAML of a user's folder, read by several libraries
        raise ModelError(f"the task files of {folder} cannot be read: {_quote(error)}.") from error
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        near = get_close_matches(unknown[0], manager.all_tasks, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        where = "" if folder is None else f" nor in {folder}"
        raise ModelError(
            f"there is no task {unknown[0]!r} among the {len(manager.all_tasks):,} of lm-evaluation-harness{where}.{meant} "
            f"Run `lm-eval ls tasks` for all names, or give a folder of your own task files."
        )
    return manager


def _load_task(manager: Any, name: str, *, download: bool) -> dict[str, Any]:
    """A task with its data, or the tasks of a group, by name."""
    try:
        return manager.load([name])["tasks"]
    except Exception as error:  # whatever a task file and the libraries that read its data come up with
        if not download and isinstance(error, OSError):
            raise ModelError(
                f"the data of task {name!r} is not on this machine, and nothing is downloaded unless it is asked for: "
                f"{_quote(error)}; run it again with --download (in Python download=True), or give a task with data of its own."
            ) from error
        raise ModelError(f"task {name!r} cannot be read: {_quote(error)}.") from error


def _evaluate_task(library: Any, reader: Any, tasks: list[Any], manager: Any, limit: int | None, name: str) -> dict[str, Any]:
    """What the harness reports, with a sample for each question."""
    try:
        return library.simple_evaluate(
            model=reader, tasks=tasks, task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=True
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:  # templates that name columns that there are not
        raise ModelError(f"task {name!r} cannot be run: {_quote(error)}.") from error


def _build_reader(lm: LanguageModel, report: Callable[[float], None]) -> Any:
    """The harness's own reader of transformers models on this one, which reports the share of requests that are answered."""
    from lm_eval.models.huggingface import HFLM

    class Reader(HFLM):
        """Counts what is requested and what it has answered."""

        requested = answered = 0

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None) -> Any:
            self._begin(len(requests))
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._begin(len(requests))
            return super().generate_until(requests, disable_tqdm=True)

        def _model_call(self, inps: Tensor, *further: Any, **named: Any) -> Any:
            self._count(len(inps))
            return super()._model_call(inps, *further, **named)

        def _model_generate(self, context: Tensor, *further: Any, **named: Any) -> Any:
            self._count(len(context))
            return super()._model_generate(context, *further, **named)

        def _begin(self, count: int) -> None:
            self.requested += count

        def _count(self, count: int) -> None:
            report(min(self.answered / max(self.requested, 1), 1.0))
            self.answered += count

    devices = (weight.device for weight in lm.module.parameters())  # "meta" for those that are read as they are needed
    device = str(next((device for device in devices if device.type != "meta"), "cpu"))
    size = max(1, min(8, BATCH_TOKENS // lm.context))
    return Reader(
        pretrained=lm.module, tokenizer=lm.tokenizer, backend="causal", batch_size=size, max_length=lm.context, device=device
    )


def _read_scores(task: str, answers: dict[str, Any]) -> Iterator[TaskScore]:
    """Each metric of a task."""
    samples: dict[str, list[Any]] = {}
    for sample in answers["samples"].get(task, []):
        samples.setdefault(str(sample["filter"]), []).append(sample)
    for key, value in answers["results"][task].items():
        metric, comma, how = str(key).partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        rows = samples.get(how, [])
        scores = _collect_numbers(row.get(metric) for row in rows)
        questions = tuple(str(row["doc_id"]) for row in rows)
        yield TaskScore(task, metric, how, float(value), _estimate_score_interval(scores), questions, scores)


def _collect_numbers(values: Iterator[Any]) -> np.ndarray | None:
    """What each question scored, float64 `[questions]`; None where it is not one number."""
    items = list(values)
    if not items or not all(isinstance(item, int | float | np.number | np.bool_) for item in items):
        return None
    return np.array(items, dtype=np.float64)


def _estimate_score_interval(scores: np.ndarray | None) -> Interval | None:
    """Exact binomial for right and wrong, else Student's over questions."""
    if scores is None or len(scores) < 2:
        return None
    if np.isin(scores, (0.0, 1.0)).all():
        return intervals.compute_binomial_interval(int(scores.sum()), len(scores))
    return intervals.estimate_mean_interval(np.stack([scores, np.ones(len(scores))], 1))


def _quote(error: Exception) -> str:
    """What an error of another library says, as part of a sentence."""
    text = " ".join(str(error).split()).strip("'\"").rstrip(".")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
