"""Commands that run a model: perplexity, text generation, and the difference between quantized and original models."""

import itertools
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import Json, Model, RecipeText, Seed, Source, TextFile, Tokens, open_any, read_text
from workbench.cli.long_jobs import Reading, announce_reading
from workbench.cli.output import emit, emit_page, format_with_interval, show_progress
from workbench.cli.streams import write
from workbench.views.token_text import quote_token

if TYPE_CHECKING:
    from workbench.analysis.predictions.generation import Writing
    from workbench.analysis.predictions.generation_speed import Speed
    from workbench.artifact import PackedModel
    from workbench.models import ModelHandle

PROMPT = "Once upon a time"
TEXT_TOKENS = 100

Length = Annotated[int, typer.Option("--tokens", metavar="N", min=0, help="Maximum number of tokens to generate.")]


def evaluate(source: Source, text: TextFile = "evaluation", tokens: Tokens = None, as_json: Json = False) -> None:
    """Measure perplexity and bits per byte on a text.

    The 95 % intervals are computed over its documents.
    """
    from workbench.models import ModelHandle

    model, document = open_any(source), read_text(text)
    begin = time.perf_counter()
    if isinstance(model, ModelHandle):
        announce_reading(model, Reading(document, tokens))
    with show_progress("reading the text", quiet=as_json) as report:
        result = model.perplexity(document, tokens=tokens, on_progress=report)
    facts = {
        "model": source,
        "text": result.text,
        "perplexity": result.perplexity,
        "perplexity_interval": result.perplexity_interval,
        "bits_per_byte": result.bits_per_byte,
        "bits_per_byte_interval": result.bits_per_byte_interval,
        "tokens": result.tokens,
        "text_bytes": result.bytes,
        "seconds": time.perf_counter() - begin,
        **_collect_stored_facts(model),
    }
    sentence = (
        f"perplexity     {format_with_interval(result.perplexity, result.perplexity_interval, result.tokens)}\n"
        f"bits per byte  {format_with_interval(result.bits_per_byte, result.bits_per_byte_interval, result.tokens)}\n"
        f"on {result.tokens:,} tokens ({result.bytes:,} bytes) of {result.text}"
    )
    if "nominal_bits" in facts:
        sentence += f"\n{format_bits(facts)}"
    emit_page(facts, as_json=as_json, text=sentence)


def generate(
    source: Source,
    prompt: Annotated[str, typer.Option("--prompt", help="Text to continue.")],
    tokens: Length = 100,
    temperature: Annotated[float, typer.Option(metavar="N", min=0.0, help="Sampling temperature; 0 is greedy decoding.")] = 0.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Continue a prompt."""
    lm = open_any(source).language_model()
    begin = time.perf_counter()
    start, pieces = lm.decode(lm.encode(prompt)), lm.stream(prompt, tokens, temperature=temperature, seed=seed)
    if not as_json:  # as it is written; the prompt comes with the first piece, so that a model that fails says only why
        for piece in itertools.chain([start + next(pieces, "")], pieces):
            write(piece, end="")
        write("")
        return
    text = start + "".join(pieces)
    written = lm.encode(text).shape[1] - lm.encode(prompt).shape[1]
    facts = {"model": source, "prompt": prompt, "text": text, "tokens": written, "temperature": temperature, "seed": seed}
    emit(facts | {"seconds": time.perf_counter() - begin}, as_json=True, text=text)


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
            **_collect_stored_facts(original),
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
                **_collect_stored_facts(other),
                **collect_running_facts(other, after),
                "seconds": time.perf_counter() - begin,
            }
        )
    emit_page(facts, as_json=as_json, text=_format_comparison(facts))


def whatif(
    model: Model,
    layer: Annotated[str, typer.Option("--layer", help="Name of the layer, see `workbench layers`.")],
    recipe: RecipeText,
    text: TextFile = "evaluation",
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="Maximum number of tokens to compare on.")] = 1024,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Quantize one layer and measure the effect on the model.

    Reports KL (nats per token), perplexity, and how often the top-1 token changes.
    """
    from workbench.analysis.predictions.what_if import what_if
    from workbench.calibration import DEFAULT_TOKENS, calibrate
    from workbench.models import open_model
    from workbench.presets import parse
    from workbench.quantizers import quantize

    chosen, handle, document, calibration = parse(recipe), open_model(model), read_text(text), read_text("calibration")
    begin = time.perf_counter()
    announce_reading(handle, Reading(calibration, DEFAULT_TOKENS, by_block=True), Reading(document, tokens, 2))
    with show_progress("calibrating", quiet=as_json) as report:
        stats = calibrate(handle, calibration, layers=[layer], seed=seed, on_progress=report)
    with show_progress("quantizing", quiet=as_json) as report:
        quantized = quantize(handle, layer, chosen, stats=stats, on_progress=lambda step: report(step.fraction, 1))
    with show_progress("comparing", quiet=as_json) as report:
        result = what_if(handle, layer, quantized, document, tokens=tokens, on_progress=report)
    facts = {
        "model": model,
        "layer": layer,
        "recipe": chosen.to_dict(),
        "text": document.name,
        "kl": result.kl,
        "kl_interval": result.kl_interval,
        "kl_median": result.divergence.kl_median,
        "perplexity": result.perplexity,
        "perplexity_original": result.perplexity_original,
        "ratio": result.ratio.ratio,
        "ratio_interval": result.ratio.interval,
        "top1_changed": result.top1_changed,
        "tokens": result.divergence.tokens,
        "bits_per_weight": result.layer.bits_per_weight,
        "nominal_bits": result.layer.nominal_bits,
        "relative_error": result.layer.relative_error,
        "output_error": result.layer.output_error,
        "seed": seed,
        "seconds": time.perf_counter() - begin,
    }
    sentence = (
        f"{layer} at {result.layer.bits_per_weight:.2f} stored bits ({result.layer.nominal_bits:.2f} nominal)\n"
        f"KL             {format_with_interval(result.kl, result.kl_interval, result.divergence.tokens, 5)} nats per token\n"
        f"perplexity     {result.perplexity_original:.3f} before, {result.perplexity:.3f} after\n"
        f"ratio          {result.ratio.against('the original')}\n"
        f"top-1 changed  {result.top1_changed:.2%} of {result.divergence.tokens:,} tokens"
    )
    emit_page(facts, as_json=as_json, text=sentence)


def _collect_stored_facts(model: "ModelHandle | PackedModel") -> dict[str, Any]:
    """What the model takes: `bytes` of its weight files; where it is quantized its bits, and the share of weights they are of."""
    from workbench.models import ModelHandle

    if isinstance(model, ModelHandle):
        return {"bytes": model.stored_bytes}
    return {
        "bytes": model.bytes,
        "bits_per_weight": model.bits_per_weight,
        "nominal_bits": model.nominal_bits,
        "coverage": model.coverage,
        "bits_overall": model.bits_overall,
        "unquantized": model.quantized.unquantized,
    }


def format_bits(facts: dict[str, Any]) -> str:
    """What `_collect_stored_facts` says of a quantized model, in words."""
    from workbench.quantized import describe_bits

    names = ("bits_per_weight", "nominal_bits", "coverage", "unquantized", "bits_overall")
    return describe_bits(*(facts[name] for name in names))


def collect_running_facts(model: "ModelHandle | PackedModel", speed: "Speed") -> dict[str, Any]:
    """What the model takes in memory while it runs, and how fast it writes."""
    from workbench.kernels.matmul.packed_matrix import count_resident_bytes

    return {
        "resident_bytes": count_resident_bytes([model.language_model().module]),
        "tokens_per_second": speed.tokens_per_second,
        "tokens_per_second_range": (speed.low, speed.high),
    }


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
            sides = [quote_token(fork[side]) or "the end" for side in ("original", "other")]
            parted = f"token {fork['token'] + 1}: {sides[0]} became {sides[1]}"
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
