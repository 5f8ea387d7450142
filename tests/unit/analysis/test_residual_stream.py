"""The residual stream: each vector is the norm of the rows or columns it names, and inner channels find their rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.weights import residual_stream
from workbench.models.anatomy import AnatomyError
from workbench.session import SharedModel


@pytest.fixture(scope="module")
def shared(tiny_models: dict[str, Path]) -> SharedModel:
    return SharedModel(wb.open_model(tiny_models["qwen3"]))


def rms_one(energy: torch.Tensor) -> np.ndarray:
    """Norms over their root mean square."""
    return (energy / energy.mean()).sqrt().numpy()


def test_every_stop_holds_the_norms_of_its_own_weights(shared: SharedModel) -> None:
    found, model = shared.stream(), shared.model
    assert [step.label for step in found.steps] == ["embedding", "0 · attention", "0 · mlp", "1 · attention", "1 · mlp", "head"]
    module = model.module
    attention, mlp = module.model.layers[1].self_attn, module.model.layers[1].mlp
    with torch.no_grad():
        heads = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).double()
        np.testing.assert_allclose(found.read[3], rms_one(heads.square().sum(0)), rtol=1e-5)
        np.testing.assert_allclose(found.written[4], rms_one(mlp.down_proj.weight.double().square().sum(1)), rtol=1e-5)
        gains = module.model.layers[1].post_attention_layernorm.weight.double()
        np.testing.assert_allclose(found.gain[4], rms_one(gains.square()), rtol=1e-5)
        embedding = module.model.embed_tokens.weight.double()
        np.testing.assert_allclose(found.written[0], rms_one(embedding.square().sum(0)), rtol=1e-5)


def test_inputs_are_known_once_the_model_has_been_calibrated(shared: SharedModel) -> None:
    stats = wb.calibrate(shared.model, wb.text("calibration"), tokens=256)
    plain, heard = (
        residual_stream.build_stream(shared.model, shared.sketch),
        residual_stream.build_stream(shared.model, shared.sketch, stats),
    )
    assert np.isnan(plain.input_size).all()
    moment = stats["model.layers.0.mlp.up_proj"].moment.diagonal().double()
    np.testing.assert_allclose(heard.input_size[2], rms_one(moment), rtol=1e-5)
    np.testing.assert_array_equal(heard.read, plain.read)


def test_a_scaled_channel_stands_out_where_it_is_written_and_read(shared: SharedModel) -> None:
    table = residual_stream.tabulate_stream_channels(shared.stream(), [7, 9])
    assert list(table) == ["stop", "channel", "written", "gain", "input_size", "read"]
    assert len(table) == 2 * 6
    second = table[table["channel"] == 9].reset_index()
    np.testing.assert_allclose(second["read"].to_numpy(), shared.stream().read[:, 9])


def test_a_neuron_is_made_by_the_rows_that_make_it(shared: SharedModel) -> None:
    known = residual_stream.read_model_anatomy(shared.model)
    down = "model.layers.0.mlp.down_proj"
    table = residual_stream.tabulate_inner_channels(shared.model, known, down, [5], shared.sketch)
    assert table["name"].tolist() == ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj", down]
    assert (table["part"].tolist(), table["index"].tolist()) == (["row", "row", "column"], [5, 5, 5])


def test_an_entry_of_the_heads_is_the_row_of_v_that_its_group_shares(shared: SharedModel) -> None:
    """Four heads of 16 over two of v: v's own output, repeated as attention repeats it, says which row each entry is."""
    known, layer = residual_stream.read_model_anatomy(shared.model), "model.layers.0.self_attn.o_proj"
    ((name, row),) = residual_stream.find_inner_sources(shared.model, known, layer).items()
    assert name == "model.layers.0.self_attn.v_proj"
    repeated = torch.arange(32).view(2, 16).repeat_interleave(2, 0).reshape(-1)
    assert [row(j) for j in range(64)] == repeated.tolist()


def test_who_reads_the_stream(shared: SharedModel) -> None:
    known = residual_stream.read_model_anatomy(shared.model)
    reads = {name.rsplit(".", 1)[-1]: residual_stream.is_stream_reader(known, name) for name in shared.model.layer_names}
    assert reads == {
        "q_proj": True, "k_proj": True, "v_proj": True, "o_proj": False, "gate_proj": True, "up_proj": True, "down_proj": False
    }  # fmt: skip


@pytest.mark.parametrize("family", ["opt", "gpt2", "gemma", "bert"])
def test_other_families_say_why_they_are_not_followed(tiny_models: dict[str, Path], family: str) -> None:
    with pytest.raises(AnatomyError, match="cannot be fused") as caught:
        residual_stream.read_model_anatomy(wb.open_model(tiny_models[family]))
    assert caught.value.why
