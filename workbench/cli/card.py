"""Commands that make a quant card and compare two: a page to attach to an issue, and a check for CI."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import Json, TextFile, Tokens, has_recipe, read_text
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import Column, format_groups

if TYPE_CHECKING:
    from workbench.analysis.decisions.quant_card_diff import CardDiff, Difference

DIFF_COLUMNS = (
    Column("item", folds=True),
    Column("first", folds=True),
    Column("second", folds=True),
    Column("change", right=True),
    Column("allowed", right=True),
)
DIFF_SECTIONS = ("figures", "ledger", "recipe", "errors", "hashes", "environment")  # what matters most comes first
CELL_CHARS = 10  # of a value in the table; a hash is known by as many

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A folder written by `workbench quantize`.")]
Side = Annotated[str, typer.Argument(metavar="CARD|DIR", help="A card (.html or .json), or a folder written by `quantize`.")]


def card(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="File for the card, .html or .json.")] = None,
    text: TextFile = "evaluation",
    tokens: Tokens = None,
    as_json: Json = False,
) -> None:
    """Make a quant card of a saved model.

    The card is one file that opens offline: recipe, ledger, errors, KL and perplexity, hashes and environment.
    """
    from workbench.views.decisions.quant_card import card as make
    from workbench.views.decisions.quant_card import check_place

    if out is not None:
        check_place(out)  # now rather than after the work
    with show_progress("comparing with the original", quiet=as_json) as report:
        made_card = make(folder, text=read_text(text), tokens=tokens, on_progress=report)
    sentence = made_card.answer
    if out is not None:
        path = made_card.save(out)
        sentence += f"\n{path}: {path.stat().st_size:,} bytes"
    else:
        sentence += "\nThe card was not saved; use --out card.html or --out card.json to save it."
    emit_page(made_card.facts, as_json=as_json, text=sentence)


def diff(
    first: Side,
    second: Side,
    bits: Annotated[float, typer.Option("--bits", metavar="N", min=0, help="Allowed change of stored bits per weight.")] = 0.0,
    error: Annotated[
        float, typer.Option("--error", metavar="N", min=0, help="Allowed relative change of a layer's errors.")
    ] = 1e-3,
    perplexity: Annotated[
        float, typer.Option("--perplexity", metavar="N", min=0, help="Allowed relative change of perplexity.")
    ] = 1e-3,
    kl: Annotated[float, typer.Option("--kl", metavar="N", min=0, help="Allowed change of KL, nats per token.")] = 1e-3,
    top1: Annotated[
        float, typer.Option("--top1", metavar="N", min=0, help="Allowed change of the share of changed top-1 tokens.")
    ] = 1e-3,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="SECTION", help="Section that may differ, such as recipe or hashes. Repeatable."),
    ] = None,
    text: TextFile = "evaluation",
    tokens: Tokens = None,
    stored: Annotated[bool, typer.Option("--stored-only", help="Compare only what is stored, without running a model.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two quant cards.

    The exit status is 1 if anything differs by more than its tolerance. A folder is evaluated on as many tokens as the card
    it is compared with. Differences in versions and processor are reported but allowed.
    """
    from workbench.analysis.decisions.quant_card_diff import Tolerances, diff_cards

    cards = [None if has_recipe(side) else read_card(side) for side in (first, second)]
    settings: dict[str, Any] = {"tokens": tokens, "quiet": as_json}
    for facts in cards:
        if facts and facts["figures"]:
            settings |= {"tokens": facts["figures"]["tokens"]}
    one, other = (
        facts or _make_card_facts(side, text, measured=not stored, **settings)
        for side, facts in zip((first, second), cards, strict=True)
    )
    limits = Tolerances(bits=bits, error=error, perplexity=perplexity, kl=kl, top1=top1)
    comparison = diff_cards(one, other, limits, allow=allow or ())
    emit_page({"first": first, "second": second, **comparison.to_dict()}, as_json=as_json, text=_format_diff(comparison))
    if not comparison.same:
        raise typer.Exit(1)


def _format_diff(comparison: "CardDiff") -> str:
    """The answer, then what differs too much, section by section, then what may differ."""
    groups: dict[str, list[list[str]]] = {}
    for difference in sorted(comparison.differences, key=lambda one: (one.within, DIFF_SECTIONS.index(one.section))):
        title = f"{difference.section}, allowed" if difference.within else f"✗ {difference.section}"
        groups.setdefault(title, []).append(_format_difference(difference))
    table = ["", format_groups(DIFF_COLUMNS, groups)] if groups else []
    return "\n".join([comparison.answer, *comparison.skipped, *table])


def _format_difference(difference: "Difference") -> list[str]:
    """One difference in the table."""
    change, allowed = ("" if number is None else f"{number:.3g}" for number in (difference.change, difference.allowed))
    return [difference.item, *_format_values(difference.first, difference.second), change, allowed]


def _format_values(first: Any, second: Any) -> list[str]:
    """Two values as cells: of long ones, where they begin to differ."""
    cells = ["–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value) for value in (first, second)]
    if max(map(len, cells)) <= CELL_CHARS:
        return cells
    common = next((number for number, signs in enumerate(zip(*cells, strict=False)) if len({*signs}) > 1), 0)
    rests = [cell[common:] for cell in cells]
    return ["…" * (common > 0) + rest[:CELL_CHARS] + "…" * (len(rest) > CELL_CHARS) for rest in rests]


def read_card(side: str) -> dict[str, Any]:
    """The facts of a card's file."""
    from workbench.analysis.decisions.quant_card_file import read_facts

    return read_facts(side)


def _make_card_facts(folder: str, text: str, *, quiet: bool, **settings: Any) -> dict[str, Any]:
    """The facts of a quantized folder."""
    from workbench.analysis.decisions.quant_card import collect_card_facts

    with show_progress(f"measuring {folder}", quiet=quiet) as report:
        return collect_card_facts(folder, text=read_text(text), on_progress=report, **settings)
