"""A quant card as one HTML page: plotly.js inlined once, both colour modes, headings, captions and a table for each figure."""

import html
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.analysis import glossary
from workbench.recipe import LayerPlan
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import DARK, LIGHT, Theme

# nothing may be loaded from anywhere: what is not in this file does not exist for it
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
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
    from plotly.offline import get_plotlyjs

    plots = {name: {"light": light[name].plot, "dark": dark[name].plot} for name in light}
    title = f"Quant card: {facts['model']['name']}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{render_page_css()}</style>",
            f"<script>{get_plotlyjs()}</script>",
            "</head><body><main>",
            f"<h1>{html.escape(title)}</h1><p>{html.escape(answer)}</p>",
            *(render_figure_section(name, figure) for name, figure in light.items()),
            *render_generated_texts(facts["figures"]),
            render_recipe_section(facts["recipe"]),
            render_pairs_section(
                "Hashes", "Identification of everything that was measured: SHA-256, or its first 16 digits", list_hashes(facts)
            ),
            render_pairs_section("Environment", "Where this card was made", list_environment(facts)),
            render_pairs_section(
                "Times", "The only part that differs between two cards with the same recipe and seed", list_times(facts["times"])
            ),
            "</main>",
            f'<script type="application/json" id="card">{encode_script_json(facts)}</script>',
            f'<script type="application/json" id="figures">{encode_script_json(plots)}</script>',
            f"<script>{DRAW}</script>",
            "</body></html>",
        ]
    )


def encode_script_json(document: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def render_page_css() -> str:
    """The page's colours in both modes, as variables."""

    def variables(theme: Theme) -> str:
        names = ("page", "surface", "raised", "text", "muted", "border", "action")
        return "".join(f"--{name}:{getattr(theme, name)};" for name in names)

    return (
        f":root{{color-scheme:light dark;{variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
        f"body{{margin:0;background:var(--page);color:var(--text);font:15px/1.5 {themes.FONT}}}"
        "main{max-width:1000px;margin:0 auto;padding:16px}"
        "section{background:var(--surface);border:1px solid var(--border);border-radius:10px;padding:12px 16px;margin:12px 0}"
        "h1{font-size:1.5rem;margin:8px 0}h2{font-size:1.15rem;margin:4px 0}p{margin:4px 0}figure{margin:0}"
        "table{border-collapse:collapse;font-size:.85rem;margin:8px 0}caption{text-align:left;color:var(--muted);padding:4px 0}"
        "th,td{border-bottom:1px solid var(--border);padding:3px 10px 3px 0;text-align:left;vertical-align:top;"
        "}th{font-weight:600}td{overflow-wrap:anywhere}.wide td{overflow-wrap:normal}"
        "td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
        "summary{cursor:pointer;color:var(--action);padding:4px 0}summary:focus-visible{outline:2px solid var(--action)}"
        ".wide{overflow-x:auto}pre{white-space:pre-wrap;background:var(--raised);padding:8px;border-radius:6px;font-size:.85rem}"
    )


def render_figure_section(name: str, figure: Figure) -> str:
    """One figure: question, answer, plot, and the same as a table."""
    question, answer = html.escape(figure.question), html.escape(figure.answer)
    return (
        f'<section aria-labelledby="head-{name}"><h2 id="head-{name}">{question}</h2><figure>'
        f'<figcaption>{answer}</figcaption><div id="plot-{name}" role="group" aria-label="{answer}"></div></figure>'
        f"<details><summary>Show as table</summary>{render_table(figure.table, question)}</details></section>"
    )


def render_table(frame: pd.DataFrame, caption: str) -> str:
    """A DataFrame with the glossary's headers and number formats; the first column heads its row."""
    columns = [(html.escape(glossary.label_column(column)), html.escape(glossary.explain_column(column))) for column in frame]
    head = "".join(f'<th scope="col" title="{meaning}">{label}</th>' for label, meaning in columns)
    lines = []
    for line in frame.to_dict("records"):
        (first, value), *rest = line.items()
        cells = "".join(render_cell(column, entry) for column, entry in rest)
        lines.append(f'<tr><th scope="row">{html.escape(glossary.format_value(first, value))}</th>{cells}</tr>')
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def render_cell(column: str, value: Any) -> str:
    """One entry of a table."""
    number = "" if isinstance(value, str) else ' class="number"'
    return f"<td{number}>{html.escape(glossary.format_value(column, value))}</td>"


def render_generated_texts(written: dict[str, Any] | None) -> list[str]:
    """What both models write; nothing where nothing was run."""
    if not written:
        return []
    entries = [("original", written["writes_original"]), ("quantized", written["writes"])]
    return [render_pairs_section("What do both models write?", "Greedy decoding after the same prompt", entries)]


def render_recipe_section(facts: dict[str, Any]) -> str:
    """The plan as Python, and how it was calibrated."""
    plan = LayerPlan.from_dict(facts["plan"])
    rules = "\n".join(f"{pattern!r}: {recipe.code()}" for pattern, recipe in plan.rules)
    calibration_rows = [(key, str(value)) for key, value in {**facts["calibration"], **facts["fused"]}.items()]
    calibration = render_pairs_table("How it was calibrated", calibration_rows) if calibration_rows else ""
    return (
        '<section aria-labelledby="head-recipe"><h2 id="head-recipe">Which recipe?</h2><p>Layers by pattern, in Python:</p>'
        f"<pre>{html.escape(rules)}</pre>{calibration}</section>"
    )


def list_hashes(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Every fingerprint, one row each, and the seed."""
    digests = facts["hashes"]
    named = {"original weights": digests.get("original"), "calibration text": digests["calibration_text"]}
    named |= {"evaluation text": digests.get("evaluation_text"), "seed": facts.get("seed")}
    named |= {f"layer {name}": value for name, value in digests["layers"].items()}
    named |= {f"changed tensor {name}": value for name, value in digests["changed_tensors"].items()}
    return [(name, "–" if value is None else str(value)) for name, value in named.items()]


def list_environment(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Versions, the processor, and which kernels ran."""
    ran = ", ".join(f"{themes.format_count(count, 'layer')} by {name}" for name, count in facts["kernels"].items())
    return [*facts["environment"].items(), ("kernels", ran)]


def list_times(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """When, and how long it took."""
    return [
        ("made", facts["made"]),
        ("quantizing", themes.format_duration(facts["quantizing"])),
        ("measuring", themes.format_duration(facts["card"])),
    ]


def render_pairs_section(title: str, caption: str, entries: list[tuple[str, str]]) -> str:
    """A section that is one table of names and values; a long one is folded."""
    name = title.lower().split()[0]
    body = render_pairs_table(caption, entries)
    if len(entries) > 12:
        body = f"<details><summary>{html.escape(caption)}</summary>{body}</details>"
    return f'<section aria-labelledby="head-{name}"><h2 id="head-{name}">{html.escape(title)}</h2>{body}</section>'


def render_pairs_table(caption: str, entries: list[tuple[str, str]]) -> str:
    """Names and values as a table."""
    lines = (f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in entries)
    return f"<table><caption>{html.escape(caption)}</caption><tbody>{''.join(lines)}</tbody></table>"
