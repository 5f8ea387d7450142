"""The quant card as a value and as one HTML file: figures, their tables, recipe, ledger, hashes and environment, offline."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.card import Quantized, card_facts
from workbench.analysis.card_file import read_facts
from workbench.bits import BitLedger
from workbench.errors import ArtifactError
from workbench.models.handle import ModelHandle
from workbench.models.layers import split_name
from workbench.models.text import Text
from workbench.quantized import describe_bits
from workbench.views import errors, ledger
from workbench.views import theme as themes
from workbench.views.card_page import page
from workbench.views.figure import Figure
from workbench.views.theme import Theme


@dataclass(frozen=True)
class Card:
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
            "ledger": ledger.bars(
                BitLedger.from_dict(facts["ledger"]), scope="the quantized part", coverage=facts.get("coverage"), theme=theme
            )
        }
        drawn["errors"] = errors.layer_errors(self.layers, None, theme=theme)
        if facts["figures"]:
            drawn["perplexity"] = perplexity_bars(facts["figures"], facts["seed"], theme=theme)
        return drawn

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a quantized layer, with its block and matrix."""
        table = pd.DataFrame(self.facts["layers"])
        places = [split_name(name) or (None, name) for name in table["name"]]
        return table.assign(block=[place[0] for place in places], matrix=[place[1] for place in places])

    @property
    def answer(self) -> str:
        """The card in one sentence."""
        facts, found = self.facts, self.facts["figures"]
        book, others = facts["ledger"], facts.get("unquantized", {})  # cards of earlier releases do not say
        bits = describe_bits(
            book["bits_per_weight"], book["nominal_bits"], facts.get("coverage"), others, facts.get("bits_overall")
        )
        text = f"{themes.count(facts['model']['quantized_layers'], 'layer')} of {facts['model']['name']} at {bits}"
        if not found:
            return f"{text}; perplexity was not measured."
        low, high = found["perplexity_interval"]
        before = f"{found['perplexity_original']:.2f} before"
        return f"{text}: perplexity {found['perplexity']:.2f} (95 %: {low:.2f} to {high:.2f}), {before}, on {found['text']}."

    def json(self) -> str:
        """The facts as indented JSON."""
        return json.dumps(self.facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def html(self) -> str:
        """One page that needs no network."""
        return page(self.facts, self.answer, self.figures(themes.LIGHT), self.figures(themes.DARK))

    def save(self, path: str | Path) -> Path:
        """Write the card; the name's end, .html or .json, says as what."""
        place = Path(path).expanduser()
        kinds = {".html": self.html, ".json": self.json}
        if place.suffix not in kinds:
            raise ArtifactError(f"a card cannot be saved as {place.name!r}; its name ends in .html or .json.")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(kinds[place.suffix](), encoding="utf-8")
        return place


def card(
    quantized: Quantized | str | Path,
    original: ModelHandle | None = None,
    text: Text | None = None,
    *,
    tokens: int | None = None,
    seed: int = 0,
    measured: bool = True,
) -> Card:
    """The quant card of a quantized model or of the folder it was saved in; arguments as in `card_facts`.

    `card("out/").save("card.html")` opens offline anywhere; `Card.read` takes it back, and `diff_cards` compares two.
    """
    return Card(card_facts(quantized, original, text, tokens=tokens, seed=seed, measured=measured))


def perplexity_bars(found: dict[str, Any], seed: int, *, theme: Theme = themes.LIGHT) -> Figure:
    """Perplexity before and after, each with its 95 % interval."""
    table = pd.DataFrame(
        [
            {"model": name, "perplexity": found[key], "perplexity_low": low, "perplexity_high": high}
            for name, key in (("original", "perplexity_original"), ("quantized", "perplexity"))
            for low, high in [found[f"{key}_interval"]]
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
                "error_x": themes.interval(table, "perplexity", theme.text),
                "hovertemplate": "%{y}: perplexity %{x:.3f}<extra></extra>",
            }
        ],
        "layout": themes.layout(
            theme,
            x="perplexity (95 % interval)",
            height=200,
            yaxis={"type": "category", "autorange": "reversed", "showgrid": False},
            xaxis={"rangemode": "tozero"},
        ),
    }
    changed = themes.percent(found["top1_changed"])
    low, high = found["kl_interval"]
    answer = (
        f"Perplexity goes from {found['perplexity_original']:.2f} to {found['perplexity']:.2f} on {found['tokens']:,} tokens of "
        f"{found['text']}; KL is {found['kl']:.4f} nats per token (95 %: {low:.4f} to {high:.4f}, seed {seed}), and {changed} of "
        "the likeliest next tokens change."
    )
    return Figure("What does it cost the predictions?", answer, plot, table)
