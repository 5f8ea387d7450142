"""Windows of text halted before every block: the model's own forward pass, in whatever way a family goes about it."""

import pytest
import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.models.block_pass import BlockPass, Call, extract_hidden_states


class Block(nn.Module):
    """Doubles what comes in; returns a tuple, and takes hidden states by name, as some families do."""

    def forward(self, hidden_states: Tensor, shift: float = 0.0) -> tuple[Tensor, None]:
        return 2 * hidden_states + shift, None


class Model(nn.Module):
    """Two blocks, between which the first one's output is kept for later, and a head."""

    def __init__(self, order: tuple[int, ...] = (0, 1)) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.order = order

    def forward(self, ids: Tensor, use_cache: bool = True) -> Tensor:
        assert not use_cache
        x = first = ids[..., None].float()
        for number in self.order if ids[0, 0] < 100 else reversed(self.order):
            x, _ = self.layers[number](hidden_states=x, shift=float(number))
        return x + first


BLOCKS = ["layers.0", "layers.1"]
WINDOWS = [torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5]])]


def run(model: Model, windows: list[Tensor]) -> BlockPass:
    text = BlockPass(model, BLOCKS, windows)
    while text.block is not None:
        text.advance([call.outputs(model.get_submodule(text.block)) for call in text.calls])
    return text


def test_the_results_are_those_of_the_model() -> None:
    model = Model()
    text = run(model, WINDOWS)
    assert text.visits == BLOCKS
    for result, window in zip(text.results, WINDOWS, strict=True):
        torch.testing.assert_close(result, model(window, use_cache=False))


def test_what_a_block_is_said_to_return_goes_on() -> None:
    model = Model()
    text = BlockPass(model, BLOCKS, WINDOWS[:1])
    text.advance([(torch.zeros(1, 3, 1), None)])
    (call,) = text.calls
    assert not call.hidden.any()
    assert extract_hidden_states(call.outputs(model.layers[1])).eq(1).all()


def test_each_window_goes_on_with_its_own_output() -> None:
    model = Model()
    text = BlockPass(model, BLOCKS, WINDOWS)
    text.advance([call.outputs(model.layers[0]) for call in text.calls])
    assert [call.hidden.flatten().tolist() for call in text.calls] == [[2, 4, 6], [8, 10]]


def test_a_call_runs_on_other_hidden_states_and_weights() -> None:
    linear = nn.Linear(2, 2, bias=False)
    call = Call((torch.ones(1, 1, 2),), {})
    torch.testing.assert_close(call.run(linear, torch.zeros(1, 1, 2)), torch.zeros(1, 1, 2))
    torch.testing.assert_close(call.run(linear, weights={"weight": torch.eye(2)}), torch.ones(1, 1, 2))
    named = Call((), {"hidden_states": torch.ones(1, 1, 2), "shift": 1.0})
    torch.testing.assert_close(named.run(Block(), torch.zeros(1, 1, 2)), torch.ones(1, 1, 2))


def test_texts_that_take_other_ways_are_refused() -> None:
    with pytest.raises(ModelError, match="the order of this model's blocks depends on the text"):
        run(Model(), [*WINDOWS, torch.tensor([[100, 1]])])


def test_a_familys_own_error_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="'Model' cannot be run on plain text by transformers: .*list index|index 7"):
        run(Model(order=(0, 7)), WINDOWS)


def test_blocks_run_as_ever_afterwards() -> None:
    model = Model()
    BlockPass(model, BLOCKS, WINDOWS)  # left in the midst of it
    assert all("forward" not in vars(block) for block in model.layers)
    torch.testing.assert_close(model(WINDOWS[0], use_cache=False)[0, 0, 0], torch.tensor(6.0))
