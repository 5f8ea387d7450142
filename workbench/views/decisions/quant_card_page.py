"""A quant card as one HTML page that opens offline."""

import html
from collections.abc import Mapping
from typing import Any

from workbench.quantized import MODEL_REFINEMENT, describe_refinement
from workbench.recipe import LayerPlan
from workbench.views import theme as themes
from workbench.views.decisions.offline_page import render_document, render_figure_section, render_pairs_table
from workbench.views.figure import Figure

DRAW = """
const drawn = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const config = {displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]],
                toImageButtonOptions: {format: "svg", filename: "quant-card"}};
function draw() {
  for (const [name, modes] of Object.entries(drawn)) {
    const plot = modes[dark.matches ? "dark" : "light"];
    Plotly.react("plot-" + name, plot.data, plot.layout, config);
  }
}
draw();
dark.addEventListener("change", draw);
"""


def render_card_page(facts: dict[str, Any], answer: str, light: Mapping[str, Figure], dark: Mapping[str, Figure]) -> str:
    """The whole file: the facts, the card in one sentence, and its figures in both themes."""
    plots = {name: {"light": light[name].plot, "dark": dark[name].plot} for name in light}
    body = [
        f"<p>{html.escape(answer)}</p>",
        *(render_figure_section(name, figure) for name, figure in light.items()),
        *_render_generated_texts(facts["figures"]),
        _render_recipe_section(facts["recipe"]),
        _render_pairs_section(
            "Hashes", "Identification of everything that was measured: SHA-256, or its first 16 digits", _list_hashes(facts)
        ),
        _render_pairs_section("Environment", "Where this card was made", _list_environment(facts)),
        _render_pairs_section(
            "Times", "The only part that differs between two cards with the same recipe and seed", _list_times(facts["times"])
        ),
    ]
    return render_document(f"Quant card: {facts['model']['name']}", body, {"card": facts, "figures": plots}, DRAW)


def _render_generated_texts(written: dict[str, Any] | None) -> list[str]:
    """What both models write; nothing where nothing was run."""
    if not written:
        return []
    entries = [("original", written["writes_original"]), ("quantized", written["writes"])]
    return [_render_pairs_section("What do both models write?", "Greedy decoding after the same prompt", entries)]


def _render_recipe_section(facts: dict[str, Any]) -> str:
    """The plan as Python, and how it was calibrated."""
    plan = LayerPlan.from_dict(facts["plan"])
    rules = "\n".join(f"{pattern!r}: {recipe.code()}" for pattern, recipe in plan.rules)
    rows = {key: str(value) for key, value in {**facts["calibration"], **facts["fused"]}.items()}
    if refined := describe_refinement(facts["calibration"]):
        rows |= {MODEL_REFINEMENT: refined}
    calibration_rows = [(key.replace("_", " "), value) for key, value in rows.items()]
    calibration = render_pairs_table("How it was calibrated", calibration_rows) if calibration_rows else ""
    return (
        '<section aria-labelledby="head-recipe"><h2 id="head-recipe">Which recipe?</h2><p>Layers by pattern, in Python:</p>'
        f"<pre>{html.escape(rules)}</pre>{calibration}</section>"
    )


def _list_hashes(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Every fingerprint, one row each, and the seed."""
    digests = facts["hashes"]
    named = {"original weights": digests.get("original"), "calibration text": digests["calibration_text"]}
    named |= {"evaluation text": digests.get("evaluation_text"), "seed": facts.get("seed")}
    named |= {f"layer {name}": value for name, value in digests["layers"].items()}
    named |= {f"changed tensor {name}": value for name, value in digests["changed_tensors"].items()}
    return [(name, "–" if value is None else str(value)) for name, value in named.items()]


def _list_environment(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Versions, the processor, and which kernels ran."""
    ran = ", ".join(f"{themes.format_count(count, 'layer')} by {name}" for name, count in facts["kernels"].items())
    return [*facts["environment"].items(), ("kernels", ran)]


def _list_times(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """When, and how long it took."""
    return [
        ("made", facts["made"]),
        ("quantizing", themes.format_duration(facts["quantizing"])),
        *([("training the whole model", themes.format_duration(facts["refining"]))] if "refining" in facts else []),
        ("measuring", themes.format_duration(facts["card"])),
    ]


def _render_pairs_section(title: str, caption: str, entries: list[tuple[str, str]]) -> str:
    """A section that is one table of names and values; a long one is folded."""
    name = title.lower().split()[0]
    body = render_pairs_table(caption, entries)
    if len(entries) > 12:
        body = f"<details><summary>{html.escape(caption)}</summary>{body}</details>"
    return f'<section aria-labelledby="head-{name}"><h2 id="head-{name}">{html.escape(title)}</h2>{body}</section>'
