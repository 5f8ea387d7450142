"""An app with one matrix of 4,096 × 11,008 random weights in a tiny model, of which one weight is very large."""

from functools import cache

import panel as pn
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import workbench as wb
from workbench.session import Session, SharedModel
from workbench.widgets.shell.page import visit

LARGE = "model.layers.0.mlp.down_proj"
ROWS, COLS = 4096, 11008
OUTLIER = (1234, 5678, -0.875)  # row, column, weight; exact in 16 bits


@cache
def open_large() -> SharedModel:
    """The model, opened once for all visitors."""
    config = LlamaConfig(
        hidden_size=ROWS,
        intermediate_size=COLS,
        num_hidden_layers=1,
        num_attention_heads=32,
        num_key_value_heads=1,
        vocab_size=64,
    )
    with torch.device("meta"):
        network = LlamaForCausalLM(config)
    network = network.to(torch.bfloat16).to_empty(device="cpu")
    draws = torch.Generator().manual_seed(0)
    row, col, value = OUTLIER
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        weight = network.get_submodule(LARGE).weight
        weight.normal_(std=0.02, generator=draws)
        weight[row, col] = value
    return SharedModel(wb.open_model(network))


def build() -> wb.WeightRaster:
    """The picture of its largest matrix."""
    session = Session(open_large())
    session.select(LARGE)
    return wb.WeightRaster(session)


if pn.state.served:
    visit(build).servable(title="large layer")
