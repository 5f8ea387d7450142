"""The command that evaluates a model: perplexity on a text, or accuracy on tasks."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import Json, Source, Tokens, open_any, read_text
from workbench.cli.long_jobs import Reading, announce_reading
from workbench.cli.model_facts import collect_stored_facts, format_bits
from workbench.cli.output import emit_page, format_with_interval, show_progress
from workbench.cli.tables import Column, format_rows
from workbench.models.text import EVALUATION_TEXTS

if TYPE_CHECKING:
    from workbench.analysis.predictions.task_accuracy import TaskResult
    from workbench.analysis.predictions.task_flips import TaskFlips
    from workbench.artifact import PackedModel
    from workbench.intervals import Interval
    from workbench.models import ModelHandle
    from workbench.models.perplexity import PerplexityResult
    from workbench.models.text import Text
    from workbench.models.text_windows import WindowRule

Tasks = Annotated[str, typer.Option("--tasks", metavar="NAME,...", help="Tasks of lm-evaluation-harness instead of a text.")]
TaskFolder = Annotated[
    str | None,
    typer.Option("--include-path", metavar="DIR", help="Folder with your own task files; functions that they name are run."),
]
Against = Annotated[
    str | None, typer.Option("--against", metavar="MODEL", help="Original whose answers are compared question by question.")
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Maximum number of questions of each task.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch data of tasks that is not on this machine.")]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="UTF-8 text file, <|endoftext|> separates documents; or evaluation (stories), written (by the built-in model), "
        "prose, or all: these three. Repeatable.  [default: evaluation]",
    ),
]
WindowSize = Annotated[
    int | None, typer.Option("--window", metavar="N", min=4, help="Join all documents and read windows of N tokens.")
]
Stride = Annotated[
    int | None, typer.Option("--stride", metavar="N", min=1, help="Tokens from one window to the next; as many as a window has.")
]
Style = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Windows as other programs cut them: strided, gptq (2,048) or llama.cpp (512)."),
]


def evaluate(
    source: Source,
    text: Texts = None,
    tokens: Tokens = None,
    window: WindowSize = None,
    stride: Stride = None,
    style: Style = None,
    tasks: Tasks = "",
    include_path: TaskFolder = None,
    against: Against = None,
    limit: Limit = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Measure perplexity and bits per byte on one or more texts, or accuracy on tasks.

    The 95 % intervals are computed over documents, or over questions. A method can be best on the kind of text it was calibrated
    on and on no other: --text all shows the built-in texts of three origins beside each other.
    """
    if tasks:
        return _evaluate_tasks(source, tasks, include_path, against, limit, download=download, as_json=as_json)
    if include_path or against or limit or download:
        raise typer.BadParameter("--include-path, --against, --limit and --download belong to --tasks; name a task.")
    choices = text or ["evaluation"]
    names = [name for choice in choices for name in (EVALUATION_TEXTS if choice == "all" else (choice,))]
    model, documents = open_any(source), [read_text(name) for name in names]
    rule = None
    if window or stride or style:
        from workbench.models.text_windows import make_window_rule

        rule = make_window_rule(model.language_model(), style or "strided", window, stride)
    return _evaluate_texts(source, model, documents, tokens, rule, as_json=as_json)


def _evaluate_texts(
    source: str,
    model: "ModelHandle | PackedModel",
    documents: "Sequence[Text]",
    tokens: int | None,
    rule: "WindowRule | None",
    *,
    as_json: bool,
) -> None:
    """Perplexity document by document, or in windows by a rule; several texts in one table."""
    from workbench.models import ModelHandle

    begin = time.perf_counter()
    if isinstance(model, ModelHandle):
        factor = 1 if rule is None else rule.window / rule.stride
        announce_reading(model, *(Reading(document, tokens, factor) for document in documents))
    measured = []
    for document in documents:
        label = "reading the text" if len(documents) == 1 else f"reading {document.name}"
        with show_progress(label, quiet=as_json) as report:
            measured.append(_measure(model, document, tokens, rule, report))
    texts = [_collect_text_facts(result) for result in measured]
    facts: dict[str, Any] = {"model": source, "windows": None if rule is None else vars(rule)}
    facts |= texts[0] if len(texts) == 1 else {"texts": texts}
    facts |= {"seconds": time.perf_counter() - begin, **collect_stored_facts(model)}
    sentence = _format_text(measured[0]) if len(measured) == 1 else _format_texts(measured)
    if rule is not None:
        sentence += f"\nall documents joined, read in windows of {rule.window:,} tokens, {_describe_stride(rule)} ({rule.style})"
    if "nominal_bits" in facts:
        sentence += f"\n{format_bits(facts)}"
    emit_page(facts, as_json=as_json, text=sentence)


def _measure(
    model: "ModelHandle | PackedModel",
    document: "Text",
    tokens: int | None,
    rule: "WindowRule | None",
    report: Callable[[float, float], None],
) -> "PerplexityResult":
    """Perplexity on one text."""
    from workbench.models.text_windows import measure_in_windows

    if rule is None:
        return model.perplexity(document, tokens=tokens, on_progress=report)
    return measure_in_windows(model, document, **vars(rule), tokens=tokens, on_progress=report)


def _collect_text_facts(result: "PerplexityResult") -> dict[str, Any]:
    """What was measured on one text, as JSON."""
    return {
        "text": result.text,
        "perplexity": result.perplexity,
        "perplexity_interval": result.perplexity_interval,
        "bits_per_byte": result.bits_per_byte,
        "bits_per_byte_interval": result.bits_per_byte_interval,
        "tokens": result.tokens,
        "text_bytes": result.bytes,
    }


def _format_text(result: "PerplexityResult") -> str:
    """What was measured on one text, in lines."""
    return (
        f"perplexity     {format_with_interval(result.perplexity, result.perplexity_interval, result.tokens)}\n"
        f"bits per byte  {format_with_interval(result.bits_per_byte, result.bits_per_byte_interval, result.tokens)}\n"
        f"on {result.tokens:,} tokens ({result.bytes:,} bytes) of the text {result.text}"
    )


def _format_texts(results: "Sequence[PerplexityResult]") -> str:
    """A row for each text, with 95 % intervals."""
    columns = [
        Column("text"),
        *(Column(title, right=True) for title in ("tokens", "perplexity", "95 %", "bits per byte", "95 %")),
    ]
    rows = []
    for result in results:
        ppl, bits = _format_ends(result.perplexity_interval), _format_ends(result.bits_per_byte_interval)
        figures = (f"{result.tokens:,}", f"{result.perplexity:.3f}", ppl, f"{result.bits_per_byte:.3f}", bits)
        rows.append((result.text, *figures))
    return format_rows(columns, rows)


def _describe_stride(rule: "WindowRule") -> str:
    """How windows follow each other."""
    return "end to end" if rule.stride == rule.window else f"one every {rule.stride:,} tokens"


def _format_ends(interval: "Interval | None") -> str:
    """An interval in a table."""
    return "–" if interval is None else "{:.3f} to {:.3f}".format(*interval)


def _evaluate_tasks(
    source: str, tasks: str, folder: str | None, against: str | None, limit: int | None, *, download: bool, as_json: bool
) -> None:
    """Accuracy on tasks, and flips against another model."""
    from workbench.analysis.predictions.task_accuracy import check_harness, measure_tasks
    from workbench.analysis.predictions.task_flips import count_flips

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    check_harness()  # before a large model is opened
    begin = time.perf_counter()
    models = {name: open_any(name) for name in ([against] if against else []) + [source]}
    results = {}
    for name, model in models.items():
        with show_progress(f"asking {name}", quiet=as_json) as report:
            results[name] = measure_tasks(model, names, include_path=folder, limit=limit, download=download, on_progress=report)
    flips = count_flips(results[against], results[source]) if against else []
    facts: dict[str, Any] = {
        "model": source,
        "harness": results[source].harness,
        "tasks": [_collect_score_facts(score) for score in results[source].scores],
        "seconds": time.perf_counter() - begin,
        **collect_stored_facts(models[source]),
    }
    if against:
        facts["against"] = {"model": against, "tasks": [_collect_score_facts(score) for score in results[against].scores]}
        facts["flips"] = [_collect_flip_facts(entry) for entry in flips]
    emit_page(facts, as_json=as_json, text=_format_tasks(results, flips, facts))


def _collect_score_facts(score: Any) -> dict[str, Any]:
    """A score as JSON; what each question scored is there too, so that others can pair it."""
    return {
        "task": score.task,
        "metric": score.metric,
        "filter": score.filter,
        "value": score.value,
        "interval": score.interval,
        "questions": len(score.questions),
        "scores": None if score.scores is None else score.scores.tolist(),
    }


def _collect_flip_facts(entry: "TaskFlips") -> dict[str, Any]:
    """Flips as JSON."""
    names = (
        "task",
        "metric",
        "questions",
        "worsened",
        "improved",
        "kept_right",
        "kept_wrong",
        "difference",
        "difference_interval",
    )
    return {name: getattr(entry, name) for name in (*names, "flips", "flips_interval")}


def _format_tasks(results: dict[str, "TaskResult"], flips: list["TaskFlips"], facts: dict[str, Any]) -> str:
    """Scores and flips as a page of text."""
    from workbench.intervals import format_interval

    lines = [f"tasks of lm-evaluation-harness {facts['harness']}"]
    for name, result in results.items():
        lines += ["", name]
        lines += [
            f"  {score.task} {score.metric}  {score.value:.4f}  ({_format_score_interval(score)})" for score in result.scores
        ]
    for entry in flips:
        low, high = entry.difference_interval
        lines += [
            "",
            f"{entry.task} {entry.metric}, question by question",
            f"  right → wrong  {entry.worsened}",
            f"  wrong → right  {entry.improved}",
            f"  unchanged      {entry.kept_right} right, {entry.kept_wrong} wrong",
            f"  flips          {entry.flips:.1%}  ({format_interval(entry.flips_interval, form='.1%')})",
            f"  difference     {entry.difference:+.1%}  (95 %, paired: {low:+.1%} to {high:+.1%})",
        ]
    if "nominal_bits" in facts:
        lines += ["", format_bits(facts)]
    return "\n".join(lines)


def _format_score_interval(score: Any) -> str:
    """The interval of a score and how many questions it is of."""
    from workbench.intervals import format_interval

    count = f"{len(score.questions):,} question{'' if len(score.questions) == 1 else 's'}"
    return f"no interval; {count}" if score.interval is None else f"{format_interval(score.interval, form='.4f')}; {count}"
