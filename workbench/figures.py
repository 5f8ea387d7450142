"""Figures: data in, a `Figure` out, which shows itself in a cell with its question, answer and table.

    wb.figures.bit_ledger(result.ledger)

Each name is imported from its home on first use, as those of `workbench` itself are.
"""

from workbench.import_hook import import_lazily

_HOMES = {
    "Figure": "figure:Figure",
    "added_loss": "decisions.scaling_law:added_loss",
    "bit_ledger": "decisions.bit_ledger:bars",
    "bit_plan": "decisions.error_budget:plan",
    "bits_against_error": "predictions.layer_errors:bits_against_error",
    "channel_overlaps": "method.calibration_mixture:channels",
    "document_influence": "method.calibration_mixture:documents",
    "error_budget": "decisions.error_budget:waterfall",
    "error_interactions": "decisions.error_budget:interactions",
    "flipped_signs": "method.sign_patterns:flips",
    "fork_blame": "predictions.fork:blame",
    "fork_recovery": "predictions.fork:recovery",
    "fork_shares": "predictions.fork:shares",
    "input_spectra": "method.calibration_mixture:spectrum",
    "mixture_errors": "method.calibration_mixture:errors",
    "pareto": "decisions.error_budget:pareto",
    "perplexity_against_bytes": "predictions.kv_cache:perplexity_against_bytes",
    "roofline": "predictions.roofline:roofline",
    "sign_patterns": "method.sign_patterns:patterns",
    "sweep_errors": "method.binarization_sweeps:errors",
    "sweep_paths": "method.binarization_sweeps:paths",
    "text_fork": "predictions.fork:along",
    "transform_losses": "method.learned_transform:loss_curve",
    "weight_histogram": "weights.matrix:histogram",
}

__all__ = list(_HOMES)
__getattr__ = import_lazily(__name__, _HOMES, "workbench.views")


def __dir__() -> list[str]:
    return sorted(_HOMES)
