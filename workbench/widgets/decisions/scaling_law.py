"""How sensitive should this model be to quantization? A published scaling law beside the squeeze stops measured here."""

import panel as pn

from workbench.analysis.decisions import scaling_law
from workbench.analysis.decisions.squeeze import tabulate_stops
from workbench.views.decisions import scaling_law as views
from workbench.widgets.base.component import Component, FigureFrame, choose_theme
from workbench.widgets.base.markup import render_paragraph

GUESS = 20  # training tokens a parameter, where nobody knows


class ExpectationsView(Component):
    """Show what a scaling law expects of a model of this size and training, beside what was measured and what studies found.

    Example:
        >>> import workbench as wb
        >>> view = wb.ExpectationsView(wb.open_model("builtin"))
        >>> view.parameters.value, view.tokens.value  # millions
        (4.719, 8.967)
    """

    watches = ("results",)

    def build(self) -> pn.viewable.Viewable:
        """Fields above, figure, studies below."""
        model = self.session.model
        size = scaling_law.count_parameters(model)
        token_count = scaling_law.read_training_tokens(model)
        self.parameters = pn.widgets.FloatInput(
            label="Parameters, millions",
            value=round(size / 1e6, 3),
            start=0.001,
            width=170,
            description="Number of weights in the linear layers",
        )
        origin = "from its folder" if token_count else f"unknown: {GUESS} per parameter is assumed; change it here"
        self.tokens = pn.widgets.FloatInput(
            label="Training tokens, millions",
            value=round((token_count or GUESS * size) / 1e6, 3),
            start=0.001,
            width=190,
            description=f"Number of tokens that the model was trained on ({origin})",
        )
        self.note = pn.pane.HTML(render_paragraph(f"Training tokens: {origin}.", live=False), margin=(28, 10, 0, 10))
        self.frame = FigureFrame()
        for field in (self.parameters, self.tokens):
            field.param.watch(lambda _: self.notices.guard(self.refresh), "value")
        studies = pn.pane.HTML(views.render_studies(), sizing_mode="stretch_width")
        return pn.Column(pn.FlexBox(self.parameters, self.tokens, self.note), self.frame, studies, sizing_mode="stretch_width")

    def look(self, visible: bool) -> None:
        """Stops may have been built meanwhile."""
        self.stale = True
        super().look(visible)

    def refresh(self) -> None:
        """The law for these numbers, and the stops that are built."""
        count, tokens = 1e6 * float(self.parameters.value or 0), 1e6 * float(self.tokens.value or 0)
        expected = scaling_law.tabulate_expected_losses(count, tokens)
        pinned = self.session.pins.model_table()
        curve = scaling_law.tabulate_measured_losses(
            tabulate_stops(self.session.shared.squeeze.built_stops()), pinned if len(pinned) else None
        )
        self.frame.draw(
            views.draw_added_loss(expected, curve, scaling_law.UNDERTRAINED.outside(count, tokens), theme=choose_theme())
        )
