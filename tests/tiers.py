"""Which tests run when: a fast check while working, what guards a commit, and the complete suite.

A test guards a commit unless it is marked `complete`, beside the test or by an entry of `LATER`. The complete suite is then every
other test, so that the two commands in CONTRIBUTING.md together run each test once.
"""

from collections.abc import Iterable

import pytest

# Files that say most per second: the fast check, without those of their tests that wait for the complete suite
FAST = (
    "tests/unit/analysis/test_codewords.py",
    "tests/unit/analysis/test_distribution.py",
    "tests/unit/analysis/test_divergence.py",
    "tests/unit/analysis/test_weight_sketch.py",
    "tests/unit/cli/test_mistakes.py",
    "tests/unit/kernels/test_bitpack.py",
    "tests/unit/kernels/test_declared.py",
    "tests/unit/kernels/test_dispatch.py",
    "tests/unit/kernels/test_packed.py",
    "tests/unit/kernels/test_packed_linear.py",
    "tests/unit/kernels/test_reference.py",
    "tests/unit/kernels/test_rotation.py",
    "tests/unit/models/test_families.py",
    "tests/unit/models/test_handle.py",
    "tests/unit/presets/test_presets.py",
    "tests/unit/quantizers/test_binary_kmeans.py",
    "tests/unit/quantizers/test_misfits.py",
    "tests/unit/quantizers/test_quantize_model.py",
    "tests/unit/quantizers/test_sign_planes.py",
    "tests/unit/quantizers/test_splits.py",
    "tests/unit/quantizers/test_uniform.py",
    "tests/unit/test_bits.py",
    "tests/unit/test_jobs.py",
    "tests/unit/test_json_value.py",
    "tests/unit/test_names.py",
    "tests/unit/test_recipe.py",
    "tests/unit/test_tiers.py",
    "tests/unit/views/test_theme.py",
)

# Node ids, or how they begin (a folder, a file, a test), by the reason why they wait for the complete suite
LATER: dict[str, tuple[str, ...]] = {
    "a real browser, a real kernel of Jupyter, or many visitors of a server": (
        "tests/browser",
        "tests/integration/test_notebooks.py",
        "tests/integration/test_kernel_thread.py",
        "tests/integration/test_visitors.py",
    ),
    "every example of a docstring; that each public name has one, with its arguments, guards a commit": (
        "tests/unit/test_docstrings.py::test_the_example_runs",
    ),
    "the type checker, which takes a minute where it starts from nothing; pre-commit runs it in seconds": (
        "tests/unit/test_house.py::test_tool_passes[mypy]",
    ),
    "the main job at full size: round to nearest guards a commit, from the command line to the comparison": (
        "tests/integration/test_main_job.py::test_quantize_eval_compare[btc-0.8]",
        "tests/integration/test_main_job.py::test_eight_bits_are_nearly_free",
        "tests/integration/test_main_job.py::test_none_is_exactly_free[builtin]",
        "tests/integration/test_main_job.py::test_magnitude_aware_codebook_is_below_hamming[builtin]",
        "tests/integration/test_main_job.py::test_gptq_is_below_rtn[builtin-2]",
        "tests/integration/test_main_job.py::test_gptq_is_below_rtn[builtin-3]",
        "tests/integration/test_main_job.py::test_gptq_is_below_rtn[stories260k-3]",
        "tests/integration/test_main_job.py::test_saved_model_runs_as_the_dequantized_one",
        "tests/unit/quantizers/test_block_sequence.py::test_repairing_what_was_lost_beats_every_layer_by_itself",
        "tests/unit/analysis/test_squeeze.py::test_a_stopped_job_goes_on_where_it_was",
        "tests/unit/analysis/test_squeeze.py::test_one_job_builds_for_all_visitors",
        "tests/unit/cli/test_card.py::test_card_and_diff",
        "tests/unit/widgets/test_figure_time.py",
        "tests/unit/widgets/test_what_if.py::test_painter",
        "tests/unit/widgets/test_what_if.py::test_paint_that_the_budget_cannot_pay_is_taken_back",
        "tests/integration/test_explore.py",
    ),
    "other families and transforms that are written in other formats: one of each format guards a commit": (
        "tests/unit/exchange/test_model_folder.py::test_transforms_are_undone",
        "tests/unit/exchange/test_model_folder.py::test_a_tied_head_that_is_quantized[*,lm_head]",
        "tests/unit/exchange/test_model_folder.py::test_transformers_computes_what_the_packed_model_does[gemma3]",
        "tests/unit/exchange/test_model_folder.py::test_transformers_computes_what_the_packed_model_does[opt]",
    ),
    "kernels compiled anew: for other processors, threading layers and disks, and by several threads at once": (
        "tests/unit/kernels/test_threads.py",
        "tests/unit/kernels/test_cuda.py::test_kernels_compile_for_a_gpu_that_is_not_here",
        "tests/unit/kernels/test_cached_njit.py::test_what_cannot_be_kept_is_one_warning",
        "tests/unit/kernels/test_cached_njit.py::test_a_second_process_compiles_nothing",
    ),
    "many draws, settings or sizes, where the others guard a commit": (
        "tests/golden/test_gaussian.py::test_binary_codebook_by_hamming_distance[256]",
        "tests/golden/test_gaussian.py::test_binary_codebook_by_hamming_distance[512]",
        "tests/golden/test_gaussian.py::test_ternary[two-planes-128]",
        "tests/golden/test_gaussian.py::test_vector_codebook[4-256]",
        "tests/golden/test_gaussian.py::test_vector_codebook[8-256]",
        "tests/golden/test_gaussian.py::test_vector_codebook[10-256]",
        "tests/unit/quantizers/learning/test_learning.py::test_a_committed_basis_is_nearer_to_its_codes[0.0]",
        "tests/unit/quantizers/learning/test_learning.py::test_a_committed_basis_is_nearer_to_its_codes[1.0]",
        "tests/unit/test_intervals.py::test_an_interval_holds_the_whole_texts_value_as_often_as_it_says",
        "tests/unit/test_intervals.py::test_a_percentile_bootstrap_would_be_found_out",
        "tests/unit/test_intervals.py::test_an_interval_of_a_part_of_one_long_document_holds_the_value_of_all_of_it",
    ),
    "interpreters of their own, which load everything anew; others of their kind guard a commit": (
        "tests/unit/models/test_folder_kinds.py::test_a_hub_id_without_an_owner_is_found_in_the_cache",
        "tests/unit/models/test_folder_kinds.py::test_the_command_line_says_it_in_one_line",
        "tests/unit/test_interrupts.py::test_the_first_job_of_a_kernel_can_be_interrupted",
        "tests/unit/test_store.py::test_two_processes_share_one_folder",
        "tests/unit/test_artifact.py::test_a_killed_process_leaves_the_older_artifact",
        "tests/unit/test_registry.py::test_a_fresh_interpreter_knows_every_part[this-test-can-fail]",
        "tests/unit/test_transformers_plugin.py::test_transformers_alone_refuses",
        "tests/unit/test_transformers_plugin.py::test_it_loads_where_workbench_is_imported_before_or_after",
        "tests/unit/test_versions.py::test_the_package_turns_no_warning_into_an_error",
        "tests/unit/cluster/test_recipe_sweep.py::test_a_killed_worker_costs_only_its_task",
        "tests/unit/cli/test_jobs.py::test_a_killed_run_is_resumed_with_the_same_result",
        "tests/unit/cli/test_jobs.py::test_a_run_is_cancelled_from_another_process",
        "tests/unit/cli/test_streams.py::test_json_in_a_windows_pipe_says_the_same",
        "tests/unit/cli/test_streams.py::test_a_full_disk_is_one_line",
        "tests/integration/test_larger_than_memory.py",
        "tests/integration/test_resumed_training.py",
    ),
    "examples that compile and time kernels, or read more than a thousand tokens": (),
    "reads a dozen files in an interpreter of its own": (
        "tests/unit/test_tiers.py::test_cases_exist_and_wait_for_the_complete_suite",
    ),
}


# Files with the longest tests, which begin first: at the end of a run all workers but one would wait for them
LONGEST = ("tests/integration/test_large_model.py",)


def covers(entry: str, nodeid: str) -> bool:
    """Whether a node id is the entry itself or lies in it: a file in its folder, a test in its file, a case of its test."""
    return nodeid == entry or nodeid.startswith((f"{entry}/", f"{entry}::", f"{entry}["))


def entries() -> list[str]:
    """All entries of `LATER`."""
    return [entry for group in LATER.values() for entry in group]


def mark_tiers(items: Iterable[pytest.Item]) -> None:
    """Give each test the markers `complete` and `fast` by the lists above."""
    later = entries()
    for item in items:
        if any(covers(entry, item.nodeid) for entry in later):
            item.add_marker(pytest.mark.complete)
        if any(covers(entry, item.nodeid) for entry in FAST) and not item.get_closest_marker("complete"):
            item.add_marker(pytest.mark.fast)


def begin_with_longest(items: list[pytest.Item]) -> None:
    """Move the longest tests to the front, in their own order."""
    items.sort(key=lambda item: not any(covers(entry, item.nodeid) for entry in LONGEST))
