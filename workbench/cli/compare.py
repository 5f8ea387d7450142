"""The command that compares quantized models with the original."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import Json, Model, TextFile, Tokens, open_any, read_text
from workbench.cli.compare_figures import (
    collect_fork_rate_facts,
    collect_position_facts,
    collect_report_facts,
    format_fork_rate,
    format_positions,
    format_report,
    format_share,
)
from workbench.cli.long_jobs import Reading, announce_reading
from workbench.cli.model_facts import collect_running_facts, collect_stored_facts, format_bits
from workbench.cli.output import emit_page, format_kl, format_with_interval, show_progress
from workbench.views.token_text import quote_token

if TYPE_CHECKING:
    from workbench.analysis.predictions.generation import Writing
    from workbench.analysis.predictions.kl_base import KLBase
    from workbench.artifact import PackedModel
    from workbench.models import ModelHandle
    from workbench.models.text import Text

PROMPT = "Once upon a time"
TEXT_TOKENS = 100


def compare(
    model: Model,
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Folders written by `workbench quantize`.")],
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="Prompt that all models continue.")] = PROMPT,
    text: TextFile = "evaluation",
    tokens: Tokens = None,
    texts: Annotated[int, typer.Option("--texts", metavar="N", min=1, help="Greedy texts compared for the fork rate.")] = 20,
    kl_base: Annotated[
        str | None, typer.Option("--kl-base", metavar="FILE", help="Compare with this base file of llama-perplexity too.")
    ] = None,
    write_base: Annotated[
        str | None, typer.Option("--write-kl-base", metavar="FILE", help="Write MODEL's predictions as such a base file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare quantized models with the original.

    Reports KL in nats per token and its percentiles, changes of the true token's probability, top-1 agreement, perplexity, also
    by position in the context, how often and how soon greedy texts part, bytes, speed and generated texts.
    """
    from workbench.analysis.predictions.compare import compare as measure
    from workbench.analysis.predictions.fork_rate import measure_forks, write_greedy_texts
    from workbench.analysis.predictions.fork_study import extract_prompts
    from workbench.analysis.predictions.generation import write_together
    from workbench.analysis.predictions.generation_speed import measure_speeds
    from workbench.analysis.predictions.kl_base import read_kl_base
    from workbench.models import ModelHandle
    from workbench.outputs import check_file

    base = None if kl_base is None else read_kl_base(kl_base)  # before a large model is opened
    if write_base is not None:
        check_file(write_base)
    original, document = open_any(model), read_text(text)
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"model": model, "text": document.name, "prompt": prompt, "models": rows}
    if isinstance(original, ModelHandle):
        announce_reading(original, Reading(document, tokens, 2 * len(folders) + (write_base is not None)))
    if write_base is not None:
        facts["kl_base_written"] = _write_base(original, document, write_base, tokens, as_json=as_json)
    prompts = extract_prompts(document, texts)
    with show_progress(f"writing texts with {model}", quiet=as_json) as report:
        originals = write_greedy_texts(original.language_model(), prompts, on_progress=report)
    for folder in folders:
        begin = time.perf_counter()
        other = open_any(folder)
        with show_progress(f"comparing {folder}", quiet=as_json) as report:
            result = measure(original, other, document, tokens=tokens, on_progress=report)
        with show_progress("comparing texts", quiet=as_json) as report:
            forks = measure_forks(original, other, prompts, texts=originals, on_progress=report)
        *_, pair = write_together(original.language_model(), other.language_model(), prompt, TEXT_TOKENS)
        before, after = measure_speeds([original.language_model(), other.language_model()], prompt)
        facts["original"] = {
            "perplexity": result.perplexity_original,
            "perplexity_interval": result.perplexity_original_interval,
            "generated": "".join(token.text for token in pair.original),
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
                **collect_report_facts(result),
                "perplexity": result.perplexity,
                "perplexity_interval": result.perplexity_interval,
                "ratio": result.ratio.ratio,
                "ratio_interval": result.ratio.interval,
                "positions": collect_position_facts(result),
                **_collect_fork_facts(pair),
                "fork_rate": collect_fork_rate_facts(forks),
                **_compare_with_base(base, other, as_json=as_json),
                **collect_stored_facts(other),
                **collect_running_facts(other, after),
                "seconds": time.perf_counter() - begin,
            }
        )
    emit_page(facts, as_json=as_json, text=_format_comparison(facts))


def _write_base(
    original: "ModelHandle | PackedModel", document: "Text", path: str, tokens: int | None, *, as_json: bool
) -> dict[str, Any]:
    """Write the original's predictions; where they are and of what."""
    from workbench.analysis.predictions.kl_base import write_kl_base
    from workbench.models.text_windows import LLAMA_CPP_WINDOW

    window = min(LLAMA_CPP_WINDOW, original.language_model().context)
    with show_progress(f"writing {path}", quiet=as_json) as report:
        base = write_kl_base(original, document, path, window=window, tokens=tokens, on_progress=report)
    return {"path": str(base.path), "windows": len(base.ids), "window": base.window, "bytes": base.path.stat().st_size}


def _compare_with_base(base: "KLBase | None", other: "ModelHandle | PackedModel", *, as_json: bool) -> dict[str, Any]:
    """The report against a base file, where one is given."""
    if base is None:
        return {}
    from workbench.analysis.predictions.kl_base import compare_with_base

    with show_progress(f"comparing with {base.path.name}", quiet=as_json) as report:
        result = compare_with_base(base, other, on_progress=report)
    perplexities = {"perplexity": result.perplexity, "perplexity_base": result.perplexity_original, "ratio": result.ratio.ratio}
    figures = {"kl": result.kl, "kl_interval": result.kl_interval, **collect_report_facts(result)}
    facts = {"path": str(base.path), "tokens": result.tokens, **perplexities, "ratio_interval": result.ratio.interval}
    return {"kl_base": facts | figures}


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
        f"on {facts['tokens']:,} tokens of the text {facts['text']}",
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
            sides = [quote_token(fork[side]) or "the end" for side in ("original", "other")]
            parted = f"token {fork['token'] + 1}: {sides[0]} became {sides[1]}"
        bits = f", {format_bits(row)}" if "nominal_bits" in row else ""
        lines += [
            "",
            row["model"],
            f"  KL               {format_kl(row['kl'], row['kl_interval'], tokens)}",
            *format_report(row),
            f"  top-1 agreement  {format_share(row['top1_agreement'], row['top1_agreement_interval'])}",
            f"  perplexity       {format_with_interval(row['perplexity'], row['perplexity_interval'], tokens)}",
            f"                   {PerplexityRatio(row['ratio'], row['ratio_interval'], tokens).against('the original')}",
            *format_positions(row["positions"]),
            f"  bytes            {row['bytes']:,}{bits}",
            *_format_running(row),
            f"  writes           {_set_lines(facts['prompt'] + row['generated'])}",
            f"  first fork       {parted}",
            *format_fork_rate(row["fork_rate"]),
            *_format_base(row),
        ]
    if "kl_base_written" in facts:
        lines += ["", _format_base_file(facts["kl_base_written"])]
    return "\n".join(lines)


def _format_base_file(written: dict[str, Any]) -> str:
    """What was written for llama-perplexity, and where."""
    count = f"{written['windows']:,} window{'' if written['windows'] == 1 else 's'}"
    return f"{written['path']}: {count} of {written['window']:,} tokens, {written['bytes']:,} bytes"


def _format_base(row: dict[str, Any]) -> list[str]:
    """The report against a base file."""
    from workbench.models.perplexity import PerplexityRatio

    if "kl_base" not in row:
        return []
    base = row["kl_base"]
    return [
        f"  against {base['path']}, {base['tokens']:,} tokens",
        f"  perplexity       {base['perplexity']:.3f}, in the file {base['perplexity_base']:.3f}",
        f"                   {PerplexityRatio(base['ratio'], base['ratio_interval'], base['tokens']).against('the file')}",
        f"  KL               {format_kl(base['kl'], base['kl_interval'], base['tokens'])}",
        *format_report(base),
        f"  top-1 agreement  {format_share(base['same_top'], base['same_top_interval'])}",
    ]
