"""What moments weighted by the loss change in perplexity at equal stored bits: `python -m tests.readme.guided_moments`.

It calibrates the built-in model once, quantizes each layer by itself by each recipe with and without `guided=4`, measures both on
the shipped evaluation text and on texts by other hands where WORKBENCH_DATA has them, and writes docs/guided_moments.md.
"""

import datetime as dt
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import workbench as wb
from workbench import presets
from workbench.calibration import CalibrationStats
from workbench.models import ModelHandle
from workbench.models.perplexity import PerplexityResult, compute_perplexity_ratio, perplexity
from workbench.models.text import Text

PAGE = Path(__file__).parents[2] / "docs" / "guided_moments.md"
BY_OTHERS = {"TinyStories": "tinystories/stories.txt", "WikiText-2": "wikitext2/valid.txt"}
RECIPES = ("gptq:bits=2", "btc:bits=0.8", "gptq:bits=3", "qtip:bits=1", "binary-factors:bits=0.866")
GROUPS = 4
READ = 4000  # tokens of each text
BEGIN, END = "<!-- table: python -m tests.readme.guided_moments -->\n", "<!-- end of table -->"


@dataclass(frozen=True)
class Quantized:
    """A quantized model's stored bits a weight, the seconds it took, and its perplexity on each text."""

    bits: float
    seconds: float
    results: dict[str, PerplexityResult]


def read_texts() -> dict[str, Text]:
    """The shipped evaluation text, and those by other hands that are there."""
    folder = Path(os.environ.get("WORKBENCH_DATA", "/nowhere"))
    others = {name: wb.text(folder / path) for name, path in BY_OTHERS.items() if (folder / path).is_file()}
    return {"evaluation": wb.text("evaluation"), **others}


def measure(model: ModelHandle, stats: CalibrationStats, recipe: str, texts: dict[str, Text]) -> Quantized:
    """Quantize the model by a recipe and read every text with it."""
    quantized = wb.quantize_model(model, presets.parse(recipe), stats)
    with model.swapped({name: layer.weight() for name, layer in quantized.layers.items()}):
        results = {name: perplexity(model.language_model(), text, READ) for name, text in texts.items()}
    return Quantized(quantized.bits_per_weight, quantized.seconds, results)


def measure_rows() -> Iterator[str]:
    """One row of the table for each recipe and text."""
    model, texts = wb.open_model("builtin"), read_texts()
    stats = wb.calibrate(model, wb.text("calibration"), guided=GROUPS)
    original = {name: perplexity(model.language_model(), text, READ) for name, text in texts.items()}
    for recipe in RECIPES:
        plain, guided = (measure(model, stats, spelling, texts) for spelling in (recipe, f"{recipe},guided={GROUPS}"))
        for name in texts:
            ratio = compute_perplexity_ratio(plain.results[name], guided.results[name])
            low, high = ratio.interval or (float("nan"), float("nan"))
            figures = [original[name].perplexity, plain.results[name].perplexity, guided.results[name].perplexity]
            cells = [f"`{recipe}`", f"{plain.bits:.3f}, {guided.bits:.3f}", name, *(f"{figure:.4g}" for figure in figures)]
            cells += [f"{ratio.ratio:.3f} ({low:.3f} to {high:.3f})", f"{plain.seconds:.0f}, {guided.seconds:.0f}"]
            yield f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Measure everything and write the table between the page's markers."""
    torch.set_num_threads(1)
    rows = []
    for row in measure_rows():
        sys.stdout.write(row)
        sys.stdout.flush()
        rows.append(row)
    head = "| recipe | stored bits | text | original | plain | guided | ratio | seconds |\n|---|---|---|---|---|---|---|---|\n"
    end = f"\nMeasured on {READ:,} tokens of each text, {dt.datetime.now(dt.UTC):%d %B %Y}, torch {torch.__version__}.\n"
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{head}{''.join(rows)}{end}{END}{rest.split(END, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
