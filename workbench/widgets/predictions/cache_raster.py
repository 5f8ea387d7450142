"""What does the key-value cache of a block hold, and what does storing it in fewer bits lose? Tokens × channels, as a picture."""

from typing import ClassVar

import panel as pn

from workbench.analysis.predictions.block_reading import pack_block, tabulate_channel_errors
from workbench.quantizers.kv import parse
from workbench.views.predictions import block_reading as views
from workbench.widgets.base.component import render_chosen_css
from workbench.widgets.base.controls import BESIDE
from workbench.widgets.predictions.token_raster import Drawing, Readings, TokenRaster

KINDS = ("original", "quantized", "difference")
PACKED_TOGETHER = 16  # tokens


class CacheRaster(TokenRaster):
    """Show keys or values of the selected layer's block, tokens × channels: as they are, as a scheme stores them, or its error.

    Example:
        >>> import workbench as wb
        >>> view = wb.CacheRaster(wb.open_model("builtin"), "model.layers.2.self_attn.k_proj", threaded=False)
        >>> view.tokens.value, view.what.value = 32, "difference"
        >>> view.read()  # as its button does
        >>> view.frame.figure.answer.split(",")[0]
        'With kivi:bits=2'
    """

    question: ClassVar[str] = views.CACHE_QUESTION
    axis_labels: ClassVar[tuple[str, str]] = ("channel", "token")
    column: ClassVar[str] = "channel"

    def controls(self) -> list[pn.viewable.Viewable]:
        """Keys or values, what of them, and how they are stored."""
        look = {"margin": BESIDE, "stylesheets": [render_chosen_css()]}
        self.side = pn.widgets.RadioButtonGroup(label="Side", options=["keys", "values"], value="keys", **look)
        self.what = pn.widgets.RadioButtonGroup(label="Show", options=[*KINDS], value="original", **look)
        what = "How the cache is stored: a name and its settings; press Enter"
        self.scheme = pn.widgets.TextInput(label="Scheme", value="kivi:bits=2", width=150, description=what)
        self.packed_together = pn.widgets.IntInput(
            label="Tokens a block",
            value=PACKED_TOGETHER,
            start=8,
            end=128,
            step=8,
            width=100,
            description="Number of tokens packed together",
        )
        for switch in (self.side, self.what, self.scheme, self.packed_together):
            switch.param.watch(lambda _: self.notices.guard(self.paint), "value")
        return [self.side, self.what, self.scheme, self.packed_together]

    def draw_readings(self, readings: Readings) -> Drawing:
        """The original's cache: what a scheme loses is a property of the scheme, whatever the weights are."""
        reading, side, what = readings.original, self.side.value, self.what.value
        packed = pack_block(reading, parse(self.scheme.value or ""), block=int(self.packed_together.value or PACKED_TOGETHER))
        before, after = views.select_side(reading, side), views.select_side(packed, side)
        names, table = views.name_cache(reading), tabulate_channel_errors(before, after, packed.packed_tokens)
        if what == "original":
            return Drawing(views.CACHE_QUESTION, views.describe_cache(reading, side, before), {"original": before}, names, table)
        answer = views.describe_cache_error(packed, side, before, after)
        if what == "quantized":
            return Drawing(views.CACHE_QUESTION, answer, {"quantized": after}, names, table)
        return Drawing(views.ERROR_QUESTION, answer, {"difference": after - before}, names, table)
