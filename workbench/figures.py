"""Figures: data in, a `Figure` out, which shows itself in a cell with its question, answer and table.

Each name is imported from its home on first use, as those of `workbench` itself are.

Example:
    >>> import workbench as wb
    >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
    >>> wb.figures.bit_ledger(result.ledger).question
    'Where does every stored bit go?'
"""

from typing import TYPE_CHECKING

from workbench.import_hook import import_lazily

if TYPE_CHECKING:
    from workbench.views.decisions.bit_ledger import draw_bit_ledger as bit_ledger
    from workbench.views.decisions.error_budget import draw_bit_plan as bit_plan
    from workbench.views.decisions.error_budget import draw_error_waterfall as error_budget
    from workbench.views.decisions.error_budget import draw_interactions as error_interactions
    from workbench.views.decisions.error_budget import draw_pareto_front as pareto
    from workbench.views.decisions.preset_trials import draw_preset_trials as preset_trials
    from workbench.views.decisions.scaling_law import draw_added_loss as added_loss
    from workbench.views.figure import Figure
    from workbench.views.method.binarization_sweeps import draw_sweep_errors as sweep_errors
    from workbench.views.method.binarization_sweeps import draw_sweep_paths as sweep_paths
    from workbench.views.method.calibration_mixture import draw_channel_overlaps as channel_overlaps
    from workbench.views.method.calibration_mixture import draw_document_influence as document_influence
    from workbench.views.method.calibration_mixture import draw_input_spectra as input_spectra
    from workbench.views.method.calibration_mixture import draw_mixture_errors as mixture_errors
    from workbench.views.method.learned_transform import draw_loss_curve as transform_losses
    from workbench.views.method.sign_patterns import draw_sign_flips as flipped_signs
    from workbench.views.method.sign_patterns import draw_sign_patterns as sign_patterns
    from workbench.views.predictions.fork import describe_fork_recovery as fork_recovery
    from workbench.views.predictions.fork import draw_fork_blame as fork_blame
    from workbench.views.predictions.fork import draw_fork_shares as fork_shares
    from workbench.views.predictions.fork import draw_text_fork as text_fork
    from workbench.views.predictions.kv_cache import draw_perplexity_by_bytes as perplexity_against_bytes
    from workbench.views.predictions.layer_errors import draw_error_by_bits as bits_against_error
    from workbench.views.predictions.layer_sensitivity import draw_layer_sensitivity as layer_sensitivity
    from workbench.views.predictions.roofline import draw_roofline as roofline
    from workbench.views.weights.matrix import draw_histogram as weight_histogram

__all__ = [
    "Figure",
    "added_loss",
    "bit_ledger",
    "bit_plan",
    "bits_against_error",
    "channel_overlaps",
    "document_influence",
    "error_budget",
    "error_interactions",
    "flipped_signs",
    "fork_blame",
    "fork_recovery",
    "fork_shares",
    "input_spectra",
    "layer_sensitivity",
    "mixture_errors",
    "pareto",
    "perplexity_against_bytes",
    "preset_trials",
    "roofline",
    "sign_patterns",
    "sweep_errors",
    "sweep_paths",
    "text_fork",
    "transform_losses",
    "weight_histogram",
]

_HOMES = {
    "Figure": "figure:Figure",
    "added_loss": "decisions.scaling_law:draw_added_loss",
    "bit_ledger": "decisions.bit_ledger:draw_bit_ledger",
    "bit_plan": "decisions.error_budget:draw_bit_plan",
    "bits_against_error": "predictions.layer_errors:draw_error_by_bits",
    "channel_overlaps": "method.calibration_mixture:draw_channel_overlaps",
    "document_influence": "method.calibration_mixture:draw_document_influence",
    "error_budget": "decisions.error_budget:draw_error_waterfall",
    "error_interactions": "decisions.error_budget:draw_interactions",
    "flipped_signs": "method.sign_patterns:draw_sign_flips",
    "fork_blame": "predictions.fork:draw_fork_blame",
    "fork_recovery": "predictions.fork:describe_fork_recovery",
    "fork_shares": "predictions.fork:draw_fork_shares",
    "input_spectra": "method.calibration_mixture:draw_input_spectra",
    "layer_sensitivity": "predictions.layer_sensitivity:draw_layer_sensitivity",
    "mixture_errors": "method.calibration_mixture:draw_mixture_errors",
    "pareto": "decisions.error_budget:draw_pareto_front",
    "perplexity_against_bytes": "predictions.kv_cache:draw_perplexity_by_bytes",
    "preset_trials": "decisions.preset_trials:draw_preset_trials",
    "roofline": "predictions.roofline:draw_roofline",
    "sign_patterns": "method.sign_patterns:draw_sign_patterns",
    "sweep_errors": "method.binarization_sweeps:draw_sweep_errors",
    "sweep_paths": "method.binarization_sweeps:draw_sweep_paths",
    "text_fork": "predictions.fork:draw_text_fork",
    "transform_losses": "method.learned_transform:draw_loss_curve",
    "weight_histogram": "weights.matrix:draw_histogram",
}

if not TYPE_CHECKING:  # a type checker knows the names above, and says where one does not exist
    __getattr__ = import_lazily(__name__, _HOMES, "workbench.views")


def __dir__() -> list[str]:
    return sorted(__all__)
