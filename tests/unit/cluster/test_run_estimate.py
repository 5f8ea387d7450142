"""Estimates: sizes by configurations alone, fits of measured costs, and what many machines bring."""

import json
from pathlib import Path

import pytest

import workbench as wb
from workbench.cluster import cost_model
from workbench.cluster.cost_model import CostModel, MeasuredShape, fit_costs, measure_costs
from workbench.cluster.run_estimate import estimate_run, schedule_longest_first
from workbench.errors import ModelError, WorkbenchError
from workbench.models import ModelHandle
from workbench.models.config_shapes import read_model_shapes

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
LLAMA_70B = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
TRUE = (2e-4, 1e-7, 1e-10, 9e-11)


def write_config(folder: Path, fields: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    return folder / "config.json"


def make_costs(noise: float = 0.0) -> CostModel:
    measured = []
    for number, (rows, cols) in enumerate(cost_model.SHAPES):
        seconds = TRUE[0] * cols + TRUE[1] * rows * cols + TRUE[2] * rows * cols**2 + TRUE[3] * cols**3
        measured.append(MeasuredShape(rows, cols, seconds * (1 + noise * (-1) ** number), 4.16))
    return fit_costs(measured, 2.5e-11, 3e-11, uses_moment=True, learns=False)


def test_sizes_are_those_of_the_model(builtin: ModelHandle) -> None:
    shapes = read_model_shapes("builtin")
    assert [(layer.name, layer.rows, layer.cols, layer.block) for layer in shapes.layers] == [
        (row["name"], row["rows"], row["cols"], row["block"]) for _, row in builtin.layers().iterrows()
    ]
    parameters = sum(parameter.numel() for parameter in builtin.module.parameters())
    assert shapes.weights + shapes.other_parameters == parameters


@pytest.mark.parametrize(
    ("fields", "layers", "parameters"), [(LLAMA_8B, 224, 8_030_261_248), (LLAMA_70B, 560, 70_553_706_496)], ids=["8B", "70B"]
)
def test_a_configuration_is_enough(tmp_path: Path, fields: dict[str, object], layers: int, parameters: int) -> None:
    shapes = read_model_shapes(write_config(tmp_path / "model", fields))
    assert len(shapes.layers) == layers
    assert shapes.weights + shapes.other_parameters == parameters  # as published
    assert read_model_shapes(tmp_path / "model").layers == shapes.layers


def test_a_configuration_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no configuration 'nowhere'"):
        read_model_shapes("nowhere")
    with pytest.raises(ModelError, match="does not know"):
        read_model_shapes(write_config(tmp_path / "model", {"model_type": "nonsense"}))


def test_a_fit_finds_the_terms_and_says_how_far_it_may_be_off() -> None:
    exact = make_costs()
    assert exact.terms == pytest.approx(TRUE, rel=1e-6)
    assert exact.misfit < 1e-9
    low, high = exact.predict_range([(1024, 4096)])
    assert low < 0.95 * exact.predict(1024, 4096) < 1.05 * exact.predict(1024, 4096) < high
    noisy = make_costs(0.1)
    low, high = noisy.predict_range([(1024, 4096)])
    assert low < exact.predict(1024, 4096) < high
    assert 0 < noisy.misfit < 0.2
    assert min(noisy.terms) >= 0


def test_costs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "SHAPES", ((8, 32), (16, 32), (8, 64), (16, 64), (8, 128), (16, 128)))
    costs = measure_costs(wb.recipe("gptq", bits=3))
    assert [(one.rows, one.cols) for one in costs.measured] == list(cost_model.SHAPES)
    assert costs.uses_moment
    assert not costs.learns
    assert costs.predict(64, 128) > 0 < costs.read_seconds < costs.moment_seconds * 100
    assert 3 < costs.bits_per_weight < 4
    assert measure_costs(wb.recipe("btc", transform="both")).learns


def test_machines_share_layers_and_a_large_model_is_read_on_one(tmp_path: Path) -> None:
    shapes, costs = read_model_shapes(write_config(tmp_path / "model", LLAMA_8B)), make_costs()
    runs = [estimate_run(shapes, costs, machines, cores=2, tokens=16_384, price=0.5) for machines in (1, 8, 64)]
    total = sum(costs.predict(layer.rows, layer.cols) for layer in shapes.layers)
    longest = max(costs.predict(layer.rows, layer.cols) for layer in shapes.layers)
    assert runs[0].quantizing == pytest.approx(total / 2, rel=0.02)
    assert max(total / 128, longest) <= runs[2].quantizing <= total / 128 + longest
    assert runs[0].calibration == runs[2].calibration > 0
    assert runs[1].cost == pytest.approx(8 * runs[1].seconds / 3600 * 0.5)
    assert runs[0].worker_memory > 24 * 14_336**2
    small = estimate_run(read_model_shapes("builtin"), costs, 4, cores=2, tokens=16_384)
    assert small.calibration == pytest.approx(
        estimate_run(read_model_shapes("builtin"), costs, 1, cores=2, tokens=16_384).calibration / 4
    )
    assert small.cost is None
    with pytest.raises(WorkbenchError, match="0 machines with 2 cores"):
        estimate_run(shapes, costs, 0, cores=2, tokens=0)


def test_the_longest_task_goes_first() -> None:
    assert schedule_longest_first([1, 1, 1, 3], 2) == 3
    assert schedule_longest_first([2, 2], 8) == 2
