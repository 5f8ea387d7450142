"""Second moments of a layer's input weighted by how strongly the loss depends on the layer's output, token by token.

A loss ℓ grows by about ½ Σ_i E[g_i² (e_i x)²] when the layer's rows move by e_i, where g_i is the gradient of ℓ by output i (one
token's, sampled from the model's own predictions: the diagonal blocks of the Fisher information). Keeping E[g_i² x xᵀ] for every
row i is too much, so rows are put into groups of neighbours that share the mean of their g²: H_g = E[s_g x xᵀ], as in GuidedQuant
(arXiv 2505.07004). Beside them the Fisher diagonal E[g_i²] of every row is kept.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.moment_sums import add_product, choose_sum_dtype, compute_symmetric_mean

TENSORS = ("groups", "rows", "weight", "square")  # of GuidedMoments, as a store keeps them


def split_rows(rows: int, groups: int) -> list[slice]:
    """`groups` groups of neighbouring rows, as equal as they can be, the larger ones first; no more groups than rows."""
    sizes = [len(part) for part in torch.arange(rows).tensor_split(min(groups, rows))]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@dataclass(frozen=True)
class TokenWeights:
    """How strongly the loss depends on a layer's output: squared gradients, float32.

    `tokens [tokens, groups]` are means over each group of rows, token by token; `rows [rows]` means over the tokens, row by row.
    """

    tokens: Tensor
    rows: Tensor


@dataclass(frozen=True)
class GuidedMoments:
    """Weighted second moments of a layer's input over `tokens` tokens, float32.

    `groups [groups, cols, cols]` = E[s_g x xᵀ] with the weight s_g of each group of rows (see `split_rows`); `rows [rows]` =
    E[g²], the Fisher diagonal over outputs; `weight [groups]` = E[s_g] and `square [groups]` = E[s_g²].
    """

    groups: Tensor
    rows: Tensor
    weight: Tensor
    square: Tensor
    tokens: int

    def __add__(self, other: "GuidedMoments") -> "GuidedMoments":
        total = self.tokens + other.tokens

        def average(mine: Tensor, theirs: Tensor) -> Tensor:
            return ((mine.double() * self.tokens + theirs.double() * other.tokens) / total).float()

        return GuidedMoments(**{name: average(getattr(self, name), getattr(other, name)) for name in TENSORS}, tokens=total)

    @property
    def effective_tokens(self) -> list[int]:
        """How many equally weighted tokens each group's moment is worth (Kish's effective sample size): n E[s]² / E[s²]."""
        ratio = self.weight.double().square() / self.square.double().clamp(min=torch.finfo(torch.float64).tiny)
        return [round(count) for count in (self.tokens * ratio).tolist()]

    @property
    def mean(self) -> Tensor:
        """E[s x xᵀ] with s the mean over all rows, `[cols, cols]`: for parts that see all rows at once."""
        total = torch.zeros(self.groups.shape[1:])
        for moment, rows in zip(self.groups, split_rows(len(self.rows), len(self.groups)), strict=True):
            total.add_(moment, alpha=(rows.stop - rows.start) / len(self.rows))
        return total

    def map_groups(self, change: Callable[[Tensor], Tensor]) -> "GuidedMoments":
        """The same with every group's moment changed."""
        return replace(self, groups=torch.stack([change(moment) for moment in self.groups]))


class GuidedSums:
    """Running sums of a layer's weighted inputs, token after token in the order of `weights`."""

    def __init__(self, cols: int, weights: TokenWeights) -> None:
        self.weights, self.count = weights, 0
        self.totals = [torch.zeros(cols, cols, dtype=choose_sum_dtype(cols)) for _ in range(weights.tokens.shape[1])]

    def add(self, x: Tensor) -> None:
        """Count inputs `x [tokens, cols]`, float32."""
        roots = self.weights.tokens[self.count : self.count + len(x)].sqrt()
        self.count += len(x)
        if len(roots) < len(x):
            raise ModelError(f"{self.count} inputs came to a layer whose gradients are of {len(self.weights.tokens)} tokens.")
        for total, root in zip(self.totals, roots.T, strict=True):
            weighted = x * root[:, None]
            add_product(total, weighted, weighted)

    def mean(self, keep: Callable[[Tensor], Tensor] = lambda moment: moment) -> GuidedMoments:
        """The sums as means, which are used up; `keep` says where the moments are kept, as `spill` keeps them on disk."""
        if self.count != len(self.weights.tokens):
            raise ModelError(f"{self.count} inputs came to a layer whose gradients are of {len(self.weights.tokens)} tokens.")
        moments = keep(torch.stack([compute_symmetric_mean(total, self.count) for total in self.totals]))
        self.totals = []
        weights = self.weights.tokens.double()
        weight, square = weights.mean(0).float(), weights.square().mean(0).float()
        return GuidedMoments(moments, self.weights.rows, weight, square, self.count)


class GuidedCollector:
    """Hooks that feed the inputs of layers into GuidedSums: `layers` are their columns and weights by name, others are not seen.

    Passes of other threads through the same model are not counted.
    """

    def __init__(self, layers: Mapping[str, tuple[int, TokenWeights]]) -> None:
        self._thread = threading.get_ident()
        self.sums = {name: GuidedSums(cols, weights) for name, (cols, weights) in layers.items()}

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Hooks on those of `modules` that are measured, for the duration of the context."""
        with ExitStack() as hooks:
            for name in self.sums:
                hooks.enter_context(modules[name].register_forward_pre_hook(partial(self._see, name)))
            yield

    def _see(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if threading.get_ident() == self._thread:
            self.sums[name].add(inputs[0].reshape(-1, inputs[0].shape[-1]).float())

    def moments(self, keep: Callable[[Tensor], Tensor] | None = None) -> dict[str, GuidedMoments]:
        """GuidedMoments by layer; the sums are used up. `keep` says where moments are kept: `spill` keeps them on disk."""
        return {name: self.sums.pop(name).mean(keep or (lambda moment: moment)) for name in list(self.sums)}


def count_bytes(rows: int, cols: int, groups: int) -> int:
    """Bytes of the sums behind the guided moments of one layer."""
    return min(groups, rows) * cols * cols * choose_sum_dtype(cols).itemsize
