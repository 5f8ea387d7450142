"""What a layer of a half-quantized model should aim at."""

import torch

from workbench.quantizers.block_run import DAMPING, Seen


def seen(tokens: int = 400, cols: int = 12) -> tuple[torch.Tensor, torch.Tensor, Seen]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, cols, generator=draw)
    real = x @ (torch.eye(cols) + 0.3 * torch.randn(cols, cols, generator=draw)) + 0.1 * torch.randn(tokens, cols, generator=draw)
    return x, real, Seen(real.mT @ real / tokens, x.mT @ real / tokens)


def test_the_aim_is_the_least_squares_answer() -> None:
    x, real, both = seen()
    w = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    # damping adds, for each column, one observation in which both inputs agree
    extra = torch.eye(12) * (len(x) * DAMPING * both.moment.diagonal().mean()).sqrt()
    answer = torch.linalg.lstsq(torch.cat([real, extra]), torch.cat([x, extra]) @ w.mT).solution.mT
    torch.testing.assert_close(both.aim(w), answer, rtol=1e-3, atol=1e-4)
    assert (x @ w.mT - real @ both.aim(w).mT).norm() < 0.6 * (x @ w.mT - real @ w.mT).norm()


def test_equal_inputs_leave_the_weight_as_it_is() -> None:
    x, _, _ = seen()
    w = torch.randn(5, 12)
    moment = x.mT @ x
    assert Seen(moment, moment).aim(w) is w
