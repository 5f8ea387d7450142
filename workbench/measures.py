"""Measures beyond the first page of the public surface: plain data or tables, without a screen.

    wb.measures.weight_sketch(model.weight(layer)).histogram

Each name is imported from its home on first use, as those of `workbench` itself are.
"""

from workbench.import_hook import import_lazily

_HOMES = {
    "KernelMode": "kernels.options:Mode",
    "Text": "models.text:Text",
    "Trace": "analysis.method.run_trace:Trace",
    "UNDERTRAINED": "analysis.decisions.scaling_law:UNDERTRAINED",
    "ablation": "analysis.predictions.ablation:ablation",
    "cache_table": "analysis.predictions.kv_cache:cache_table",
    "cached_model": "analysis.predictions.kv_cache:cached",
    "calibration_texts": "analysis.method.calibration_mixture:default_texts",
    "channel_overlaps": "analysis.method.calibration_mixture:overlaps",
    "choose_kernel": "kernels.matmul.dispatch:choose",
    "coded_basis": "analysis.method.coded_basis:coded",
    "count_parameters": "analysis.decisions.scaling_law:parameters",
    "document_influence": "analysis.method.calibration_mixture:influence",
    "expected_losses": "analysis.decisions.scaling_law:expectation_table",
    "explain_kernels": "kernels.matmul.dispatch:explain",
    "flip_bound": "analysis.method.sign_patterns:flip_bound",
    "flipped_signs": "analysis.method.sign_patterns:summary",
    "fork_prompts": "analysis.predictions.fork_study:prompts_of",
    "fork_shares": "analysis.predictions.fork_study:shares",
    "fork_study": "analysis.predictions.fork_study:fork_study",
    "generation_speed": "analysis.predictions.generation_speed:generation_speed",
    "input_spectra": "analysis.method.calibration_mixture:spectra",
    "layer_levels": "analysis.weights.weight_sketch:layer_levels",
    "measured_losses": "analysis.decisions.scaling_law:own_curve",
    "mixture_errors": "analysis.method.calibration_mixture:mixture_errors",
    "read_sources": "analysis.method.calibration_mixture:read_sources",
    "sign_patterns": "analysis.method.sign_patterns:sign_patterns",
    "sign_vectors": "quantizers.coders.fitting.binary_kmeans:vectors",
    "squeeze_table": "analysis.decisions.squeeze:squeeze_table",
    "sweep_errors": "analysis.method.run_trace:error_table",
    "sweep_paths": "analysis.method.run_trace:path_table",
    "train_codebook": "quantizers.coders.fitting.binary_kmeans:train_magnitude",
    "training_tokens": "analysis.decisions.scaling_law:training_tokens",
    "transform_losses": "analysis.method.learned_transform:loss_table",
    "weight_histogram": "analysis.weights.weight_sketch:histogram",
    "weight_sketch": "analysis.weights.weight_sketch:sketch",
}

__all__ = list(_HOMES)
__getattr__ = import_lazily(__name__, _HOMES, "workbench")


def __dir__() -> list[str]:
    return sorted(_HOMES)
