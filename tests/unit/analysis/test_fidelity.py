"""Fidelity is measured on what is stored: it agrees with the quantizer's own report and with plain torch."""

import pytest
import torch

import workbench as wb
from workbench.analysis.predictions.fidelity import FIDELITY_COLUMNS, tabulate_fidelity
from workbench.models import ModelHandle
from workbench.models.text import Text

LAYERS = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"]
STORIES = Text(
    "stories", ("Tom had a red ball. He threw it high and his dog ran after it.", "A small bird sat on the roof and sang a song.")
)


def test_errors_agree_with_plain_torch(builtin: ModelHandle) -> None:
    stats = wb.calibrate(builtin, STORIES, layers=LAYERS)
    quantized = [wb.quantize(builtin, name, wb.recipe("rtn", bits=3, group=64), stats=stats) for name in LAYERS]
    table = tabulate_fidelity(builtin, quantized, stats)
    assert list(table.columns) == FIDELITY_COLUMNS
    assert list(table["name"]) == LAYERS
    for row, layer in zip(table.itertuples(), quantized, strict=True):
        w, error = builtin.weight(layer.name).double(), layer.weight().double() - builtin.weight(layer.name).double()
        h = stats[layer.name].moment.double()
        assert row.relative_error == pytest.approx(((error**2).sum() / (w**2).sum()).item(), rel=1e-6)
        assert row.output_error == pytest.approx((torch.trace(error @ h @ error.T) / torch.trace(w @ h @ w.T)).item(), rel=1e-5)
        assert row.relative_error == pytest.approx(layer.relative_error, rel=1e-6)
        assert row.output_error == pytest.approx(layer.output_error, rel=1e-6)
        assert (row.bits_per_weight, row.nominal_bits) == (layer.bits_per_weight, layer.nominal_bits)


def test_without_calibration_there_is_no_output_error(builtin: ModelHandle) -> None:
    table = tabulate_fidelity(builtin, [wb.quantize(builtin, LAYERS[0], wb.recipe("rtn", bits=4, group=64))])
    assert table["output_error"].isna().all()


def test_a_kept_layer_has_no_error(builtin: ModelHandle) -> None:
    table = tabulate_fidelity(builtin, [wb.quantize(builtin, LAYERS[0], wb.recipe("none"))])
    assert table["relative_error"].tolist() == [0.0]
