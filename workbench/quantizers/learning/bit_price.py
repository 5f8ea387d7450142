"""The price of bits: learned numbers are stored only if they gain more than longer codes of the same size would."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from workbench.quantizers.learning.descent import assign_values, copy_values
from workbench.quantizers.learning.inputs import Input

MAX_PRICED_BITS = 64.0  # a weight: what costs more never pays, and the power stays a float


def keep_what_pays(inputs: Sequence[Input], beginning: Sequence[Tensor], held_out: Callable[[], float]) -> float:
    """Undo every learned part of every basis that is not worth its bits on held-out data; returns the loss in the end.

    One bit more a weight divides the squared error of any good code by four (the rate-distortion bound of normal weights). So
    a part of b bits for n weights stays only where the loss without it is more than 4^(b/n) times the loss with it, and what
    stays in all only where that holds against the parameters at the `beginning`.
    """
    loss, count = held_out(), sum(w.numel() for group in inputs for w in group.weights.values())

    parameters = [p for group in inputs for p in group.basis.parameters()]

    def without(undo: Callable[[], None], bits: int) -> float:
        """The loss after `undo`, which is taken back where `bits` are worth it."""
        previous = copy_values(parameters)
        undo()
        now = held_out()
        if now <= loss * 4 ** min(bits / count, MAX_PRICED_BITS):
            return now
        assign_values(parameters, previous)
        return loss

    for group in inputs:
        for part, bits in group.basis.stored_bits().items():
            loss = without(partial(group.basis.reset, part), bits)
    loss = without(
        partial(assign_values, parameters, beginning), sum(sum(group.basis.stored_bits().values()) for group in inputs)
    )
    held_out()  # the codes of what stays
    return loss
