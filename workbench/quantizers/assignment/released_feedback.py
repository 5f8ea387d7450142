"""Assignment `released-feedback`: error feedback between blocks as in the released codes of BiLLM, ARB-LLM and STBLLM."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.quantizers.assignment.feedback import compute_energy, divide_by_diagonal, feed_back, list_tile_batches
from workbench.quantizers.contract import Assignment, Layout, Quantize
from workbench.recipe import setting
from workbench.registry import register


@register("assignment", "released-feedback")
@dataclass(frozen=True)
class ReleasedFeedback(Assignment):
    """A block's error, divided by the diagonal of its factor, goes to the columns after it (`block-feedback` solves exactly).

    Before that columns without input are set to zero. With `kept` < `of`, so are the least important weights of every `of`
    (relative importance, as STBLLM): nothing marks them afterwards, so they are coded like all others, the zeros of later
    blocks after errors have filled them.
    """

    block: int = setting(128, "columns coded at once, rounded to whole steps of the coder", low=1, high=65536)
    damping: float = setting(0.01, "damping of the second moment, relative to its mean diagonal", low=0.0, high=10.0)
    kept: int = setting(8, "weights kept out of every `of` in a row; the others are set to zero before coding", low=1, high=16)
    of: int = setting(8, "group size, out of which `kept` weights are kept", low=1, high=16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kept > self.of:
            raise RecipeError(
                f"assignment 'released-feedback': {self.kept} of {self.of} weights cannot be kept; use at most kept={self.of}."
            )

    @property
    def needs_moment(self) -> bool:
        """Where an error hurts least is read from the second moment."""
        return True

    def run(self, w: Tensor, moment: Tensor | None, layout: Layout, quantize: Quantize) -> Iterator[Tensor]:
        """Code block by block from left to right."""
        assert moment is not None
        energy = compute_energy(moment)
        w[:, energy <= 0] = 0
        if self.kept < self.of:
            w *= select_most_important(w, energy, self.kept, self.of)
        yield from feed_back(w, moment, list_tile_batches(layout, self.block), self.damping, quantize, divide_by_diagonal)


def select_most_important(w: Tensor, energy: Tensor, keep: int, span: int) -> Tensor:
    """Mask of all but the `of` − `kept` least important of every `of` neighbours of a row (of fewer in a shorter last group).

    A weight's importance is its share of its column's sum of sizes plus its share of its row's, times (E x²)^¼.
    """
    size = w.double().abs()
    shares = sum(size / size.sum(d, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny) for d in (0, 1))
    importance = shares * energy.double().clamp(min=0) ** 0.25
    padded = torch.nn.functional.pad(importance, (0, -w.shape[1] % span), value=torch.inf).unflatten(1, (-1, span))
    least = torch.argsort(padded, dim=-1, stable=True)[..., : span - keep]
    chosen = torch.ones_like(padded, dtype=torch.bool).scatter_(-1, least, value=False)
    return chosen.flatten(1)[:, : w.shape[1]]
