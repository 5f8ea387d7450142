"""The command that compares quantized models with the original."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import Json, Model, TextFile, Tokens, open_any, read_text
from workbench.cli.long_jobs import Reading, announce_reading
from workbench.cli.model_facts import collect_running_facts, collect_stored_facts, format_bits
from workbench.cli.output import emit_page, format_with_interval, show_progress

if TYPE_CHECKING:
    from workbench.analysis.predictions.generation import Writing

PROMPT = "Once upon a time"
TEXT_TOKENS = 100


def compare(
    model: Model,
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Folders written by `workbench quantize`.")],
    prompt: Annotated[str, typer.Option("--prompt", help="Prompt that all models continue.")] = PROMPT,
    text: TextFile = "evaluation",
    tokens: Tokens = None,
    as_json: Json = False,
) -> None:
    """Compare quantized models with the original.

    Reports KL in nats per token, top-1 agreement, perplexity, bytes, speed and generated texts.
    """
    from workbench.analysis.predictions.compare import compare as measure
    from workbench.analysis.predictions.generation import write_together
    from workbench.analysis.predictions.generation_speed import measure_speeds
    from workbench.models import ModelHandle

    original, document = open_any(model), read_text(text)
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"model": model, "text": document.name, "prompt": prompt, "models": rows}
    if isinstance(original, ModelHandle):
        announce_reading(original, Reading(document, tokens, 2 * len(folders)))
    for folder in folders:
        begin = time.perf_counter()
        other = open_any(folder)
        with show_progress(f"comparing {folder}", quiet=as_json) as report:
            result = measure(original, other, document, tokens=tokens, on_progress=report)
        *_, texts = write_together(original.language_model(), other.language_model(), prompt, TEXT_TOKENS)
        before, after = measure_speeds([original.language_model(), other.language_model()], prompt)
        facts["original"] = {
            "perplexity": result.perplexity_original,
            "perplexity_interval": result.perplexity_original_interval,
            "generated": "".join(token.text for token in texts.original),
            **collect_stored_facts(original),
            **collect_running_facts(original, before),
        }
        facts["tokens"] = result.tokens
        rows.append(
            {
                "model": folder,
                "kl": result.kl,
                "kl_interval": result.kl_interval,
                "kl_median": result.kl_median,
                "top1_agreement": result.top1_agreement,
                "top1_agreement_interval": result.top1_agreement_interval,
                "perplexity": result.perplexity,
                "perplexity_interval": result.perplexity_interval,
                "ratio": result.ratio.ratio,
                "ratio_interval": result.ratio.interval,
                **_collect_fork_facts(texts),
                **collect_stored_facts(other),
                **collect_running_facts(other, after),
                "seconds": time.perf_counter() - begin,
            }
        )
    emit_page(facts, as_json=as_json, text=_format_comparison(facts))


def _collect_fork_facts(texts: "Writing") -> dict[str, Any]:
    """What the other model wrote, and the first token at which the two part: `fork` is None where they agree to the end."""
    generated, at = "".join(token.text for token in texts.quantized), texts.fork
    if at is None:
        return {"generated": generated, "fork": None}
    # empty where one text has ended
    row = {
        name: "".join(token.text for token in side[at : at + 1])
        for name, side in zip(("original", "other"), texts.sides, strict=True)
    }
    return {"generated": generated, "fork": {"token": at, **row}}


def _format_running(row: dict[str, Any]) -> list[str]:
    """Memory and speed as two lines."""
    low, high = row["tokens_per_second_range"]
    return [
        f"  in memory        {row['resident_bytes']:,} bytes",
        f"  tokens/s         {row['tokens_per_second']:.0f}  ({low:.0f} to {high:.0f})",
    ]


def _set_lines(text: str) -> str:
    """A text of several lines whose others begin below its first one."""
    return text.replace("\n", f"\n{' ' * 19}")


def _format_comparison(facts: dict[str, Any]) -> str:
    """The comparison as a page of text."""
    from workbench.models.perplexity import PerplexityRatio

    original, tokens = facts["original"], facts["tokens"]
    lines = [
        f"on {facts['tokens']:,} tokens of {facts['text']}",
        "",
        facts["model"],
        f"  perplexity       {format_with_interval(original['perplexity'], original['perplexity_interval'], tokens)}",
        f"  bytes            {original['bytes']:,}",
        *_format_running(original),
        f"  writes           {_set_lines(facts['prompt'] + original['generated'])}",
    ]
    for row in facts["models"]:
        fork = row["fork"]
        parted = "none, both texts are the same"
        if fork is not None:
            parted = f"token {fork['token'] + 1}: {fork['original']!r} became {fork['other']!r}"
        bits = f", {format_bits(row)}" if "nominal_bits" in row else ""
        lines += [
            "",
            row["model"],
            f"  KL               {format_with_interval(row['kl'], row['kl_interval'], tokens, 5)} nats per token",
            f"  KL, median       {row['kl_median']:.5f} nats per token",
            f"  top-1 agreement  {row['top1_agreement']:.2%}",
            f"  perplexity       {format_with_interval(row['perplexity'], row['perplexity_interval'], tokens)}",
            f"  ratio            {PerplexityRatio(row['ratio'], row['ratio_interval'], tokens).against('the original')}",
            f"  bytes            {row['bytes']:,}{bits}",
            *_format_running(row),
            f"  writes           {_set_lines(facts['prompt'] + row['generated'])}",
            f"  first fork       {parted}",
        ]
    return "\n".join(lines)
