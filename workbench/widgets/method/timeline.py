"""Step by step through the run of a quantizer: forwards, backwards, or played."""

from functools import partial
from typing import Any

import panel as pn

from workbench.analysis.method.timeline import Moment, build_timeline, extract_still
from workbench.quantizers.coding_trace import CodingTrace
from workbench.views.method import timeline as views
from workbench.widgets.base.component import Component, FigureFrame, choose_theme, render_chosen_css
from workbench.widgets.elements.slider import Slider

PERIOD = 500  # milliseconds a step is shown while the run is played
STEP_QUESTION = "What does this step do?"


class ScrubberView(Component):
    """A timeline over the run that made the selected layer's result. `moments` are its steps, `step` (from 1) the one shown."""

    def build(self) -> pn.viewable.Viewable:
        """The slider and its buttons above two figures."""
        self.step = Slider(
            label="Step", value=1, start=1, end=2, description="Step of the run to show", sizing_mode="stretch_width"
        )
        moves = {"First": -(10**9), "Back": -1, "Next": 1, "Last": 10**9}
        self.buttons = {name: pn.widgets.Button(label=name, width=80) for name in moves}
        for name, by in moves.items():
            self.buttons[name].on_click(partial(self._pressed, by))
        self.play = pn.widgets.Toggle(label="Play", value=False, variant="outline", width=80)
        self.what = pn.widgets.RadioButtonGroup(
            label="Show", options=["error", "groups", "flipped signs"], width=330, stylesheets=[render_chosen_css()]
        )
        self.picture, self.losses = FigureFrame(), FigureFrame()
        self.poll: Any = None
        self.coding_trace: CodingTrace | None = None
        self.moments: list[Moment] = []
        self.step.param.watch(lambda _: self._show(), "value")
        self.what.param.watch(lambda _: self._show(), "value")
        self.play.param.watch(lambda event: self._play(event.new), "value")
        self.controls = pn.Column(
            self.step, pn.FlexBox(*self.buttons.values(), self.play, self.what), sizing_mode="stretch_width"
        )
        return pn.Column(self.controls, self.picture, self.losses, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """The run of the selected layer's result."""
        trace = self.session.trace
        self.coding_trace = None if trace is None or self.session.result is None else trace.coding_trace
        self.moments = build_timeline(trace) if trace is not None and self.coding_trace is not None else []
        self.controls.visible = bool(self.moments)
        if self.moments:
            self.step.param.update(end=max(len(self.moments), 2), value=min(self._at(), len(self.moments)))
            self.step.disabled = len(self.moments) < 2
        self._show()

    def look(self, visible: bool) -> None:
        """Behind another tab nothing is played."""
        super().look(visible)
        if not visible:
            self.play.value = False

    def move(self, by: int) -> None:
        """So many steps on, no further than the ends."""
        self.step.value = min(max(self._at() + by, 1), max(len(self.moments), 1))

    def _pressed(self, by: int, _event: Any) -> None:
        self.move(by)

    def _at(self) -> int:
        """The step that is shown, from 1."""
        return int(self.step.value or 1)

    def _play(self, on: bool) -> None:
        if self.poll is not None:
            self.poll.stop()
            self.poll = None
        self.play.label = "Pause" if on else "Play"
        if on and self._at() >= len(self.moments):
            self.step.value = 1
        if on and self.threaded:
            self.poll = pn.state.add_periodic_callback(self._next, period=PERIOD)

    def _next(self) -> None:
        self.move(1)
        if self._at() >= len(self.moments):
            self.play.value = False

    def _show(self) -> None:
        if self.coding_trace is None or not self.moments:
            for frame, question in ((self.picture, STEP_QUESTION), (self.losses, "How does the loss change?")):
                frame.say(question, self._missing())
            return
        at = min(self._at(), len(self.moments)) - 1
        moment = self.moments[at]
        shown = extract_still(self.coding_trace, moment)
        recipe = self.session.recipe
        self.picture.draw(
            views.draw_timeline_step(self.coding_trace, moment, shown, self.what.value, recipe, theme=choose_theme())
        )
        self.losses.draw(views.draw_step_losses(self.moments, at, theme=choose_theme()))

    def _missing(self) -> str:
        if self.session.result is None:
            return "This layer is not quantized yet: press Quantize this layer to step through its run."
        return "This result was not computed in this session, so its run was not recorded: press Quantize this layer."
