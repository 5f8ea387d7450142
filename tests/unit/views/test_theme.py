"""Number formats and colours: honest at the edges, readable on both pages."""

import pytest

from workbench.views import theme
from workbench.views.predictions.kl_tint import STRONGEST
from workbench.views.theme import DARK, LIGHT, Theme


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0 %"), (1e-7, "less than 0.001 %"), (0.5, "50 %"), (0.12345, "12.3 %"), (0.9994, "99.9 %"), (1.0, "100 %")],
)
def test_shares(share: float, written: str) -> None:
    assert theme.format_percent(share) == written


@pytest.mark.parametrize("share", [0.9996, 1 - 1e-9])
def test_nearly_all_is_not_all(share: float) -> None:
    assert theme.format_percent(share) == "more than 99.9 %"


@pytest.mark.parametrize(
    ("bits", "written"), [(8e6, "1.00 MB"), (13.2e9, "1,650 MB"), (8e5, "0.10 MB"), (799_992, "100.0 kB"), (8_000, "1.0 kB")]
)
def test_sizes(bits: float, written: str) -> None:
    assert theme.format_megabytes(bits) == written


@pytest.mark.parametrize(("seconds", "written"), [(0.0123, "12 ms"), (3.14159, "3.1 s"), (61, "1 min 1 s"), (3600, "60 min 0 s")])
def test_durations(seconds: float, written: str) -> None:
    assert theme.format_duration(seconds) == written


def test_counts() -> None:
    counts = [theme.format_count(1, "layer"), theme.format_count(1234, "layer"), theme.format_count(0, "entry", "entries")]
    assert counts == ["1 layer", "1,234 layers", "0 entries"]


def test_few_bars_are_narrow() -> None:
    assert [round(theme.compute_bar_gap(bars, 0.35), 2) for bars in (1, 3, 6, 42)] == [0.83, 0.5, 0.35, 0.35]


def test_a_title_given_with_an_axis_keeps_the_look_of_all_titles() -> None:
    title = theme.build_layout(LIGHT, yaxis={"title": {"text": "block"}})["yaxis"]["title"]
    assert (title["text"], title["font"]) == ("block", theme.build_layout(LIGHT)["xaxis"]["title"]["font"])


def test_a_layout_merges_axes_and_replaces_the_rest() -> None:
    layout = theme.build_layout(LIGHT, x="bits", xaxis={"range": [0, 1]}, shapes=[1])
    assert layout["xaxis"]["title"]["text"] == "bits"
    assert layout["xaxis"]["range"] == [0, 1]
    assert layout["shapes"] == [1]


def rgb(colour: str) -> list[int]:
    """Red, green and blue of `#rrggbb`."""
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [part / 255 for part in rgb(colour)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=lambda colours: colours.name)
@pytest.mark.parametrize(
    ("front", "back", "least"),
    [
        ("text", "page", 7.0),
        ("text", "surface", 7.0),
        ("muted", "page", 4.5),
        ("muted", "surface", 4.5),
        ("danger", "surface", 4.5),
        ("contrast", "action", 4.5),
        ("original", "surface", 3.0),
        ("accent", "surface", 3.0),
    ],
)
def test_colours_can_be_told_apart(colours: Theme, front: str, back: str, least: float) -> None:
    assert contrast(getattr(colours, front), getattr(colours, back)) >= least


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=lambda colours: colours.name)
def test_letters_on_the_strongest_tint_can_be_read(colours: Theme) -> None:
    share = STRONGEST
    mixed = [round(share * a + (1 - share) * b) for a, b in zip(rgb(colours.quantized), rgb(colours.surface), strict=True)]
    assert contrast(colours.text, "#" + "".join(f"{part:02x}" for part in mixed)) >= 4.5


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
