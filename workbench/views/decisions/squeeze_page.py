"""The squeeze as one HTML page without a server: a slider over precomputed stops, with texts, layers, levels and bits."""

import html
from pathlib import Path
from typing import Any

import workbench
from workbench.analysis.decisions.squeeze import tabulate_stops
from workbench.analysis.decisions.squeeze_page import LayerPicture, SqueezePage, StopPage
from workbench.analysis.weights.weight_sketch import Histogram
from workbench.atomic import write_file
from workbench.outputs import check_file
from workbench.views import theme as themes
from workbench.views.decisions import bit_ledger, squeeze
from workbench.views.decisions.headline import describe_perplexity_ratio, list_headline_numbers
from workbench.views.decisions.offline_page import render_document, render_figure_section, render_table
from workbench.views.figure import Figure
from workbench.views.predictions import generation
from workbench.views.predictions.kl_tint import render_tint_legend
from workbench.views.theme import DARK, LIGHT, Theme
from workbench.views.weights import layer_map, matrix

SCRIPT = (Path(__file__).parent / "squeeze_page.js").read_text(encoding="utf-8")
MODES = {"light": LIGHT, "dark": DARK}
MAX_DRAWN_LEVELS = 64
CSS = (
    ".dark{display:none}@media (prefers-color-scheme:dark){.dark{display:block}.light{display:none}}"
    "[hidden]{display:none!important}.bar{position:sticky;top:0;z-index:2}input[type=range]{width:100%;accent-color:var(--action)}"
    "select{font:inherit;color:inherit;background:var(--surface);border:1px solid var(--muted);border-radius:4px;padding:4px}"
    "input:focus-visible,select:focus-visible{outline:2px solid var(--action);outline-offset:2px}"
    "dl{display:flex;flex-wrap:wrap;gap:4px 24px;margin:4px 0}dt,dd small{color:var(--muted);font-size:.8rem;display:block}"
    "dd{margin:0;font-size:1.25rem;font-weight:600}dd small{font-weight:400}"
    ".texts{display:grid;grid-template-columns:repeat(auto-fit,minmax(260px,1fr));gap:12px}"
    ".texts>div{border-left:4px solid var(--muted);padding-left:10px;overflow-wrap:anywhere;white-space:pre-wrap}"
    ".texts h3{font-size:1rem;margin:0;white-space:normal}.prompt{color:var(--muted)}"
    "mark{background:var(--action);color:var(--page);border-radius:2px;padding:0 1px;text-decoration:underline}"
    ".plot{min-height:120px}"
)


def save_squeeze_page(page: SqueezePage, path: Path) -> Path:
    """Write the page, whole or not at all.

    Args:
        page: What `collect_page_steps` found.
        path: The HTML file.

    Returns:
        The path.

    Raises:
        OutputError: Where the file cannot be written.
    """
    check_file(path)
    write_file(path, render_squeeze_page(page).encode())
    return path


def render_squeeze_page(page: SqueezePage) -> str:
    """The whole file."""
    last = page.stops[-1].squeezed
    title = f"{page.source} from {themes.format_bits(page.stops[0].squeezed.bits_per_weight)} to "
    title += f"{themes.format_bits(last.bits_per_weight)} stored bits per weight"
    curve = {mode: squeeze.draw_squeeze_curve(tabulate_stops([stop.squeezed for stop in page.stops]), None, theme=theme)
             for mode, theme in MODES.items()}  # fmt: skip
    introduction = (
        "Every stop of the slider is a real packed model. Its text, its perplexity and the weights of its layers were computed "
        f"once, by the quantization workbench {workbench.__version__}; this file needs no server and no network."
    )
    notes = (
        f"Perplexity on the text “{page.evaluation}” with 95 % intervals over documents; each model continues the prompt with "
        "its most likely token. Stored bits count everything that the layers' files hold."
    )
    body = [
        f"<p>{html.escape(introduction)}</p>",
        _render_slider(page),
        *(_render_stop(page, number) for number in range(len(page.stops))),
        _render_plot("map", "Which layers lose the most?"),
        _render_layers(page),
        _render_plot("ledger", "Where do the bits go?"),
        render_figure_section("curve", curve["light"]),
        f"<p>{html.escape(notes)}</p>",
    ]
    plots = {
        "stops": [_collect_plots(stop) for stop in page.stops],
        "curve": {mode: figure.plot for mode, figure in curve.items()},
        "histogram": _collect_histogram_layouts(page),
    }
    layers = [_collect_layer(page, name) for name in page.originals]
    return render_document(title, body, {"plots": plots, "layers": layers}, SCRIPT, CSS)


def _render_slider(page: SqueezePage) -> str:
    names = html.escape("|".join(_name_stop(stop) for stop in page.stops))
    return (
        '<section class="bar"><label for="slider">Squeeze the model: </label><output id="bits" for="slider"></output>'
        f'<input id="slider" type="range" min="0" max="{len(page.stops) - 1}" value="0" step="1" data-names="{names}"></section>'
    )


def _name_stop(stop: StopPage) -> str:
    bits = themes.format_bits(stop.squeezed.bits_per_weight)
    return f"{bits} stored bits ({'the original' if stop.squeezed.stop.is_original else stop.squeezed.stop.preset})"


def _render_stop(page: SqueezePage, number: int) -> str:
    """The figures and texts of one stop."""
    stop = page.stops[number]
    numbers = "".join(
        f"<div><dt>{html.escape(figure.label)}</dt><dd>{html.escape(figure.value)}<small>{html.escape(figure.beneath)}</small></dd></div>"
        for figure in list_headline_numbers(stop.squeezed)[:-1]  # speed is that of the machine that made the page
    )
    comparisons = {
        mode: generation.build_text_comparison(page.prompt, stop.writing, theme=theme) for mode, theme in MODES.items()
    }
    texts = "".join(
        f'<div class="{mode}"><div class="texts"><div><h3>original</h3>{comparison.original}</div>'
        f"<div><h3>{html.escape(_name_stop(stop))}</h3>{comparison.quantized}</div></div>{render_tint_legend(MODES[mode])}</div>"
        for mode, comparison in comparisons.items()
    )
    table = render_table(comparisons["light"].table, "Both texts, token by token")
    return (
        f'<div class="stop" data-stop="{number}" hidden><section aria-label="Figures"><dl>{numbers}</dl>'
        f"<p>{html.escape(describe_perplexity_ratio(stop.squeezed))}</p></section>"
        f"<section><h2>What does it write?</h2><p>{html.escape(comparisons['light'].answer)}</p>{texts}"
        f"<details><summary>Show as table</summary>{table}</details></section></div>"
    )


def _render_plot(name: str, question: str, control: str = "") -> str:
    """A place for a plot that follows the slider, with its sentence and its table; `control` is HTML below the question."""
    return (
        f'<section aria-labelledby="head-{name}"><h2 id="head-{name}">{html.escape(question)}</h2>{control}'
        f'<p id="answer-{name}" aria-live="polite"></p>'
        f'<div id="plot-{name}" class="plot" role="group" aria-labelledby="answer-{name}"></div>'
        f'<details><summary>Show as table</summary><div id="table-{name}"></div></details></section>'
    )


def _render_layers(page: SqueezePage) -> str:
    options = "".join(f"<option>{html.escape(name)}</option>" for name in page.originals)
    menu = f'<label>Layer <select id="layer">{options}</select></label>'
    return _render_plot("histogram", "Which values do the weights of this layer take?", menu)


def _collect_plots(stop: StopPage) -> dict[str, Any]:
    """The layer map and the ledger of a stop, in both modes, with their sentences and tables."""
    drawn = {}
    for name, draw in (("map", _draw_map), ("ledger", _draw_ledger)):
        figures = {mode: draw(stop, theme) for mode, theme in MODES.items()}
        drawn[name] = {
            **{mode: figure.plot for mode, figure in figures.items()},
            "answer": figures["light"].answer,
            "table": render_table(figures["light"].table, figures["light"].question),
        }
    return drawn


def _draw_map(stop: StopPage, theme: Theme) -> Figure:
    column = "output_error" if stop.layers["output_error"].notna().all() else "relative_error"
    return layer_map.draw_layer_map(stop.layers, column, None, theme=theme)


def _draw_ledger(stop: StopPage, theme: Theme) -> Figure:
    coverage = stop.squeezed.coverage
    return bit_ledger.draw_bit_ledger(stop.ledger, scope="the quantized part", coverage=coverage, theme=theme)


def _collect_histogram_layouts(page: SqueezePage) -> dict[str, Any]:
    """The layout of a histogram in each mode, without what belongs to one layer, and the colours of its bars and levels."""
    example = next(iter(page.originals.values()))
    layouts = {}
    for mode, theme in MODES.items():
        plot = matrix.draw_histogram(example, example, None, theme=theme).plot
        layouts[mode] = {
            "data": [trace | {"x": [], "y": []} for trace in plot["data"]],
            "layout": plot["layout"],
            "level": theme.quantized,
        }
    return layouts


def _collect_layer(page: SqueezePage, name: str) -> dict[str, Any]:
    """The counts of one layer before, and at each stop after, with the levels that can be drawn."""
    original = page.originals[name]
    stops = [_collect_picture(original, stop.pictures.get(name)) for stop in page.stops]
    return {"low": original.low, "high": original.high, "counts": original.counts.tolist(), "stops": stops}


def _collect_picture(original: Histogram, picture: LayerPicture | None) -> dict[str, Any]:
    if picture is None:
        return {"answer": matrix.describe_histogram(original, None, None, "this layer"), "counts": [], "levels": []}
    levels = picture.levels
    few = levels is not None and len(levels.values) <= MAX_DRAWN_LEVELS
    return {
        "answer": matrix.describe_histogram(original, picture.histogram, levels, "this layer"),
        "counts": picture.histogram.counts.tolist(),
        "levels": [round(float(value), 6) for value in levels.values] if few and levels is not None else [],
    }
