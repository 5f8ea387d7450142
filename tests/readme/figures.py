"""The README's table below one bit, from one script: `python -m tests.readme.figures [--recipe NAME] [--data FOLDER]`.

It quantizes the built-in model with every recipe, measures it on three texts, and writes `figures.json` beside this file and the
table between the README's markers. A recipe that is named is measured again, the other rows stay as they were recorded.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_name("figures.json")
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- figures: python -m tests.readme.figures -->\n", "<!-- end of figures -->"
TOLERANCE = 0.02  # processors add in different orders, and decisions that hang by a hair fall differently: perplexity, relative
CALIBRATION_TOKENS, EVALUATION_TOKENS, SEED = 16_384, 20_000, 0
BY_OTHERS = {"TinyStories": "tinystories/stories.txt", "WikiText-2": "wikitext2/valid.txt"}
ORIGINAL = "none"
RECIPES = {
    ORIGINAL: "the original",
    "rtn:bits=1,group=0": "",
    "binary": "plain signs",
    "gptq:bits=1,group=0,repair=yes": "",
    "pb-llm": "",
    "billm": "",
    "btc:bits=0.8,assignment=hamming": "the paper's clustering",
    "btc:bits=0.8": "",
    "btc:bits=0.8,transform=both": "learned signs and rotation",
    "parity:bits=0.8,transform=hadamard": "",
    "binary-factors:bits=0.866,sweeps=400": "",
    "qtip:bits=0.8": "",
    "btc:bits=0.8,refinement=codes": "",
    "btc:bits=0.8,refinement=model": "all blocks together",
    "btc-planes:bits=1.6": "",
}
Row = dict[str, Any]


def main() -> None:
    """Measure what is asked for, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", action="append", choices=RECIPES, help="measure only this row; repeatable")
    parser.add_argument("--data", type=Path, default=README.parents[1] / "shared" / "data", help="where the texts by others lie")
    options = parser.parse_args()
    recorded = read_figures()
    rows = dict(recorded.get("rows", {}))
    for spelling in options.recipe or RECIPES:
        rows[spelling] = {**measure_row(spelling, options.data), "measured": describe_run()}
        sys.stdout.write(f"{spelling}: {json.dumps(rows[spelling])}\n")
        sys.stdout.flush()
        figures = {"tolerance": TOLERANCE, "rows": {name: rows[name] for name in RECIPES if name in rows}}
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8"), read_figures()), encoding="utf-8")


def read_figures() -> dict[str, Any]:
    """What was recorded last, or nothing."""
    return dict(json.loads(FIGURES.read_text(encoding="utf-8"))) if FIGURES.is_file() else {}


def describe_run() -> dict[str, Any]:
    """Where and when a figure was measured."""
    import torch
    import transformers

    from workbench.bench.cpu import read_processor_name

    return {
        "date": str(dt.datetime.now(dt.UTC).date()),
        "host": read_processor_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seed": SEED,
        "calibration_tokens": CALIBRATION_TOKENS,
        "evaluation_tokens": EVALUATION_TOKENS,
    }


def measure_row(spelling: str, data: Path | None) -> Row:
    """One recipe over the whole built-in model by `workbench quantize`: its bits, and its perplexity on every text."""
    import workbench as wb

    texts = {"evaluation": "evaluation"} | ({} if data is None else {name: data / path for name, path in BY_OTHERS.items()})
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "quantize",
            "builtin",
            "--recipe",
            spelling,
            "--out",
            f"{folder}/out",
            "--tokens",
            CALIBRATION_TOKENS,
            "--seed",
            SEED,
        ]
        command = [sys.executable, "-c", "from workbench.cli import main; main()", *map(str, words), "--json"]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row = {
            "nominal": made["nominal_bits"],
            "stored": made["bits_per_weight"],
            "seconds": round(made["seconds"], 1),
            "texts": {},
        }
        saved = wb.load(f"{folder}/out")
        for name, source in texts.items():
            result = saved.perplexity(wb.text(source), tokens=None if name == "evaluation" else EVALUATION_TOKENS)
            figure = {"perplexity": result.perplexity, "interval": result.perplexity_interval, "tokens": result.tokens}
            row["texts"][name] = figure
    return row


def with_table(readme: str, figures: dict[str, Any]) -> str:
    """The README with the table of these figures between its markers."""
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}{write_table(figures)}{END}{rest.split(END, 1)[1]}"


def write_table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table, the lowest perplexity below one stored bit bold in each column, and how they were made."""
    rows, names = figures["rows"], list(next(iter(figures["rows"].values()))["texts"])
    best = {name: best_below_one_bit(rows, name) for name in names}
    lines = [f"| recipe | nominal | stored | {' | '.join(names)} |", f"|---|---|---|{'---|' * len(names)}"]
    for spelling, row in rows.items():
        cells = [format_figure(row["texts"][name], bold=best[name] == spelling) for name in names]
        title = (
            RECIPES[spelling] if spelling == ORIGINAL else f"`{spelling}`" + f" ({RECIPES[spelling]})" * bool(RECIPES[spelling])
        )
        lines.append(f"| {title} | {row['nominal']:.4g} | {row['stored']:.3f} | {' | '.join(cells)} |")
    made = f"{describe_runs(rows)};\nwhen measured again, each perplexity stays within {figures['tolerance']:.0%}."
    return "\n".join([*lines, "", made, ""])


def describe_runs(rows: dict[str, Row]) -> str:
    """When, where and with what the rows were measured: most of them first, others by name."""
    runs: dict[str, list[str]] = {}
    for spelling, row in rows.items():
        run = row["measured"]
        where = f"on {run['date']} on {run['host']} with torch {run['torch']}, seed {run['seed']}"
        runs.setdefault(where, []).append(spelling)
    first, *others = sorted(runs, key=lambda where: -len(runs[where]))
    return ";\n".join(["Measured " + first, *(f"{', '.join(f'`{name}`' for name in runs[where])} {where}" for where in others)])


def best_below_one_bit(rows: dict[str, Row], text: str) -> str | None:
    """The row with the lowest perplexity on a text among those that store less than one bit a weight."""
    below = [(row["texts"][text]["perplexity"], spelling) for spelling, row in rows.items() if row["stored"] < 1]
    return min(below)[1] if below else None


def format_figure(figure: dict[str, Any], *, bold: bool) -> str:
    """A perplexity with four digits and its interval."""
    text = f"{figure['perplexity']:,.4g}"
    if figure["interval"] is not None:
        text += " [{:,.4g}, {:,.4g}]".format(*figure["interval"])
    return f"**{text}**" if bold else text


if __name__ == "__main__":
    main()
