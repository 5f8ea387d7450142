"""What did the method do inside this layer? Sign patterns, transform, groups of weights, sweeps."""

from functools import partial
from typing import ClassVar

import pandas as pd
import panel as pn

from workbench.analysis.method import coded_basis, run_trace
from workbench.analysis.method import learned_transform as transform
from workbench.analysis.method import sign_patterns as codebook
from workbench.analysis.method.sign_patterns import SignPatterns
from workbench.analysis.method.weight_groups import GroupMap, build_group_map
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Sweeps
from workbench.views.method import binarization_sweeps as sweep_views
from workbench.views.method import learned_transform as transform_views
from workbench.views.method import sign_patterns as codebook_views
from workbench.views.method import weight_groups as group_views
from workbench.widgets.base.background_figure import Study
from workbench.widgets.base.component import Component, FigureFrame, choose_theme
from workbench.widgets.base.sections import Sections
from workbench.widgets.method.timeline import ScrubberView

QUANTIZE_FIRST = "This layer is not quantized yet: press Quantize this layer."
LENGTH = 10  # signs of a pattern where no codebook says otherwise


class SignView(Component):
    """Sign patterns before and after the transform, and how many signs a codebook flips."""

    def build(self) -> pn.viewable.Viewable:
        """Two figures."""
        self.patterns, self.flips = FigureFrame(), FigureFrame()
        self._before: tuple[str, SignPatterns] | None = None  # what it was made from, and the patterns of the original
        self.study = Study(
            pn.Column(self.patterns, self.flips, sizing_mode="stretch_width"), self.notices, threaded=self.threaded
        )
        return self.study.view

    def refresh(self) -> None:
        """Both for the selected layer and its result."""
        original, result = self.session.portrait(), self.session.result
        nodes = [] if result is None else [node for _, node in codebook.iterate_codebooks(result.packed)]
        length = min(nodes[0].facts["length"] if nodes else LENGTH, original.shape[1])
        table_key = f"{original.content_key} {length}"

        def before() -> tuple[str, SignPatterns]:
            last = self._before
            return (
                last
                if last is not None and last[0] == table_key
                else (table_key, codebook.count_sign_patterns(original.weight, length))
            )

        def after() -> SignPatterns | None:
            if result is None or not coded_basis.is_transformed(result.packed):
                return None
            return codebook.count_sign_patterns(
                coded_basis.extract_coded_basis(result.packed, original.weight.float())[1], length
            )

        def flips() -> pd.DataFrame | None:
            return codebook.tabulate_codebooks(result.packed, original.weight.float()) if result is not None and nodes else None

        self.study.run([before, after, flips], partial(self._draw, result), at_once=original.is_light)

    def _draw(
        self,
        result: QuantizedLayer | None,
        before: tuple[str, SignPatterns],
        after: SignPatterns | None,
        flips: pd.DataFrame | None,
    ) -> None:
        self._before = before
        self.patterns.draw(codebook_views.draw_sign_patterns(before[1], after, theme=choose_theme()))
        if result is None or flips is None:
            missing = QUANTIZE_FIRST if result is None else "This recipe has no binary codebook: try the preset btc at 0.8 bits."
            self.flips.say("How many signs does the codebook flip?", missing)
        else:
            self.flips.draw(
                codebook_views.draw_sign_flips(flips, moved=result.recipe.assignment.name != "nearest", theme=choose_theme())
            )


class TransformView(Component):
    """How learning lowered the loss, also while it runs; what was learned."""

    watches = ("choice", "results", "steps")

    def build(self) -> pn.viewable.Viewable:
        """Three figures."""
        self.loss, self.diagonal, self.rotation = FigureFrame(), FigureFrame(), FigureFrame()
        return pn.Column(self.loss, self.diagonal, self.rotation, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """The curve so far, and the transform once it is stored."""
        trace, result = self.session.trace, self.session.result
        if trace is not None and trace.learning:
            self.loss.draw(transform_views.draw_loss_curve(transform.tabulate_losses(trace.learning), theme=choose_theme()))
        else:
            self.loss.say("How does learning lower the loss?", self._missing())
        if result is None or result.packed.format != "rotated":
            self.diagonal.say("Which inputs are scaled or flipped?", "Shown when a transform has been learned.")
            self.rotation.say("How are the inputs rotated?", "Shown when a transform has been learned.")
            return
        learned = transform.read_learned_transform(result.packed)
        self.diagonal.draw(transform_views.draw_diagonal(learned, theme=choose_theme()))
        if learned.rotations:
            self.rotation.draw(transform_views.draw_rotation(learned, theme=choose_theme()))
        else:
            self.rotation.say("How are the inputs rotated?", transform_views.describe_rotation(learned))

    def _missing(self) -> str:
        if self.session.recipe.transform.name != "learned":
            return "This recipe does not learn a transform: try the preset btc with transform both."
        return QUANTIZE_FIRST if self.session.result is None else "Nothing was learned in this run: its result was cached."


class GroupView(Component):
    """The groups of weights as a picture, a window at a time."""

    def build(self) -> pn.viewable.Viewable:
        """Where the window begins, and the picture."""
        self.row, self.col = (
            pn.widgets.IntInput(label=f"First {what}", value=0, start=0, width=130) for what in ("row", "column")
        )
        self.frame = FigureFrame()
        self.groups: GroupMap | None = None
        for field in (self.row, self.col):
            field.param.watch(lambda _: self._picture(), "value")
        body = pn.Column(pn.FlexBox(self.row, self.col), self.frame, sizing_mode="stretch_width")
        self.study = Study(body, self.notices, threaded=self.threaded)
        return self.study.view

    def refresh(self) -> None:
        """The groups of the selected layer's result."""
        original, result = self.session.portrait(), self.session.result

        def groups() -> GroupMap | None:
            return None if result is None else build_group_map(result.packed, original.weight.float())

        self.study.run([groups], self._draw, at_once=original.is_light)

    def _draw(self, groups: GroupMap | None) -> None:
        self.groups = groups
        if groups is not None:
            rows, cols = groups.groups.shape
            self.row.param.update(end=rows - 1, value=min(self.row.value or 0, rows - 1))
            self.col.param.update(end=cols - 1, value=min(self.col.value or 0, cols - 1))
        self.row.visible = self.col.visible = groups is not None
        self._picture()

    def _picture(self) -> None:
        if self.groups is not None:
            self.frame.draw(
                group_views.draw_weight_groups(self.groups, self.row.value or 0, self.col.value or 0, theme=choose_theme())
            )
            return
        alike = "This recipe codes all weights in the same way: try the preset billm, stbllm or btc-paper."
        self.frame.say("Which weight belongs to which group?", QUANTIZE_FIRST if self.session.result is None else alike)


class SweepView(Component):
    """How alternating sweeps lower the error, and how scales and means of a few rows settle."""

    watches = ("choice", "results", "steps")

    def build(self) -> pn.viewable.Viewable:
        """Two figures; which columns the second is about."""
        self.errors, self.paths = FigureFrame(), FigureFrame()
        self.fit = pn.widgets.Select(label="Columns", options={"": 0}, width=260)
        self.fit.param.watch(lambda _: self._paths(), "value")
        return pn.Column(self.errors, self.fit, self.paths, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """What the run has told so far."""
        trace = self.session.trace
        self.settled = [] if trace is None else trace.settled
        self.fit.visible = len(self.settled) > 1
        if not self.settled:
            for frame, question in ((self.errors, "How much do sweeps help?"), (self.paths, "How do scales converge?")):
                frame.say(question, self._missing())
            return
        self.errors.draw(sweep_views.draw_sweep_errors(run_trace.tabulate_sweep_errors(self.settled), theme=choose_theme()))
        options = {_format_fit_columns(fit): number for number, fit in enumerate(self.settled)}
        if options != self.fit.options:
            self.fit.param.update(options=options, value=min(self.fit.value or 0, len(self.settled) - 1))
        self._paths()

    def _paths(self) -> None:
        if self.settled:
            fit = self.settled[min(self.fit.value or 0, len(self.settled) - 1)]
            self.paths.draw(
                sweep_views.draw_sweep_paths(run_trace.tabulate_sweep_paths(fit), _format_fit_columns(fit), theme=choose_theme())
            )

    def _missing(self) -> str:
        if self.session.result is None:
            return QUANTIZE_FIRST
        return "This recipe has no sweeps: try the preset binary, arb-llm or btc."


def _format_fit_columns(fit: Sweeps) -> str:
    """The columns of one fit, and whose they are."""
    return f"columns {fit.start:,} to {fit.stop - 1:,}, coder {fit.coder + 1}"


class MethodView(Sections):
    """Show what the method did inside the layer, one section at a time.

    Each section says in a sentence when the recipe has nothing for it.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> view = wb.MethodView(result, threaded=False)
        >>> view.section.options
        ['Signs', 'Transform', 'Groups', 'Sweeps', 'Step by step']
    """

    kinds: ClassVar = {
        "Signs": SignView,
        "Transform": TransformView,
        "Groups": GroupView,
        "Sweeps": SweepView,
        "Step by step": ScrubberView,
    }
