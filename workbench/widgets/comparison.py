"""Which result is better? Pinned results side by side, of one layer and of whole models."""

import panel as pn

from workbench.views import comparison as views
from workbench.widgets.component import Component, FigureFrame, data_table, theme
from workbench.widgets.controls import PLAIN, action
from workbench.widgets.job_panel import JobPanel

BITS, ERRORS, MODELS = (
    "How much error for how many bits?",
    "How far are single weights off?",
    "Which model reads best for its bits?",
)


class ComparisonView(Component):
    """Results that a visitor has pinned: a table and figures of the layers' results, and of whole models.

    `session.pins` holds them as values; a pin stays when the recipe on the bench changes.
    """

    def build(self) -> pn.viewable.Viewable:
        """Buttons, then the layers' part and the models'."""
        self.one = action("Pin this result", "Keep this layer's result here", 150, margin=PLAIN)
        self.all = pn.widgets.Button(
            label="Pin the model",
            width=130,
            description="Measure the model as it is quantized now on the evaluation text, and keep that",
        )
        self.which = pn.widgets.Select(
            label="Pinned", options=[], width=260, description="The pin that figures mark, or to take off"
        )
        self.off = pn.widgets.Button(label="Unpin", width=90, margin=PLAIN)
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.view.visible = False
        self.jobs.param.watch(lambda event: self.all.param.update(disabled=event.new), "running")
        self.bits, self.errors, self.models = FigureFrame(), FigureFrame(), FigureFrame()
        self.layer_table, self.model_table = pn.Column(sizing_mode="stretch_width"), pn.Column(sizing_mode="stretch_width")
        self.one.on_click(lambda _: self.notices.guard(self.pin))
        self.all.on_click(lambda _: self.notices.guard(self.pin_model))
        self.off.on_click(lambda _: self.notices.guard(self.unpin))
        self.which.param.watch(lambda _: self._figures(), "value")
        return pn.Column(
            pn.FlexBox(self.one, self.all, self.which, self.off, align_items="end", sizing_mode="stretch_width"),
            self.jobs,
            self.layer_table,
            self.bits,
            self.errors,
            self.model_table,
            self.models,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """All pins, and whether there is something to pin."""
        pins = self.session.pins
        self.one.disabled = self.session.result is None
        self.all.disabled = self.jobs.running or not self.session.results
        labels = [*pins.layers, *(label for label in pins.models if label not in pins.layers)]
        latest = labels[-1] if labels else None
        self.which.param.update(options=labels, value=self.which.value if self.which.value in labels else latest)
        self.which.disabled = self.off.disabled = not labels
        for place, table in ((self.layer_table, pins.layer_table()), (self.model_table, pins.model_table())):
            place[:] = [] if table.empty else [data_table(table)]
        self._figures()

    def pin(self) -> None:
        """Pin the selected layer's result."""
        if self.session.result is not None:
            self.which.value = None
            self.session.pins.pin_layer(self.session.result, self.session.original())
            self.refresh()

    def pin_model(self) -> None:
        """Measure the quantized model and pin it."""
        self.jobs.view.visible = True
        self.which.value = None
        self.jobs.run(self.session.pin_model, "measuring the model", ended=lambda _: self.refresh())

    def unpin(self) -> None:
        """Take the chosen pin off."""
        if self.which.value is not None:
            self.session.pins.unpin(self.which.value)
            self.refresh()

    def _figures(self) -> None:
        pins, current = self.session.pins, self.which.value
        first = "press Pin this result" if self.session.result is not None else "quantize this layer, then press Pin this result"
        if pins.layers:
            self.bits.draw(views.bits_against_error(pins.layer_table(), current, theme=theme()))
        else:
            self.bits.say(BITS, f"Nothing is pinned yet: {first}, change the recipe and pin again.")
        here = {label: pin.result.weight() for label, pin in pins.layers.items() if pin.result.name == self.session.layer}
        if here:
            self.errors.draw(views.weight_errors(self.session.original(), here, theme=theme()))
        else:
            self.errors.say(ERRORS, f"No result of this layer is pinned: {first}.")
        if pins.models:
            self.models.draw(views.models(pins.model_table(), current, theme=theme()))
        else:
            self.models.say(MODELS, "No model is pinned: press Quantize the whole model, then Pin the model.")
