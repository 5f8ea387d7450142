"""Training of a whole quantized model: its predictions against those of the original, at the same stored bits.

The loss is the Kullback-Leibler divergence of the next-token distributions, original to quantized, in nats per token. In memory
are what is trained, its optimizer state (four numbers for each), and one batch's activations, or one block's where they are
computed again.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.jobs import map_steps
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.models.block_weights import BlockWeights
from workbench.quantizers.learning.block import draw_batches
from workbench.quantizers.learning.descent import LearningStep, Memory, Schedule, descend
from workbench.quantizers.learning.trainable_forms import StoredForms, Trained

HELD_OUT = 8  # one window in so many is never trained on
HELD_OUT_TOKENS = 4096  # but no more than these: every look reads them


class Logits(Protocol):
    """See `BlockRow.compute_logits`."""

    def __call__(self, ids: Tensor, weights: BlockWeights, outside: Mapping[str, Tensor], *, recompute: bool = False) -> Tensor:
        """Next-token logits `[T, V]` of `ids [1, T]`."""


@dataclass(frozen=True)
class WholeModel:
    """A model to train and what it aims at.

    `logits(ids, weights, outside)` runs it on given weights (see `BlockRow.compute_logits`), `teach(i)` gives the original's
    log-probabilities float32 `[T, V]` on window i of `windows` `[1, T]`. `trees` are the layers' stored forms, `weights` the
    matrices that they stand for, `blocks` their names for each block, `names` the name of each one's weight in its block;
    `orient` turns `[rows, cols]` into how the block holds it. `fixed(i)` are the weights of block i that stay as they are.
    `vectors` are gains of norms and biases by block and name in it, `outside` those beside the blocks by the module's names, in
    the type in which the model stores them.
    """

    logits: Logits
    teach: Callable[[int], Tensor]
    windows: Sequence[Tensor]
    trees: Mapping[str, Packed]
    weights: Mapping[str, Tensor]
    blocks: Sequence[Sequence[str]]
    fixed: BlockWeights
    names: Mapping[str, str]
    orient: Mapping[str, Callable[[Tensor], Tensor]]
    vectors: Mapping[int, Mapping[str, Tensor]]
    outside: Mapping[str, Tensor]


@dataclass(frozen=True)
class TrainedModel:
    """Stored forms by layer, vectors by block and beside the blocks, as they are stored.

    `steps` were taken; `before` and `after` are the divergences on held-out windows, nats per token.
    """

    trees: Mapping[str, Packed]
    vectors: Mapping[int, Mapping[str, Tensor]]
    outside: Mapping[str, Tensor]
    steps: int
    before: float
    after: float


def train_whole_model(
    model: WholeModel,
    schedule: Schedule,
    *,
    norms: bool,
    codes: bool,
    every: int,
    tokens: int,
    seed: int,
    recompute: bool = False,
    start: Memory | None = None,
) -> Generator[LearningStep, None, TrainedModel]:
    """Train the floats of the stored forms, with `norms` the vectors, with `codes` the codes; returns the best.

    Codes are chosen at every `every`-th step. Each step sees windows of about `tokens` tokens, in an order drawn by `seed`.
    Windows apart are looked at with every number rounded as it is stored: the result is never worse there than the start. With
    `recompute` a block is decoded and run again for its gradients, so that one block's matrices and activations are in memory.
    `start` goes on from an earlier step's memory.
    """
    forms = StoredForms(model.trees, model.weights if codes else None)
    vectors = {index: _make_trained(named) for index, named in model.vectors.items()} if norms else {}
    outside = _make_trained(model.outside) if norms else {}
    lengths = [window.shape[1] for window in model.windows]
    apart = choose_held_out(lengths)
    training = [i for i in range(len(lengths)) if i not in apart] or apart
    batches = draw_batches(lengths, training, tokens, schedule.steps, seed)

    def decode(index: int, *, rounded: bool) -> dict[str, Tensor]:
        """What block `index` runs on."""
        trees = {name: forms.tree(name, rounded=rounded, choose=False) for name in model.blocks[index]}
        decoded = {model.names[name]: model.orient[name](formats.decode(tree)) for name, tree in trees.items()}
        return {**model.fixed(index), **decoded, **_read_values(vectors.get(index, {}), rounded=rounded)}

    def divergence(windows: Sequence[int], *, rounded: bool) -> Tensor:
        total, beside = torch.zeros(()), _read_values(outside, rounded=rounded)
        if recompute:
            weights: BlockWeights = partial(decode, rounded=rounded)
        else:
            weights = [decode(index, rounded=rounded) for index in range(len(model.blocks))].__getitem__
        for i in windows:
            logits = model.logits(model.windows[i], weights, beside, recompute=recompute)
            total = total + F.kl_div(logits.log_softmax(-1), model.teach(i), reduction="sum", log_target=True)
        return total / sum(lengths[i] for i in windows)

    def step_loss(step: int) -> Tensor:
        if step % every == 0:
            forms.choose_codes()
        return divergence(batches[step], rounded=False)

    @torch.no_grad()
    def held_out() -> float:
        forms.choose_codes()
        return divergence(apart, rounded=True).item()

    trained = [*outside.values(), *(vector for named in vectors.values() for vector in named.values())]
    parameters = [*forms.parameters(), *(vector.step for vector in trained)]
    memory = start

    def remember(step: LearningStep) -> LearningStep:
        nonlocal memory
        memory = step.memory or memory
        return step

    if parameters and schedule.steps:
        after = yield from map_steps(descend(parameters, step_loss, held_out, schedule, start), remember)
    else:
        after = held_out()
    forms.choose_codes()
    trees = {name: forms.tree(name, rounded=True, choose=False) for name in model.trees}
    steps, before = (0, after) if memory is None else (memory.step, memory.first_loss)
    trained_vectors = {index: _round(named) for index, named in vectors.items()}
    return TrainedModel(trees, trained_vectors, _round(outside), steps, before, after)


def _make_trained(vectors: Mapping[str, Tensor]) -> dict[str, Trained]:
    """Vectors as numbers to train."""
    return {name: Trained.from_stored(vector) for name, vector in vectors.items()}


def _read_values(vectors: Mapping[str, Trained], *, rounded: bool) -> dict[str, Tensor]:
    """Vectors as they are now, float32: with gradients, or rounded as they are stored."""
    return {name: vector.rounded().float() if rounded else vector.value() for name, vector in vectors.items()}


def _round(vectors: Mapping[str, Trained]) -> dict[str, Tensor]:
    """Vectors as they are stored."""
    return {name: vector.rounded() for name, vector in vectors.items()}


def choose_held_out(lengths: Sequence[int]) -> list[int]:
    """Windows that are never trained on: evenly spread, one in `HELD_OUT` or as many as make `HELD_OUT_TOKENS`."""
    apart = max(HELD_OUT, round(sum(lengths) / HELD_OUT_TOKENS))
    return list(range(0, len(lengths), apart))
