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
    "ablation": "analysis.predictions.ablation:run_ablation",
    "cache_table": "analysis.predictions.kv_cache:tabulate_caches",
    "cached_model": "analysis.predictions.kv_cache:make_cached_model",
    "calibration_texts": "analysis.method.calibration_mixture:read_default_texts",
    "channel_overlaps": "analysis.method.calibration_mixture:tabulate_overlaps",
    "choose_kernel": "kernels.matmul.dispatch:choose",
    "coded_basis": "analysis.method.coded_basis:extract_coded_basis",
    "count_parameters": "analysis.decisions.scaling_law:count_parameters",
    "document_influence": "analysis.method.calibration_mixture:measure_influence",
    "expected_losses": "analysis.decisions.scaling_law:tabulate_expected_losses",
    "explain_kernels": "kernels.matmul.dispatch:explain",
    "flip_bound": "analysis.method.sign_patterns:compute_flip_bound",
    "flipped_signs": "analysis.method.sign_patterns:tabulate_codebooks",
    "fork_prompts": "analysis.predictions.fork_study:extract_prompts",
    "fork_shares": "analysis.predictions.fork_study:tabulate_shares",
    "fork_study": "analysis.predictions.fork_study:run_fork_study",
    "generation_speed": "analysis.predictions.generation_speed:measure_generation",
    "input_spectra": "analysis.method.calibration_mixture:tabulate_spectra",
    "layer_levels": "analysis.weights.weight_sketch:find_layer_levels",
    "measured_losses": "analysis.decisions.scaling_law:tabulate_measured_losses",
    "mixture_errors": "analysis.method.calibration_mixture:tabulate_mixture_errors",
    "preset_trials": "analysis.decisions.preset_trials:try_presets",
    "read_sources": "analysis.method.calibration_mixture:read_sources",
    "sign_patterns": "analysis.method.sign_patterns:count_sign_patterns",
    "sign_vectors": "quantizers.coders.fitting.binary_kmeans:split_vectors",
    "squeeze_table": "analysis.decisions.squeeze:tabulate_stops",
    "sweep_errors": "analysis.method.run_trace:tabulate_sweep_errors",
    "sweep_paths": "analysis.method.run_trace:tabulate_sweep_paths",
    "train_codebook": "quantizers.coders.fitting.binary_kmeans:train_magnitude",
    "training_tokens": "analysis.decisions.scaling_law:read_training_tokens",
    "transform_losses": "analysis.method.learned_transform:tabulate_losses",
    "weight_histogram": "analysis.weights.weight_sketch:compute_histogram",
    "weight_sketch": "analysis.weights.weight_sketch:compute_sketch",
}

__all__ = list(_HOMES)
__getattr__ = import_lazily(__name__, _HOMES, "workbench")


def __dir__() -> list[str]:
    return sorted(_HOMES)
