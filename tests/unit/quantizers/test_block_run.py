"""What a layer of a half-quantized model should aim at."""

import torch

from workbench import presets
from workbench.jobs import run_steps
from workbench.kernels import formats
from workbench.quantizers.pipeline import quantize_layer
from workbench.quantizers.runs.block_run import DAMPING, Seen, round_inputs


def seen(tokens: int = 400, cols: int = 12) -> tuple[torch.Tensor, torch.Tensor, Seen]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, cols, generator=draw)
    real = x @ (torch.eye(cols) + 0.3 * torch.randn(cols, cols, generator=draw)) + 0.1 * torch.randn(tokens, cols, generator=draw)
    return x, real, Seen(real.mT @ real / tokens, x.mT @ real / tokens, tokens)


def test_the_aim_is_the_least_squares_answer() -> None:
    x, real, both = seen()
    w = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    # damping adds, for each column, one observation in which both inputs agree
    extra = torch.eye(12) * (len(x) * DAMPING * both.moment.diagonal().mean()).sqrt()
    answer = torch.linalg.lstsq(torch.cat([real, extra]), torch.cat([x, extra]) @ w.mT).solution.mT
    torch.testing.assert_close(both.aim(w, 0.0), answer, rtol=1e-3, atol=1e-4)
    assert (x @ w.mT - real @ both.aim(w, 0.0).mT).norm() < 0.6 * (x @ w.mT - real @ w.mT).norm()


def test_equal_inputs_leave_the_weight_as_it_is() -> None:
    x, _, _ = seen()
    w = torch.randn(5, 12)
    moment = x.mT @ x
    assert Seen(moment, moment, len(x)).aim(w, 0.1) is w


def test_a_layer_rounds_its_inputs_only_with_its_own_weight() -> None:
    """The original's pass runs through the same module with other weights, and must not see rounding."""
    module, x = torch.nn.Linear(12, 5), torch.randn(7, 12)
    recipe = presets.recipe("btc", bits=1, compensation=False, activations=4)
    packed = run_steps(quantize_layer(module.weight, None, recipe)).packed
    original = dict(module.named_parameters())
    module.weight = torch.nn.Parameter(formats.decode(packed), requires_grad=False)
    plain = module(x)
    with round_inputs(module, packed), torch.no_grad():
        torch.testing.assert_close(module(x), formats.linear(x, packed) + module.bias, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(module(x), plain, rtol=1e-2)
        full = torch.func.functional_call(module, original, (x,))
    torch.testing.assert_close(full, torch.nn.functional.linear(x, original["weight"], original["bias"]).detach())
    assert torch.equal(module(x), plain)
