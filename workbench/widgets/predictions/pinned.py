"""Which result is better? Pinned results side by side, of one layer and of whole models."""

from collections.abc import Generator

import panel as pn

from workbench.views.figure import Figure
from workbench.views.predictions import pinned as views
from workbench.widgets.base.background_figure import Study
from workbench.widgets.base.component import Component, FigureFrame, build_data_table, choose_theme
from workbench.widgets.base.controls import PLAIN_MARGIN, build_action_button
from workbench.widgets.base.job_panel import JobPanel

BITS_QUESTION, ERRORS_QUESTION, MODELS_QUESTION = (
    "How much error for how many bits?",
    "How large are the errors of single weights?",
    "Which model predicts text best for its size?",
)


class PinnedView(Component):
    """Compare results that a visitor has pinned: a table and figures of the layers' results, and of whole models.

    `session.pins` holds them as values; a pin stays when the recipe on the bench changes.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> view = wb.PinnedView(result, threaded=False)
        >>> view.pin()  # as its button does
        >>> list(view.session.pins.layers)
        ['rtn bits=2']
    """

    def build(self) -> pn.viewable.Viewable:
        """Buttons, then the layers' part and the models'."""
        self.one = build_action_button("Pin this result", "Keep this layer's result for comparison", 150, margin=PLAIN_MARGIN)
        self.all = pn.widgets.Button(
            label="Pin the model",
            width=130,
            description="Evaluate the quantized model on the evaluation text, and keep the result",
        )
        self.which = pn.widgets.Select(
            label="Pinned", options=[], width=260, description="Pinned result that the figures mark, or to unpin"
        )
        self.off = pn.widgets.Button(label="Unpin", width=90, margin=PLAIN_MARGIN)
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.view.visible = False
        self.jobs.param.watch(lambda _: self._allow(), "running")
        self.bits, self.errors, self.models = FigureFrame(), FigureFrame(), FigureFrame()
        self.study = Study(self.errors.view, self.notices, threaded=self.threaded)
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
            self.study,
            self.model_table,
            self.models,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """All pins, and whether there is something to pin."""
        pins = self.session.pins
        self._allow()
        labels = [*pins.layers, *(label for label in pins.models if label not in pins.layers)]
        latest = labels[-1] if labels else None
        self.which.param.update(options=labels, value=self.which.value if self.which.value in labels else latest)
        self.which.disabled = self.off.disabled = not labels
        for pane, table in ((self.layer_table, pins.layer_table()), (self.model_table, pins.model_table())):
            pane[:] = [] if table.empty else [build_data_table(table)]
        self._figures()

    def _allow(self) -> None:
        self.one.disabled = self.jobs.running or self.session.result is None
        self.all.disabled = self.jobs.running or not self.session.results

    def pin(self) -> None:
        """Time the selected layer's result and pin it."""
        result, original = self.session.result, self.session.portrait()
        if result is None:
            return

        def steps() -> Generator[None, None, str]:
            yield
            return self.session.pins.pin_layer(result, original.weight.float())

        self.jobs.view.visible = True
        self.which.value = None
        self.jobs.run(steps, "timing this layer", ended=lambda _: self.refresh())

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
            self.bits.draw(views.draw_error_by_bits(pins.layer_table(), current, theme=choose_theme()))
        else:
            self.bits.say(BITS_QUESTION, f"Nothing is pinned yet: {first}, change the recipe and pin again.")
        results = {label: pin.result for label, pin in pins.layers.items() if pin.result.name == self.session.layer}
        if results:
            original, colours = self.session.portrait(), choose_theme()

            def errors() -> Figure:
                decoded = {label: result.weight() for label, result in results.items()}
                return views.draw_weight_errors(original.weight.float(), decoded, theme=colours)

            self.study.run([errors], self.errors.draw, at_once=original.is_light)
        else:
            missing = f"No result of this layer is pinned: {first}."
            self.study.run([], lambda: self.errors.say(ERRORS_QUESTION, missing), at_once=True)
        if pins.models:
            self.models.draw(views.draw_pinned_models(pins.model_table(), current, theme=choose_theme()))
        else:
            self.models.say(MODELS_QUESTION, "No model is pinned: press Quantize the whole model, then Pin the model.")
