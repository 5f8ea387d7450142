"""HTML pages that open offline: plotly.js inlined once, both colour modes, headings, captions and a table for each figure."""

import html
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from workbench.analysis import glossary
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import DARK, LIGHT, Theme

# nothing may be loaded from anywhere: what is not in this file does not exist for it
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def render_document(title: str, body: Iterable[str], documents: Mapping[str, Any], script: str, css: str = "") -> str:
    """A whole HTML file.

    Args:
        title: The page's title and first heading, as text.
        body: What stands below the heading, as HTML.
        documents: JSON documents that `script` reads from elements of these ids.
        script: JavaScript that runs once the page is there; `Plotly` is.
        css: Style beside that of all pages.
    """
    from plotly.offline import get_plotlyjs

    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_render_page_css()}{css}</style>",
            f"<script>{get_plotlyjs()}</script>",
            "</head><body><main>",
            f"<h1>{html.escape(title)}</h1>",
            *body,
            "</main>",
            *(
                f'<script type="application/json" id="{name}">{encode_script_json(document)}</script>'
                for name, document in documents.items()
            ),
            f"<script>{script}</script>",
            "</body></html>",
        ]
    )


def encode_script_json(document: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _render_page_css() -> str:
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
        cells = "".join(_render_cell(column, entry) for column, entry in rest)
        lines.append(f'<tr><th scope="row">{html.escape(glossary.format_value(first, value))}</th>{cells}</tr>')
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _render_cell(column: str, value: Any) -> str:
    """One entry of a table."""
    number = "" if isinstance(value, str) else ' class="number"'
    return f"<td{number}>{html.escape(glossary.format_value(column, value))}</td>"


def render_pairs_table(caption: str, entries: list[tuple[str, str]]) -> str:
    """Names and values as a table."""
    lines = (f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in entries)
    return f"<table><caption>{html.escape(caption)}</caption><tbody>{''.join(lines)}</tbody></table>"
