"""How large are the errors of quantization? All layers, and the results for the selected one."""

import pandas as pd
import panel as pn

from workbench.analysis.decisions.pins import format_recipe
from workbench.quantized import QuantizedLayer
from workbench.session.layer_table import tabulate_errors
from workbench.views.figure import Figure
from workbench.views.predictions import layer_errors as errors
from workbench.views.predictions.compared_errors import draw_compared_errors
from workbench.widgets.base.component import Component, FigureFrame, choose_theme


class LayerErrors(Component):
    """Show the error of every quantized layer, and error against stored bits for each result of the selected one.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> errors = wb.LayerErrors(result)
        >>> errors.tried.figure.table["bits_per_weight"].round(2).tolist()
        [2.14]
    """

    watches = ("choice", "results", "run")

    def build(self) -> pn.viewable.Viewable:
        """Two figures, one below the other."""
        self.layers, self.tried = FigureFrame(), FigureFrame()
        return pn.Column(self.layers, self.tried, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Both figures from the results there are."""
        table = self.session.layer_table(wait=False)
        measured = table[table["relative_error"].notna()]
        if measured.empty:
            self.layers.say(
                "Which layers have the largest error?",
                "No layer is quantized yet: press Quantize this layer, or the whole model.",
            )
        elif self.session.compared.has_reference:
            self.layers.draw(self._draw_comparison())
        else:
            self.layers.draw(errors.draw_layer_errors(measured, self.session.layer, theme=choose_theme()))
        results = self.session.results_of(self.session.layer)
        if not results:
            sentence = "Quantize this layer with two or three recipes to compare them here."
            self.tried.say("How much error for how many bits?", sentence)
            return
        frame = _tabulate_results(results)
        self.tried.draw(errors.draw_error_by_bits(frame, format_recipe(self.session.recipe), theme=choose_theme()))

    def _draw_comparison(self) -> Figure:
        """Errors of the run on show beside those of the run that it is compared with."""
        compared = self.session.compared
        table = tabulate_errors(self.session.model.layers(), compared.reference_layers(), compared.layers())
        return draw_compared_errors(table, self.session.layer, compared.labels, theme=choose_theme())


def _tabulate_results(results: list[QuantizedLayer]) -> pd.DataFrame:
    """One row a result: recipe, bits_per_weight, nominal_bits, relative_error, output_error."""
    rows = [(format_recipe(r.recipe), r.bits_per_weight, r.nominal_bits, r.relative_error, r.output_error) for r in results]
    return pd.DataFrame(rows, columns=["recipe", "bits_per_weight", "nominal_bits", "relative_error", "output_error"])
