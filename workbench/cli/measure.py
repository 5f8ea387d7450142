"""Commands that run a model: text generation, and the effect of one quantized layer."""

import itertools
import time
from typing import Annotated

import typer

from workbench.cli.arguments import Json, Model, RecipeText, Seed, Source, TextFile, open_any, read_text
from workbench.cli.long_jobs import Reading, announce_reading
from workbench.cli.output import emit, emit_page, format_kl, show_progress
from workbench.cli.streams import write

Length = Annotated[int, typer.Option("--tokens", metavar="N", min=0, help="Maximum number of tokens to generate.")]


def generate(
    source: Source,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="Text to continue.")],
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


def whatif(
    model: Model,
    layer: Annotated[str, typer.Option("--layer", metavar="NAME", help="Name of the layer, see `workbench layers`.")],
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
        stats = calibrate(handle, calibration, layers=[layer], seed=seed, on_progress=report, guided=chosen.guided)
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
        f"KL             {format_kl(result.kl, result.kl_interval, result.divergence.tokens)}\n"
        f"perplexity     {result.perplexity_original:.3f} before, {result.perplexity:.3f} after\n"
        f"               {result.ratio.against('the original')}\n"
        f"top-1 changed  {result.top1_changed:.2%} of {result.divergence.tokens:,} tokens"
    )
    emit_page(facts, as_json=as_json, text=sentence)
