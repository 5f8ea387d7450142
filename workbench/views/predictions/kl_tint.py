"""One colour scale for the KL of tokens, shared by all texts."""

import math

from workbench.views.theme import Theme

STRONGEST = 0.45  # opacity that leaves text readable in both modes
EXAMPLES = (0.01, 0.1, 0.7, 3.0)  # nats that the legend shows


def compute_kl_tint(kl: float, theme: Theme) -> str:
    """The quantized colour, more opaque the further two predictions are apart: half of the strongest at 0.7 nats."""
    red, green, blue = (int(theme.quantized[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{STRONGEST * (1 - math.exp(-kl)):.2f})"


def render_tint_legend(theme: Theme) -> str:
    """What some tints stand for, as HTML."""
    swatches = "".join(
        f"<span style='background:{compute_kl_tint(kl, theme)};padding:0 6px;margin-left:4px;border-radius:3px'>{kl:g}</span>"
        for kl in EXAMPLES
    )
    return f"<small>Colour: KL of the prediction of this token, nats {swatches}</small>"
