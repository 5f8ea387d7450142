"""Bases learned for a whole transformer block: its output with quantized weights against its full-precision output."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from workbench.models.block_pass import Call
from workbench.quantizers.learning.bit_price import keep_what_pays
from workbench.quantizers.learning.descent import LearningStep, Memory, Schedule, assign_values, copy_values, descend
from workbench.quantizers.learning.inputs import Input
from workbench.quantizers.learning.sign_draws import draw_signs

HELD_OUT = 8  # one window in so many is never trained on
DRAWN = 2  # steps whose windows decide between draws


class BlockLoss:
    """The block's output error on windows: Σ‖out − full‖² over Σ‖full − hidden‖², the share lost of what the block adds.

    `full` are the outputs of the full-precision block; inputs are full-precision too (teacher inputs).
    """

    def __init__(self, block: nn.Module, calls: Sequence[Call], hidden: Sequence[Tensor], full: Sequence[Tensor]) -> None:
        self.block, self.calls, self.hidden, self.full = block, calls, hidden, full

    def __call__(self, windows: Sequence[int], weights: Mapping[str, Tensor]) -> Tensor:
        """Over some windows, with `weights` by their names in the block."""
        error_sum, added = torch.zeros(()), torch.zeros(())
        for i in windows:
            out = self.calls[i].run(self.block, self.hidden[i], weights)
            error_sum = error_sum + (out - self.full[i]).square().sum()
            added = added + (self.full[i] - self.hidden[i]).square().sum()
        return error_sum / added.clamp(min=torch.finfo(torch.float32).tiny)


def learn_block(
    loss: BlockLoss,
    inputs: Sequence[Input],
    names: Mapping[str, str],
    orient: Mapping[str, Callable[[Tensor], Tensor]],
    schedule: Schedule,
    *,
    tokens: int,
    seed: int,
    draws: int = 1,
    commitment: float = 0.0,
    start: Memory | None = None,
) -> Generator[LearningStep, None, float]:
    """Train the bases of all `inputs` together and leave the best in them; returns the held-out loss.

    `names` gives each layer's weight in the block, `orient` turns `[rows, cols]` into how the block holds it. Each step sees
    windows of about `tokens` tokens, in an order drawn by `seed`; every eighth window is held out. Every look at these quantizes
    again, for the steps up to the next look. The loss is the block's, and for a share of `commitment` the weights' distance from
    their nearest codes, chosen anew at every step. Before the first step, signs before a Hadamard transform are the best of
    `draws`; after the last one, what gains less than its bits is undone. `start` goes on from an earlier step's memory.
    """
    count = len(loss.hidden)
    apart = list(range(0, count, HELD_OUT)) if count > 1 else [0]
    training = [i for i in range(count) if i not in apart] or apart
    lengths = [hidden.shape[1] for hidden in loss.hidden]
    batches = draw_batches(lengths, training, tokens, max(schedule.steps, DRAWN), seed)

    def in_block(weights: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {names[name]: orient[name](w) for value in weights for name, w in value.items()}

    def step_loss(step: int) -> Tensor:
        total = torch.zeros(())
        if commitment > 0:
            total = total + commitment * torch.stack([group.distance() for group in inputs]).mean()
        if commitment < 1:
            total = total + (1 - commitment) * loss(batches[step], in_block(group.effective() for group in inputs))
        return total

    @torch.no_grad()
    def held_out() -> float:
        return loss(apart, in_block(group.refresh() for group in inputs)).item()

    @torch.no_grad()
    def drawn_loss(weights: Mapping[str, Tensor]) -> float:
        return loss(sorted({i for batch in batches[:DRAWN] for i in batch}), in_block([weights])).item()

    parameters = [p for group in inputs for p in group.basis.parameters()]
    first = copy_values(parameters)
    if start is None:
        yield from draw_signs(inputs, drawn_loss, draws, schedule.steps, seed)
    else:  # the codes of the basis to go on with
        assign_values(parameters, start.values)
        held_out()
    beginning = [
        value if p.requires_grad else p.detach().clone() for p, value in zip(parameters, first, strict=True)
    ]  # with the signs chosen
    if not schedule.steps or not any(parameter.requires_grad for parameter in parameters):
        return held_out()
    yield from descend(parameters, step_loss, held_out, schedule, start)
    return keep_what_pays(inputs, beginning, held_out)


def draw_batches(lengths: Sequence[int], windows: Sequence[int], tokens: int, steps: int, seed: int) -> list[list[int]]:
    """Windows of each step, at least `tokens` tokens together; every window is seen once before any is seen again."""
    draw, order = torch.Generator().manual_seed(seed), list[int]()
    batches = []
    for _ in range(steps):
        batch, size = list[int](), 0
        while size < tokens and len(batch) < len(windows):
            if not order:
                order = [windows[i] for i in torch.randperm(len(windows), generator=draw).tolist()]
            batch.append(order.pop())
            size += lengths[batch[-1]]
        batches.append(batch)
    return batches
