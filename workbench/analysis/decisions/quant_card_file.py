"""Reading a quant card, JSON or HTML: every field that a figure or a comparison uses is checked."""

from pathlib import Path
from typing import Any

from workbench.artifact.documents import check_model_refinement
from workbench.bits import BitLedger
from workbench.errors import ArtifactError
from workbench.json_value import JsonValue, decode, parse, read_content, shorten_value

KIND, VERSION = "workbench quant card", 1
START, END = '<script type="application/json" id="card">', "</script>"
MAKE_CARD_ADVICE = "make one with `workbench card DIR --out card.html`"
FIGURES = ("perplexity", "perplexity_original", "kl", "top1_changed")  # each with an interval
TEXTS = ("text", "prompt", "writes_original", "writes")


def read_facts(path: str | Path) -> dict[str, Any]:
    """The facts of a saved card, JSON or HTML; ArtifactError where the file is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ArtifactError(f"there is no card {str(file)!r}; {MAKE_CARD_ADVICE}.")
    return parse_facts(read_content(file, f"the card {file}", ArtifactError), f"the card {file}")


def parse_facts(content: bytes, document: str) -> dict[str, Any]:
    """The facts of a card from a file's content; `document` names it in sentences."""
    text = decode(content, document, ArtifactError)
    if START in text:
        text = text.partition(START)[2].partition(END)[0]
    elif text.lstrip().startswith("<"):
        raise ArtifactError(f"{document} is a page, but not a quant card; {MAKE_CARD_ADVICE}.")
    value = parse(text, document, ArtifactError)
    fields = value.value if isinstance(value.value, dict) else {}
    kind, version = fields.get("kind"), fields.get("version")
    if kind != KIND:
        raise ArtifactError(f"{document} is not a quant card; {MAKE_CARD_ADVICE}.")
    if version != VERSION:
        raise ArtifactError(
            f"{document} is {kind!r} version {shorten_value(version)}; this workbench reads {KIND!r} version {VERSION}."
        )
    check_facts(value)
    return value.value


def check_facts(value: JsonValue) -> None:
    """ArtifactError for a field that is missing or of another type; what a later release adds stays as it is."""
    model = _require_field(value, "model")
    _require_field(model, "name").as_text()
    _require_field(model, "quantized_layers").as_whole()
    for name in ("plan", "calibration", "fused"):
        _require_field(_require_field(value, "recipe"), name).as_object()
    check_model_refinement(_require_field(_require_field(value, "recipe"), "calibration"))
    BitLedger.from_dict(_require_field(value, "ledger"))
    for name in ("bits_per_weight", "nominal_bits"):
        _require_field(_require_field(value, "ledger"), name).as_number(0)
    if (coverage := value.find("coverage")) is not None:
        coverage.as_optional(lambda share: share.as_number(0, 1))
    if (overall := value.find("bits_overall")) is not None:
        overall.as_optional(lambda bits: bits.as_number(0))
    if (unquantized := value.find("unquantized")) is not None:
        for weights in unquantized.values():
            weights.as_whole()
    _require_field(value, "file").as_optional(check_file)
    for layer in _require_field(value, "layers").elements():
        _check_layer(layer)
    _require_field(value, "figures").as_optional(_check_figures)
    _check_origin(value)


def _require_field(value: JsonValue, name: str) -> JsonValue:
    """A field that every card has."""
    return value.get(name, MAKE_CARD_ADVICE)


def check_file(value: JsonValue) -> None:
    """What the file of a saved model takes."""
    _require_field(value, "bits_per_weight").as_number(0)


def _check_layer(value: JsonValue) -> None:
    """One quantized layer."""
    _require_field(value, "name").as_text()
    for name in ("rows", "cols"):
        _require_field(value, name).as_whole(1)
    for name in ("bits_per_weight", "nominal_bits"):
        _require_field(value, name).as_number(0)
    for name in ("relative_error", "output_error"):
        _require_field(value, name).as_optional(JsonValue.as_number)


def _check_figures(value: JsonValue) -> None:
    """What was measured."""
    _require_field(value, "tokens").as_whole(1)
    for name in TEXTS:
        _require_field(value, name).as_text()
    for name in FIGURES:
        _require_field(value, name).as_number()
        _require_field(value, f"{name}_interval").as_optional(_check_interval)
    if (ratio := value.find("ratio")) is not None:  # cards of earlier releases have none
        ratio.as_number(0)
        _require_field(value, "ratio_interval").as_optional(_check_interval)


def _check_interval(value: JsonValue) -> None:
    """Both ends of an interval."""
    if len([end.as_number() for end in value.elements()]) != 2:
        raise value.wrong("a list of two numbers")


def _check_origin(value: JsonValue) -> None:
    """From what, where and when."""
    hashes = _require_field(value, "hashes")
    _require_field(hashes, "calibration_text")
    for name in ("layers", "changed_tensors"):
        for digest in _require_field(hashes, name).values():
            digest.as_text()
    if (seed := value.find("seed")) is not None:  # drew the intervals of earlier releases
        seed.as_whole()
    for count in _require_field(value, "kernels").values():
        count.as_whole()
    for word in _require_field(value, "environment").values():
        word.as_text()
    times = _require_field(value, "times")
    _require_field(times, "made").as_text()
    for name in ("quantizing", "card"):
        _require_field(times, name).as_number(0)
    if (refining := times.find("refining")) is not None:
        refining.as_number(0)
