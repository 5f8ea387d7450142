"""Differences between two quant cards, item by item, each with a tolerance: for readers and for CI."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.analysis.decisions.quant_card_file import check_facts
from workbench.errors import ArtifactError
from workbench.json_value import wrap_value

if TYPE_CHECKING:
    import pandas as pd

SECTIONS = ("recipe", "ledger", "errors", "figures", "hashes", "environment")
NOTED = ("environment",)  # another machine is worth knowing and no fault
ERROR_FIELDS = ("relative_error", "output_error")
CONDITIONS = ("text", "tokens")  # under which figures were measured


@dataclass(frozen=True)
class Tolerances:
    """The largest changes that count as none.

    `bits`: stored bits per weight. `error`: a layer's weight or output error, relative. `perplexity`: relative. `kl`: nats per
    token. `top1`: share of tokens.
    """

    bits: float = 0.0
    error: float = 1e-3
    perplexity: float = 1e-3
    kl: float = 1e-3
    top1: float = 1e-3


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same: its values in both cards, and for numbers by how much and how much was allowed."""

    section: str
    item: str
    first: Any
    second: Any
    change: float | None = None
    allowed: float | None = None
    within: bool = False

    def __str__(self) -> str:
        values = f"{self.section}: {self.item} was {shorten_value(self.first)} and is {shorten_value(self.second)}"
        if self.change is None:
            return values
        return f"{values}: a change of {self.change:.3g}, {'within' if self.within else 'above'} the allowed {self.allowed:g}"


@dataclass(frozen=True)
class CardDiff:
    """All differences of two cards; `same` where every one is within its tolerance, or in a section that may differ."""

    differences: tuple[Difference, ...]
    skipped: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether a check in CI may pass."""
        return all(difference.within for difference in self.differences)

    @property
    def answer(self) -> str:
        """One sentence."""
        above = [d for d in self.differences if not d.within]
        passed = len(self.differences) - len(above)
        if not self.differences:
            return "The two cards agree in everything except times."
        if not above:
            return f"The two cards agree within the tolerances; {passed} differences are within them or allowed."
        where = ", ".join(dict.fromkeys(d.section for d in above))
        places = "1 place" if len(above) == 1 else f"{len(above)} places"
        return f"The two cards differ beyond the tolerances in {places} ({where}); {passed} more differences are allowed."

    def table(self) -> "pd.DataFrame":
        """One row a difference: section, item, first, second, change, allowed, within."""
        import pandas as pd

        names = list(Difference.__dataclass_fields__)
        return pd.DataFrame([asdict(difference) for difference in self.differences], columns=names)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [asdict(difference) for difference in self.differences]
        return {"same": self.same, "answer": self.answer, "differences": rows, "skipped": list(self.skipped)}


def diff_cards(
    first: Mapping[str, Any], second: Mapping[str, Any], tolerances: Tolerances | None = None, *, allow: Collection[str] = ()
) -> CardDiff:
    """Compare the facts of two quant cards, item by item, each against a stated tolerance; times are never compared.

    Args:
        first: The facts of a card, `wb.card(...).facts` or the JSON that it saved.
        second: The facts of the other card.
        tolerances: The largest changes that count as none; the defaults of `Tolerances` when absent.
        allow: Sections that may differ: recipe, ledger, errors, figures, hashes. The environment always may.

    Returns:
        All differences; `same` says whether each is within its tolerance or allowed, `answer` says it in a sentence, and
        `skipped` names figures that only one card has.

    Raises:
        ArtifactError: For facts that are no card's, and for an unknown section.

    Example:
        >>> import workbench as wb
        >>> model, layers = wb.open_model("builtin"), "*.0.mlp.down_proj"
        >>> small = [wb.quantize_model(model, wb.recipe("rtn", bits=bits), layers=layers) for bits in (3, 4)]
        >>> cards = [wb.card(quantized, measured=False).facts for quantized in small]
        >>> wb.diff_cards(cards[0], cards[0]).answer
        'The two cards agree in everything except times.'
        >>> wb.diff_cards(*cards).same
        False
    """
    if unknown := sorted(set(allow) - set(SECTIONS)):
        raise ArtifactError(f"a card has no section {', '.join(map(repr, unknown))}; sections are {', '.join(SECTIONS)}.")
    for which, facts in (("first", first), ("second", second)):
        check_facts(wrap_value(facts, f"the {which} card", ArtifactError))
    limits = tolerances or Tolerances()
    differences = [
        *_diff_documents("recipe", first["recipe"], second["recipe"]),
        *_diff_ledgers(first, second, limits),
        *_diff_errors(first["layers"], second["layers"], limits),
        *_diff_documents("hashes", first["hashes"], second["hashes"]),
        *_diff_documents("environment", _extract_environment(first), _extract_environment(second)),
    ]
    skipped = []
    if first["figures"] and second["figures"]:
        differences += _diff_figures(first["figures"], second["figures"], limits)
    elif first["figures"] or second["figures"]:
        which = "second" if first["figures"] else "first"
        skipped.append(f"figures were not compared, because the {which} has none")
        # what was not read by one of them cannot differ
        differences = [d for d in differences if d.item != "evaluation_text"]
    free = {*allow, *NOTED}
    return CardDiff(tuple(_allow_difference(d) if d.section in free else d for d in differences), tuple(skipped))


def _allow_difference(difference: Difference) -> Difference:
    """The same difference where its section may differ."""
    return Difference(**{**asdict(difference), "within": True})


def _extract_environment(card: Mapping[str, Any]) -> dict[str, Any]:
    """Where a card was made."""
    return {**card["environment"], "kernels": card["kernels"]}


def _diff_documents(section: str, first: Any, second: Any, item: str = "") -> Iterator[Difference]:
    """Leaves of two JSON documents that are not equal, by their path."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            yield from _diff_documents(section, first.get(key), second.get(key), f"{item}.{key}".lstrip("."))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, pair in enumerate(zip(first, second, strict=True)):
            yield from _diff_documents(section, *pair, f"{item}[{index}]")
    elif first != second:
        yield Difference(section, item, first, second)


def _diff_numbers(
    section: str, item: str, first: float | None, second: float | None, allowed: float, *, relative: bool
) -> list[Difference]:
    """The difference of two numbers, as none or one; a number that only one card has is above every tolerance."""
    if first == second:
        return []
    if first is None or second is None:
        return [Difference(section, item, first, second)]
    change = abs(second - first)
    if relative:
        change = change / abs(first) if first else float("inf")
    return [Difference(section, item, first, second, change, allowed, change <= allowed)]


def _diff_ledgers(first: Mapping[str, Any], second: Mapping[str, Any], limits: Tolerances) -> Iterator[Difference]:
    """Bits per weight, stored and nominal, every stored item's bits over all weights, and the file's."""
    a, b = first["ledger"], second["ledger"]
    for item in ("bits_per_weight", "nominal_bits"):
        yield from _diff_numbers("ledger", item, a[item], b[item], limits.bits, relative=False)
    yield from _diff_numbers("ledger", "weights", a["weights"], b["weights"], 0, relative=False)
    shares = [{entry["item"]: entry["bits"] / book["weights"] for entry in book["entries"]} for book in (a, b)]
    for item in dict.fromkeys([*shares[0], *shares[1]]):
        yield from _diff_numbers(
            "ledger", f"item {item}", shares[0].get(item, 0.0), shares[1].get(item, 0.0), limits.bits, relative=False
        )
    files = first["file"], second["file"]
    if files[0] and files[1]:
        yield from _diff_numbers(
            "ledger",
            "file, bits per weight",
            files[0]["bits_per_weight"],
            files[1]["bits_per_weight"],
            limits.bits,
            relative=False,
        )


def _diff_errors(first: list[dict[str, Any]], second: list[dict[str, Any]], limits: Tolerances) -> Iterator[Difference]:
    """Each layer's errors; a layer that only one card has is a difference."""
    sides = [{line["name"]: line for line in lines} for lines in (first, second)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = sides[0].get(name), sides[1].get(name)
        if a is None or b is None:
            yield Difference("errors", name, "quantized" if a else "absent", "quantized" if b else "absent")
            continue
        for kind in ERROR_FIELDS:
            yield from _diff_numbers("errors", f"{name} {kind}", a[kind], b[kind], limits.error, relative=True)


def _diff_figures(first: Mapping[str, Any], second: Mapping[str, Any], limits: Tolerances) -> Iterator[Difference]:
    """What was measured; on other text or on another number of tokens figures cannot be compared, and only that is said."""
    conditions = [Difference("figures", name, first[name], second[name]) for name in CONDITIONS if first[name] != second[name]]
    if conditions:
        yield from conditions
        return
    rules = {
        "perplexity": (limits.perplexity, True),
        "perplexity_original": (limits.perplexity, True),
        "kl": (limits.kl, False),
        "top1_changed": (limits.top1, False),
    }
    for name, (allowed, relative) in rules.items():
        yield from _diff_numbers("figures", name, first[name], second[name], allowed, relative=relative)
    for name in ("writes_original", "writes"):
        if first[name] != second[name]:  # one token in another place rewrites all that follows: told, never a fault
            yield Difference("figures", name, first[name], second[name], within=True)


def shorten_value(value: Any) -> str:
    """A value short enough for a sentence."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:28]} … {text[-8:]}"
