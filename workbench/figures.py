"""Figures: data in, a `Figure` out, which shows itself in a cell with its question, answer and table.

    wb.figures.bit_ledger(result.ledger)

Each name is imported from its home on first use, as those of `workbench` itself are.
"""

from workbench.import_hook import import_lazily

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

__all__ = list(_HOMES)
__getattr__ = import_lazily(__name__, _HOMES, "workbench.views")


def __dir__() -> list[str]:
    return sorted(_HOMES)
