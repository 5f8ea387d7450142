"""One transformer block as a drawing: its matrices are buttons, in the order in which the data goes through them."""

import html
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis import glossary
from workbench.views import theme as themes
from workbench.views.layer_names import label_block, shorten_matrix_name
from workbench.views.theme import Theme
from workbench.views.weights.layer_map import SIGNED

SHOWN = 8  # matrices of one part of a block that are drawn; the menu has all
EQUAL_CONTRAST = 0.179  # luminance (WCAG) at which white and black read equally well
LEAVES_LAST = 2  # matrices from which on the last one is taken to be what a part of the block ends in


def draw_block(
    layers: pd.DataFrame, selected: str, column: str, marked: Collection[str] = (), *, theme: Theme = themes.LIGHT
) -> str:
    """HTML of the block of the `selected` layer: a button for each matrix, tinted by `column` as on the map of all `layers`;
    `data-place` is its row in `layers`."""
    table = layers.reset_index(drop=True).assign(position=range(len(layers)))
    number = table.loc[table["name"] == selected, "block"].iloc[0]
    is_same = table["block"].isna() if pd.isna(number) else table["block"] == number
    block = table[is_same]
    attention = block["matrix"].str.contains("attn|attention", regex=True)
    tints = _compute_tints(table[column], column, block["position"].tolist())
    parts = [("attention", block[attention]), ("MLP" if attention.any() else "layers", block[~attention])]
    rows = "".join(_draw_part(title, part, selected, column, marked, tints) for title, part in parts if len(part))
    title = f"Block {label_block(number)}" if not pd.isna(number) else "Outside the blocks"
    return (
        f"{_render_style(theme)}<section aria-label='{title}: its matrices'>"
        f"<h3 style='margin:0;font-size:0.9rem'>{title} "
        f"<small style='font-weight:normal;color:{theme.muted}'>which matrix is where</small></h3>{rows}</section>"
    )


def _draw_part(title: str, part: pd.DataFrame, selected: str, column: str, marked: Collection[str], tints: dict[int, str]) -> str:
    """Attention or MLP: what reads the residual stream, what happens between, and what writes back."""
    shown = part.iloc[:SHOWN]
    buttons = [_draw_button(line, line.name == selected, column, line.name in marked, tints) for line in shown.itertuples()]
    if len(part) > SHOWN:
        buttons.append(f"<span class='more'>and {len(part) - SHOWN} more</span>")
    arrow = "<span aria-hidden='true' class='arrow'>→</span>"
    inside = "softmax(qkᵀ)·v" if title == "attention" else "activation"
    if len(part) < LEAVES_LAST or len(part) > SHOWN:
        chain = "".join(buttons)
    else:
        entries = f"<span class='group'>{''.join(buttons[:-1])}</span>"
        chain = f"{entries}{arrow}<span class='between'>{inside}</span>{arrow}{buttons[-1]}{arrow}<span class='between'>⊕</span>"
    return f"<div class='part' role='group' aria-label='{title}'><span class='title'>{title}</span>{chain}</div>"


def _draw_button(line: Any, is_selected: bool, column: str, is_marked: bool, tints: dict[int, str]) -> str:
    """One matrix."""
    short = shorten_matrix_name(line.matrix)
    value = glossary.format_value(column, getattr(line, column))
    label = html.escape(f"{short}: {glossary.label_column(column)} {value}" + ", marked" * is_marked, quote=True)
    names = " ".join(name for name, applies in (("selected", is_selected), ("marked", is_marked)) if applies)
    state = f'aria-pressed="{str(is_selected).lower()}" tabindex="{0 if is_selected else -1}"'
    text = html.escape(short.replace("_proj", ""))
    colours = tints[line.position]
    return (
        f'<button type="button" class="{names}" data-place="{line.position}" aria-label="{label}" title="{label}" {state} '
        f'style="{colours}">{text}</button>'
    )


def _compute_tints(values: pd.Series, column: str, positions: list[int]) -> dict[int, str]:
    """Background and text colour of the layers at these positions, as on the map of all `values`."""
    from plotly.colors import hex_to_rgb, label_rgb, sample_colorscale, unlabel_rgb

    numbers = values.astype(float)
    scale: str | list[list[Any]] = themes.SEQUENTIAL
    if column in SIGNED:
        limit = float(numbers.abs().max()) or 1.0
        shares = (numbers / limit + 1) / 2
        scale = [[stop, label_rgb(hex_to_rgb(colour))] for stop, colour in themes.DIVERGING]
    else:
        span = float(numbers.max() - numbers.min()) or 1.0
        shares = (numbers - numbers.min()) / span
    measured = [position for position in positions if not pd.isna(shares.iloc[position])]
    colours = sample_colorscale(scale, shares.iloc[measured].clip(0.0, 1.0).tolist()) if measured else []
    tints = dict.fromkeys(positions, "")
    for position, colour in zip(measured, colours, strict=True):
        parts = np.array(unlabel_rgb(colour)) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        is_dark = float(linear @ [0.2126, 0.7152, 0.0722]) < EQUAL_CONTRAST
        tints[position] = f"background:{colour};color:{'#ffffff' if is_dark else '#000000'}"
    return tints


def _render_style(theme: Theme) -> str:
    """Boxes and arrows in the page's colours."""
    return (
        "<style>.part{display:flex;flex-wrap:wrap;align-items:center;gap:3px;margin:3px 0}"
        f".title,.between,.arrow,.more{{color:{theme.muted};font-size:0.72rem}} .title{{min-width:54px}}"
        ".group{display:inline-flex;flex-wrap:wrap;gap:2px}"
        f"button{{border:1px solid {theme.border};border-radius:4px;padding:2px 5px;font:inherit;font-size:0.75rem;"
        f"cursor:pointer;background:{theme.raised};color:{theme.text}}}"
        f"button.marked{{outline:2px dotted {theme.accent}}}"
        f"button.selected{{outline:2px solid {theme.accent};outline-offset:1px}}"
        f"button:focus-visible{{box-shadow:0 0 0 4px {theme.action}}}</style>"
    )
