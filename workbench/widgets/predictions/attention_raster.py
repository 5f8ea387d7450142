"""Which tokens does each token attend to? One head, of the original, of the quantized model, or their difference."""

from typing import ClassVar

import panel as pn

from workbench.analysis.predictions.block_reading import tabulate_attention
from workbench.views.predictions import block_reading as views
from workbench.widgets.base.component import render_chosen_css
from workbench.widgets.base.controls import BESIDE
from workbench.widgets.predictions.token_raster import Drawing, Readings, TokenRaster

KINDS = ("original", "quantized", "difference")


class AttentionRaster(TokenRaster):
    """Show the attention of a head in the selected layer's block: a row for each token, a column for each it attends to.

    The text is the prompt, continued by the original model; the quantized run reads the same tokens.

    Example:
        >>> import workbench as wb
        >>> view = wb.AttentionRaster(wb.open_model("builtin"), "model.layers.2.self_attn.q_proj", threaded=False)
        >>> view.tokens.value, view.head.value = 16, 3
        >>> view.read()  # as its button does
        >>> view.frame.figure.answer.split(":")[0]
        'Head 3 of 8 in block 2'
    """

    question: ClassVar[str] = views.ATTENTION_QUESTION
    axis_labels: ClassVar[tuple[str, str]] = ("token attended to", "token that attends")

    def controls(self) -> list[pn.viewable.Viewable]:
        """The head, and what of it is shown."""
        self.head = pn.widgets.IntInput(
            label="Head", value=0, start=0, width=110, description="Head of the block, counted from 0"
        )
        self.what = pn.widgets.RadioButtonGroup(
            label="Show", options=[*KINDS], value="original", margin=BESIDE, stylesheets=[render_chosen_css()]
        )
        for switch in (self.head, self.what):
            switch.param.watch(lambda _: self.notices.guard(self.paint), "value")
        return [self.head, self.what]

    def draw_readings(self, readings: Readings) -> Drawing | str:
        """One head."""
        before, after, what = readings.original, readings.quantized, self.what.value
        if after is None and what != "original":
            return "Nothing is quantized yet: quantize a layer or the model, or move the slider, and read the text again."
        head = min(int(self.head.value or 0), before.heads - 1)
        self.head.param.update(end=before.heads - 1, value=head)
        names = views.name_attention(before)
        table = tabulate_attention(before, after, head, difference=what == "difference")
        if after is None or what == "original":
            return Drawing(
                views.ATTENTION_QUESTION,
                views.describe_attention(before, head),
                {"original": before.attention[head]},
                names,
                table,
            )
        if what == "quantized":
            answer = views.describe_attention(after, head)
            return Drawing(views.ATTENTION_QUESTION, answer, {"quantized": after.attention[head]}, names, table)
        change = after.attention[head] - before.attention[head]
        answer = views.describe_attention_change(before, after, head)
        return Drawing(views.CHANGE_QUESTION, answer, {"difference": change}, names, table)
