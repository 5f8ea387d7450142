"""Measures beyond the first page of the public surface: plain data or tables, without a screen.

Each name is imported from its home on first use, as those of `workbench` itself are.

Example:
    >>> import workbench as wb
    >>> model = wb.open_model("builtin")
    >>> wb.measures.weight_sketch(model.weight("model.layers.0.mlp.down_proj")).histogram.total
    196608
"""

from typing import TYPE_CHECKING

from workbench.import_hook import import_lazily

if TYPE_CHECKING:
    from workbench.analysis.decisions.preset_trials import try_presets as preset_trials
    from workbench.analysis.decisions.recipe_sweep import sweep_recipes as sweep
    from workbench.analysis.decisions.scaling_law import UNDERTRAINED, count_parameters
    from workbench.analysis.decisions.scaling_law import read_training_tokens as training_tokens
    from workbench.analysis.decisions.scaling_law import tabulate_expected_losses as expected_losses
    from workbench.analysis.decisions.scaling_law import tabulate_measured_losses as measured_losses
    from workbench.analysis.decisions.squeeze import tabulate_stops as squeeze_table
    from workbench.analysis.method.calibration_mixture import measure_influence as document_influence
    from workbench.analysis.method.calibration_mixture import read_default_texts as calibration_texts
    from workbench.analysis.method.calibration_mixture import read_sources
    from workbench.analysis.method.calibration_mixture import tabulate_mixture_errors as mixture_errors
    from workbench.analysis.method.calibration_mixture import tabulate_overlaps as channel_overlaps
    from workbench.analysis.method.calibration_mixture import tabulate_spectra as input_spectra
    from workbench.analysis.method.coded_basis import extract_coded_basis as coded_basis
    from workbench.analysis.method.learned_transform import tabulate_losses as transform_losses
    from workbench.analysis.method.run_trace import Trace
    from workbench.analysis.method.run_trace import tabulate_sweep_errors as sweep_errors
    from workbench.analysis.method.run_trace import tabulate_sweep_paths as sweep_paths
    from workbench.analysis.method.sign_patterns import compute_flip_bound as flip_bound
    from workbench.analysis.method.sign_patterns import count_sign_patterns as sign_patterns
    from workbench.analysis.method.sign_patterns import tabulate_codebooks as flipped_signs
    from workbench.analysis.predictions.ablation import run_ablation as ablation
    from workbench.analysis.predictions.block_reading import pack_block as packed_block
    from workbench.analysis.predictions.block_reading import read_block as block_reading
    from workbench.analysis.predictions.fork_rate import measure_forks as fork_rate
    from workbench.analysis.predictions.fork_study import extract_prompts as fork_prompts
    from workbench.analysis.predictions.fork_study import run_fork_study as fork_study
    from workbench.analysis.predictions.fork_study import tabulate_shares as fork_shares
    from workbench.analysis.predictions.generation_speed import measure_generation as generation_speed
    from workbench.analysis.predictions.kl_base import compare_with_base as base_divergence
    from workbench.analysis.predictions.kl_base import read_kl_base, write_kl_base
    from workbench.analysis.predictions.kl_report import summarise_kl as kl_report
    from workbench.analysis.predictions.kv_cache import make_cached_model as cached_model
    from workbench.analysis.predictions.kv_cache import tabulate_caches as cache_table
    from workbench.analysis.predictions.position_table import tabulate_positions as position_table
    from workbench.analysis.predictions.task_accuracy import measure_tasks as task_accuracy
    from workbench.analysis.predictions.task_flips import count_flips as task_flips
    from workbench.analysis.predictions.task_flips import tabulate_flips as flips_table
    from workbench.analysis.weights.weight_sketch import compute_histogram as weight_histogram
    from workbench.analysis.weights.weight_sketch import compute_sketch as weight_sketch
    from workbench.analysis.weights.weight_sketch import find_layer_levels as layer_levels
    from workbench.kernels.kernel_mode import Mode as KernelMode
    from workbench.kernels.matmul.dispatch import choose as choose_kernel
    from workbench.kernels.matmul.dispatch import explain as explain_kernels
    from workbench.models.text import Text
    from workbench.models.text_windows import measure_in_windows as windowed_perplexity
    from workbench.models.written_text import write_text
    from workbench.quantizers.coders.fitting.binary_kmeans import split_vectors as sign_vectors
    from workbench.quantizers.coders.fitting.binary_kmeans import train_magnitude as train_codebook

__all__ = [
    "UNDERTRAINED",
    "KernelMode",
    "Text",
    "Trace",
    "ablation",
    "base_divergence",
    "block_reading",
    "cache_table",
    "cached_model",
    "calibration_texts",
    "channel_overlaps",
    "choose_kernel",
    "coded_basis",
    "count_parameters",
    "document_influence",
    "expected_losses",
    "explain_kernels",
    "flip_bound",
    "flipped_signs",
    "flips_table",
    "fork_prompts",
    "fork_rate",
    "fork_shares",
    "fork_study",
    "generation_speed",
    "input_spectra",
    "kl_report",
    "layer_levels",
    "measured_losses",
    "mixture_errors",
    "packed_block",
    "position_table",
    "preset_trials",
    "read_kl_base",
    "read_sources",
    "sign_patterns",
    "sign_vectors",
    "squeeze_table",
    "sweep",
    "sweep_errors",
    "sweep_paths",
    "task_accuracy",
    "task_flips",
    "train_codebook",
    "training_tokens",
    "transform_losses",
    "weight_histogram",
    "weight_sketch",
    "windowed_perplexity",
    "write_kl_base",
    "write_text",
]

_HOMES = {
    "KernelMode": "kernels.kernel_mode:Mode",
    "Text": "models.text:Text",
    "Trace": "analysis.method.run_trace:Trace",
    "UNDERTRAINED": "analysis.decisions.scaling_law:UNDERTRAINED",
    "ablation": "analysis.predictions.ablation:run_ablation",
    "base_divergence": "analysis.predictions.kl_base:compare_with_base",
    "block_reading": "analysis.predictions.block_reading:read_block",
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
    "flips_table": "analysis.predictions.task_flips:tabulate_flips",
    "fork_prompts": "analysis.predictions.fork_study:extract_prompts",
    "fork_rate": "analysis.predictions.fork_rate:measure_forks",
    "fork_shares": "analysis.predictions.fork_study:tabulate_shares",
    "fork_study": "analysis.predictions.fork_study:run_fork_study",
    "generation_speed": "analysis.predictions.generation_speed:measure_generation",
    "input_spectra": "analysis.method.calibration_mixture:tabulate_spectra",
    "kl_report": "analysis.predictions.kl_report:summarise_kl",
    "layer_levels": "analysis.weights.weight_sketch:find_layer_levels",
    "measured_losses": "analysis.decisions.scaling_law:tabulate_measured_losses",
    "mixture_errors": "analysis.method.calibration_mixture:tabulate_mixture_errors",
    "position_table": "analysis.predictions.position_table:tabulate_positions",
    "packed_block": "analysis.predictions.block_reading:pack_block",
    "preset_trials": "analysis.decisions.preset_trials:try_presets",
    "read_kl_base": "analysis.predictions.kl_base:read_kl_base",
    "read_sources": "analysis.method.calibration_mixture:read_sources",
    "sign_patterns": "analysis.method.sign_patterns:count_sign_patterns",
    "sign_vectors": "quantizers.coders.fitting.binary_kmeans:split_vectors",
    "squeeze_table": "analysis.decisions.squeeze:tabulate_stops",
    "sweep": "analysis.decisions.recipe_sweep:sweep_recipes",
    "sweep_errors": "analysis.method.run_trace:tabulate_sweep_errors",
    "sweep_paths": "analysis.method.run_trace:tabulate_sweep_paths",
    "task_accuracy": "analysis.predictions.task_accuracy:measure_tasks",
    "task_flips": "analysis.predictions.task_flips:count_flips",
    "train_codebook": "quantizers.coders.fitting.binary_kmeans:train_magnitude",
    "training_tokens": "analysis.decisions.scaling_law:read_training_tokens",
    "transform_losses": "analysis.method.learned_transform:tabulate_losses",
    "weight_histogram": "analysis.weights.weight_sketch:compute_histogram",
    "weight_sketch": "analysis.weights.weight_sketch:compute_sketch",
    "windowed_perplexity": "models.text_windows:measure_in_windows",
    "write_kl_base": "analysis.predictions.kl_base:write_kl_base",
    "write_text": "models.written_text:write_text",
}

if not TYPE_CHECKING:  # a type checker knows the names above, and says where one does not exist
    __getattr__ = import_lazily(__name__, _HOMES, "workbench")


def __dir__() -> list[str]:
    return sorted(__all__)
