"""The looks of HoloViews pictures: colours and fonts of the page, colour scales, and names of axes.

HoloViews draws what is too large for one message to a browser, again for what is visible after each zoom. It is imported when the
first such picture is drawn.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from types import ModuleType
from typing import Any

import numpy as np

from workbench.views import theme as themes
from workbench.views.theme import Theme

PICTURE_HEIGHT = themes.FIGURE_HEIGHT
FONT_SIZES = {"title": "13px", "labels": "13px", "ticks": "12px"}
TICKS = 5  # numbers on an axis, about
_numbers = count()


@cache
def load_holoviews() -> ModuleType:
    """HoloViews with its Bokeh backend, loaded once."""
    import holoviews as hv
    from holoviews.plotting import bokeh  # noqa: F401  it registers how everything is drawn

    hv.Store.set_current_backend("bokeh")
    return hv


def name_axes(x: str, y: str) -> list[Any]:
    """Two dimensions with these labels.

    Panel links the axes of all pictures on a page whose dimensions have the same name, so these names are never given again.
    """
    hv, number = load_holoviews(), next(_numbers)
    return [hv.Dimension(f"{axis}{number}", label=label) for axis, label in (("x", x), ("y", y))]


def build_diverging_palette() -> list[str]:
    """The scale of differences, from −1 to 1, in 255 colours, white in the middle."""
    from bokeh.palettes import interp_palette

    return list(interp_palette(tuple(str(colour) for _, colour in themes.DIVERGING), 255))


def build_sequential_palette() -> list[str]:
    """Cividis."""
    from bokeh.palettes import Cividis256

    return list(Cividis256)


def locate_cells(
    axes: Sequence[Any], window: tuple[int, int, int, int], shape: tuple[int, int], steps: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Where the centres of the cells of a window lie, by axis: `shape` cells of `steps` rows and columns."""
    (top, _, left, _), (height, width), (row_step, col_step) = window, shape, steps
    return {
        axes[0].name: left - 0.5 + col_step * (np.arange(width) + 0.5),
        axes[1].name: top - 0.5 + row_step * (np.arange(height) + 0.5),
    }


def build_picture_options(x: tuple[float, float], y: tuple[float, float]) -> dict[str, Any]:
    """What every picture of a matrix has in common; `x` and `y` are what its axes reach."""
    return {
        "xlim": x,
        "ylim": y,
        "colorbar": True,
        "framewise": True,
        "invert_yaxis": True,
        "responsive": True,
        "height": PICTURE_HEIGHT,
        "toolbar": "above",
        "fontsize": FONT_SIZES,
        "active_tools": ["box_zoom"],
    }


def style_figure(theme: Theme) -> Callable[[Any, Any], None]:
    """A hook that gives a Bokeh figure the colours and fonts of the page."""

    def apply(plot: Any, _: Any) -> None:
        from bokeh.models import ResetTool

        figure, toolbar = plot.state, plot.state.toolbar
        # a browser's own reset knows only the first window that it was sent; a button shows the whole matrix
        toolbar.update(logo=None, tools=[tool for tool in toolbar.tools if not isinstance(tool, ResetTool)])
        figure.update(
            background_fill_color=theme.surface,
            border_fill_color=theme.surface,
            outline_line_color=theme.border,
            min_border_right=8,
        )
        figure.title.update(text_color=theme.text, text_font=themes.FONT, text_font_style="normal")
        for axis in figure.axis:
            axis.ticker.update(desired_num_ticks=TICKS)
            axis.update(
                axis_label_text_color=theme.muted,
                axis_label_text_font=themes.FONT,
                axis_label_text_font_size=FONT_SIZES["labels"],
                axis_label_text_font_style="normal",
                major_label_text_color=theme.muted,
                major_label_text_font=themes.FONT,
                major_label_text_font_size=FONT_SIZES["ticks"],
                axis_line_color=theme.border,
                major_tick_line_color=theme.border,
                minor_tick_line_color=None,
            )
        for bar in _list_colour_bars(figure):
            bar.update(
                background_fill_color=None,
                title_text_color=theme.muted,
                title_text_font=themes.FONT,
                title_text_font_size="12px",
                title_text_font_style="normal",
                major_label_text_color=theme.muted,
                major_label_text_font=themes.FONT,
                major_label_text_font_size="11px",
                major_tick_line_color=theme.muted,
                bar_line_color=None,
                width=12,
            )

    return apply


def follow_linked_axes(plot: Any, _: Any) -> None:
    """A hook for the picture whose axes are heard: it reads them also where Panel has exchanged them for another picture's.

    Panel 1.9 links the axes of a figure and forgets the pictures in it, which would go on telling of axes that nobody sees.
    """
    if "linked" not in plot.handles:
        plot.handles["linked"] = True
        for name in ("x_range", "y_range"):
            plot.state.on_change(name, lambda _attribute, _old, new, name=name: plot.handles.update({name: new}))


def bound_axes(shape: tuple[int, int]) -> Callable[[Any, Any], None]:
    """A hook that keeps the view inside a matrix of this shape, whose weight number 3 reaches from 2.5 to 3.5."""

    def apply(plot: Any, _: Any) -> None:
        for axis, size in ((plot.handles["x_range"], shape[1]), (plot.handles["y_range"], shape[0])):
            axis.update(bounds=(-0.5, size - 0.5), min_interval=min(2, size))
        for axis in plot.state.axis:
            axis.ticker.update(min_interval=1)  # weights have whole numbers

    return apply


def show_magnitudes(limit: float) -> Callable[[Any, Any], None]:
    """A hook for a picture whose colours mirror at 0: its colour bar has magnitudes only."""

    def apply(plot: Any, _: Any) -> None:
        from bokeh.models import LinearColorMapper

        for bar in _list_colour_bars(plot.state):
            bar.color_mapper = LinearColorMapper(palette=build_sequential_palette(), low=0, high=limit)

    return apply


def _list_colour_bars(figure: Any) -> Sequence[Any]:
    """The colour bars of a Bokeh figure."""
    from bokeh.models.annotations import ColorBar

    bars: Sequence[Any] = [part for part in figure.right if isinstance(part, ColorBar)]
    return bars
