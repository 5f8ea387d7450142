"""The quant card as a value and as one offline HTML file: figures, tables, recipe, ledger, hashes and environment."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.decisions.quant_card import Quantized, collect_card_facts
from workbench.analysis.decisions.quant_card_file import read_facts
from workbench.atomic import write_file
from workbench.bits import BitLedger
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import OutputError
from workbench.intervals import format_interval, split_interval
from workbench.models.handle import ModelHandle
from workbench.models.layers import split_name
from workbench.models.perplexity import PerplexityRatio
from workbench.models.text import Text
from workbench.outputs import check_file
from workbench.quantized import describe_bits
from workbench.views import theme as themes
from workbench.views.decisions import bit_ledger
from workbench.views.decisions.quant_card_page import render_card_page
from workbench.views.figure import Figure
from workbench.views.predictions import layer_errors as errors
from workbench.views.theme import Theme


@dataclass(frozen=True)
class Card(ShownInCell):
    """A quant card: `facts` is the JSON document, `figures` draws it, `save` writes it as .html or .json."""

    facts: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """A saved card, HTML or JSON; ArtifactError where the file is none."""
        return cls(read_facts(path))

    def figures(self, theme: Theme = themes.LIGHT) -> dict[str, Figure]:
        """The card's figures by a short name."""
        facts = self.facts
        drawn = {
            "ledger": bit_ledger.draw_bit_ledger(
                BitLedger.from_dict(facts["ledger"]), scope="the quantized part", coverage=facts.get("coverage"), theme=theme
            )
        }
        drawn["errors"] = errors.draw_layer_errors(self.layers, None, theme=theme)
        if facts["figures"]:
            drawn["perplexity"] = _draw_perplexity_bars(facts["figures"], theme=theme)
        return drawn

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a quantized layer, with its block and matrix."""
        table = pd.DataFrame(self.facts["layers"])
        places = [split_name(name) or (None, name) for name in table["name"]]
        return table.assign(block=[parts[0] for parts in places], matrix=[parts[1] for parts in places])

    def __repr__(self) -> str:
        return f"<Card: {self.answer}>"

    def cell_summary(self) -> CellSummary:
        """The card in one sentence, and what its ledger counts."""
        items = BitLedger.from_dict(self.facts["ledger"]).cell_summary()
        question = f"How was {self.facts['model']['name']} quantized?"
        return CellSummary(question, self.answer, items.headers, items.rows, items.more)

    @property
    def answer(self) -> str:
        """The card in one sentence."""
        facts, figures = self.facts, self.facts["figures"]
        book, others = facts["ledger"], facts.get("unquantized", {})  # cards of earlier releases do not say
        bits = describe_bits(
            book["bits_per_weight"], book["nominal_bits"], facts.get("coverage"), others, facts.get("bits_overall")
        )
        text = f"{themes.format_count(facts['model']['quantized_layers'], 'layer')} of {facts['model']['name']} at {bits}"
        if not figures:
            return f"{text}; perplexity was not measured."
        spread = format_interval(figures["perplexity_interval"], figures["tokens"], ".2f")
        before = f"{figures['perplexity_original']:.2f} before"
        return (
            f"{text}: perplexity {figures['perplexity']:.2f} ({spread}), {before}{describe_perplexity_ratio(figures)}, "
            f"on {figures['text']}."
        )

    def json(self) -> str:
        """The facts as indented JSON."""
        return json.dumps(self.facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def html(self) -> str:
        """One page that needs no network."""
        return render_card_page(self.facts, self.answer, self.figures(themes.LIGHT), self.figures(themes.DARK))

    def save(self, path: str | Path) -> Path:
        """Write the card; the name's end, .html or .json, says as what."""
        target = check_place(path)
        write_file(target, {".html": self.html, ".json": self.json}[target.suffix]())
        return target


def check_place(path: str | Path) -> Path:
    """Where a card given as `path` is saved; OutputError where it cannot be, or its name does not say as what."""
    target = Path(path).expanduser()
    if target.suffix not in (".html", ".json"):
        raise OutputError(f"a card cannot be saved as {target.name!r}; use a name that ends in .html or .json.")
    check_file(target)
    return target


def card(
    quantized: Quantized | str | Path,
    original: ModelHandle | None = None,
    text: Text | None = None,
    *,
    tokens: int | None = None,
    measured: bool = True,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> Card:
    """Make the quant card of a quantized model: what was done to it, what it stores, and what that did to its predictions.

    Args:
        quantized: A model from `wb.quantize_model` or `wb.load`, or the folder that one was saved in.
        original: The model that was quantized; opened again from its source when absent.
        text: What to measure on, the built-in evaluation text when absent.
        tokens: At most so many tokens of it, all when absent.
        measured: Whether KL (nats per token), perplexity and top-1 agreement are measured, with 95 % intervals; without them
            nothing is run.
        on_progress: Called with the windows of text that are read, and all of them.

    Returns:
        The card: `facts` as plain values, `save` writes a page that opens offline, or JSON. `wb.diff_cards` compares two.

    Raises:
        ModelError: Where `original` is another model.
        ArtifactError: Where the folder is missing or damaged.

    Example:
        >>> import workbench as wb
        >>> small = wb.quantize_model(wb.open_model("builtin"), wb.recipe("rtn", bits=4), layers="*.0.mlp.down_proj")
        >>> card = wb.card(small, measured=False)
        >>> card.facts["model"]
        {'name': 'builtin', 'quantized_layers': 1, 'quantized_weights': 196608}
    """
    return Card(collect_card_facts(quantized, original, text, tokens=tokens, measured=measured, on_progress=on_progress))


def describe_perplexity_ratio(figures: dict[str, Any]) -> str:
    """The paired ratio of both perplexities; nothing for cards of earlier releases, which do not have it."""
    if "ratio" not in figures:
        return ""
    interval = figures["ratio_interval"]
    return f", {PerplexityRatio(figures['ratio'], interval and tuple(interval), figures['tokens']).against('the original')}"


def _draw_perplexity_bars(figures: dict[str, Any], *, theme: Theme = themes.LIGHT) -> Figure:
    """Perplexity before and after, each with its 95 % interval."""
    table = pd.DataFrame(
        [
            {"model": name, "perplexity": figures[key], "perplexity_low": low, "perplexity_high": high}
            for name, key in (("original", "perplexity_original"), ("quantized", "perplexity"))
            for low, high in [split_interval(figures[f"{key}_interval"])]
        ]
    )
    plot = {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": table["perplexity"].tolist(),
                "y": table["model"].tolist(),
                "marker": {"color": [theme.original, theme.quantized]},
                "error_x": themes.build_error_bars(table, "perplexity", theme.text),
                "hovertemplate": "%{y}: perplexity %{x:.3f}<extra></extra>",
            }
        ],
        "layout": themes.build_layout(
            theme,
            x="perplexity (95 % interval)",
            height=200,
            yaxis={"type": "category", "autorange": "reversed", "showgrid": False},
            xaxis={"rangemode": "tozero"},
        ),
    }
    changed = themes.format_percent(figures["top1_changed"])
    answer = (
        f"Perplexity goes from {figures['perplexity_original']:.2f} to "
        f"{figures['perplexity']:.2f}{describe_perplexity_ratio(figures)}, on "
        f"{figures['tokens']:,} tokens of {figures['text']}; KL is {figures['kl']:.4f} nats per token "
        f"({format_interval(figures['kl_interval'], figures['tokens'], '.4f')}), and {changed} of "
        "the top-1 tokens change."
    )
    return Figure("How much do the predictions change?", answer, plot, table)
