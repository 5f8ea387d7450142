"""The command that stores a model's key-value cache in fewer bits and measures the effect."""

import time
from typing import Annotated, Any

import typer

from workbench.cli.arguments import Json, Source, TextFile, open_any, read_text
from workbench.cli.output import emit_page, format_kl, format_with_interval, show_progress

Schemes = Annotated[
    list[str] | None,
    typer.Option("--scheme", metavar="NAME[:key=value,...]", help="How keys and values are stored. Repeatable."),
]


def kv(
    source: Source,
    scheme: Schemes = None,
    bits: Annotated[
        int | None, typer.Option("--bits", metavar="N", min=1, max=8, help="Bits per code, for schemes that have this setting.")
    ] = None,
    block: Annotated[int, typer.Option("--block", metavar="N", min=1, help="Number of tokens packed together.")] = 64,
    text: TextFile = "evaluation",
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="Maximum number of tokens to evaluate.")] = 2048,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="Prompt that each cache continues.")] = "",
    as_json: Json = False,
) -> None:
    """Measure key-value caches stored in fewer bits.

    Reports perplexity with the packed cache, stored bits per value and bytes per token.

    Schemes: none, per-token, per-channel, kivi, zipcache, vidkv, rotated; all of them by default.
    """
    from workbench.analysis.predictions.kv_cache import make_cached_model, measure_cache
    from workbench.quantizers.kv import list_schemes

    model, document = open_any(source), read_text(text)
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"model": source, "text": document.name, "block": block, "schemes": rows}
    for spelled in scheme or list_schemes():
        how = _parse_scheme(spelled, bits)
        begin = time.perf_counter()
        with show_progress(how.spelled(), quiet=as_json) as report:
            result = measure_cache(model, how, document, tokens=tokens, block=block, on_progress=report)
        divergence = result.divergence
        facts |= {"tokens": divergence.tokens, "perplexity_original": divergence.perplexity_original}
        row = {
            "scheme": how.spelled(),
            "source": how.source,
            "bits_per_value": result.bits_per_value,
            "nominal_bits": how.nominal_bits,
            "bytes_per_token": result.bytes_per_token,
            "packed_share": result.packed_share,
            "perplexity": divergence.perplexity,
            "perplexity_interval": divergence.perplexity_interval,
            "ratio": result.ratio.ratio,
            "ratio_interval": result.ratio.interval,
            "kl": divergence.kl,
            "kl_interval": divergence.kl_interval,
            "top1_changed": divergence.top1_changed,
            "seconds": time.perf_counter() - begin,
        }
        if prompt:
            row["generated"] = make_cached_model(model, how, block=block).generate(prompt)
        rows.append(row)
    emit_page(facts, as_json=as_json, text=_format_schemes(facts))


def _parse_scheme(spelled: str, bits: int | None) -> Any:
    """The scheme, at so many bits where it has that setting and does not say otherwise."""
    from workbench.quantizers.kv import parse

    how = parse(spelled)
    return how if bits is None or "bits=" in spelled else how.at(bits)


def _format_schemes(facts: dict[str, Any]) -> str:
    """The schemes as a page of text."""
    from workbench.models.perplexity import PerplexityRatio

    tokens = facts["tokens"]
    original = f"{facts['perplexity_original']:.3f}"
    lines = [f"on {tokens:,} tokens of the text {facts['text']}; with the uncompressed cache, perplexity is {original}"]
    for row in facts["schemes"]:
        lines += [
            "",
            row["scheme"],
            f"  stored       {row['bits_per_value']:.2f} bits per value ({row['nominal_bits']:.2f} nominal)",
            f"  size         {row['bytes_per_token']:,.0f} bytes per token",
            f"  perplexity   {format_with_interval(row['perplexity'], row['perplexity_interval'], tokens)}",
            f"               {PerplexityRatio(row['ratio'], row['ratio_interval'], tokens).against('the uncompressed cache')}",
            f"  KL           {format_kl(row['kl'], row['kl_interval'], tokens)}",
        ]
        if "generated" in row:
            lines.append(f"  writes       {row['generated']}")
    return "\n".join(lines)
