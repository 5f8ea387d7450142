"""Text on a page: what a token, a file or a model says is shown letter by letter and never read as code."""

import ast
from pathlib import Path

import pandas as pd
import pytest

import workbench
from workbench.views.figure import Figure, escape_labels
from workbench.widgets.base import markup

PLANTED = "<img src=x onerror=alert(1)> & <s>"
SHOWN = "&lt;img src=x onerror=alert(1)&gt; &amp; &lt;s&gt;"
WIDGETS = Path(workbench.__file__).parent / "widgets"


@pytest.mark.parametrize(
    "write",
    [markup.render_paragraph, markup.render_small_note, markup.render_code, lambda text: markup.render_heading(text, text)],
)
def test_sentences_are_escaped(write: object) -> None:
    assert callable(write)
    html = write(PLANTED)
    assert SHOWN in html
    assert "<img" not in html


def test_labels_of_figures_are_escaped_and_their_line_breaks_stay() -> None:
    trace = {"type": "bar", "x": ["<s>", "a"], "y": [1, 2.5], "text": "one<br>two <b>", "customdata": [["<s>", 3]], "z": [[1]]}
    axis = {"tickvals": [0], "ticktext": ["<s>"], "title": {"text": "x<sub>1</sub>"}}
    plot = Figure("?", "!", {"data": [trace], "layout": {"yaxis": axis}}, pd.DataFrame()).plot
    expected = {"x": ["&lt;s&gt;", "a"], "text": "one<br>two &lt;b&gt;", "customdata": [["&lt;s&gt;", 3]]}
    assert plot["data"] == [trace | expected]
    assert plot["layout"]["yaxis"] == axis | {"ticktext": ["&lt;s&gt;"]}
    assert escape_labels(range(3)) == range(3)


def test_no_widget_writes_unescaped_text_into_html() -> None:
    """A pane of HTML takes what `markup` wrote, or a constant, or text that is escaped where it stands."""
    wrong = [
        f"{path.name}:{line}" for path in sorted(WIDGETS.rglob("*.py")) for line in raw_interpolations(path.read_text("utf-8"))
    ]
    assert not wrong


def test_the_rule_sees_a_planted_fault() -> None:
    assert raw_interpolations("pane.object = f'<p>{token}</p>'") == [1]
    assert raw_interpolations("pn.pane.HTML(f'<p>{token}</p>')") == [1]
    assert raw_interpolations("pane.object = f'<p>{escape(token)}</p>'") == []
    assert raw_interpolations("pane.object = paragraph(f'{token} is likely')") == []


def raw_interpolations(source: str) -> list[int]:
    """The lines that put an f-string with tags and unescaped text into a pane."""
    found = []
    for node in ast.walk(ast.parse(source)):
        given = shown_values(node)
        for text in (part for value in given for part in ast.walk(value) if isinstance(part, ast.JoinedStr)):
            tags = any(isinstance(part, ast.Constant) and "<" in str(part.value) for part in text.values)
            if tags and any(isinstance(part, ast.FormattedValue) and not is_safe(part) for part in text.values):
                found.append(text.lineno)
    return found


def shown_values(node: ast.AST) -> list[ast.expr]:
    """What a statement puts on the page: the value of `….object = …`, the first argument of `….HTML(…)`."""
    if isinstance(node, ast.Assign) and any(isinstance(to, ast.Attribute) and to.attr == "object" for to in node.targets):
        return [node.value]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "HTML":
        return node.args[:1]
    return []


def is_safe(part: ast.FormattedValue) -> bool:
    """An escaped text, a number with a format, a colour of the theme, or a constant."""
    value = part.value
    if isinstance(value, ast.Call):
        return getattr(value.func, "id", getattr(value.func, "attr", "")) == "escape"
    colour = isinstance(value, ast.Attribute) and getattr(value.value, "id", "") == "colours"
    return part.format_spec is not None or colour or getattr(value, "id", "a").isupper()
