"""Refinement of a quantized block: training on its output error against the full-precision block."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import QuantizerPart
from workbench.quantizers.learning.block import HELD_OUT, BlockLoss, draw_batches
from workbench.quantizers.learning.descent import LearningStep, Schedule, descend
from workbench.quantizers.learning.trainable_forms import StoredForms, Trained


@dataclass(frozen=True)
class QuantizedBlock:
    """A block with quantized layers, and the output it aims at.

    `trees` are the layers' stored forms and `weights` the matrices they stand for, in the model's own basis; `names` gives
    each layer's weight in the block, `orient` turns `[rows, cols]` into how the block holds it. `vectors` are the block's other
    vectors (gains of norms, biases) by their names in the block, in the type in which the model stores them.
    """

    loss: BlockLoss
    trees: Mapping[str, Packed]
    weights: Mapping[str, Tensor]
    names: Mapping[str, str]
    orient: Mapping[str, Callable[[Tensor], Tensor]]
    vectors: Mapping[str, Tensor]


class Refinement(QuantizerPart):
    """Training of a block whose layers are all quantized, where blocks run in sequence. Subclasses register under "refinement".

    Numbers change, not their types and sizes: stored bits stay as they are.
    """

    def refine(self, block: QuantizedBlock, seed: int) -> Generator[LearningStep, None, QuantizedBlock]:
        """The block with better numbers, never worse on held-out windows."""
        raise NotImplementedError


def refine_block(
    block: QuantizedBlock, schedule: Schedule, *, norms: bool, codes: bool, every: int, tokens: int, seed: int
) -> Generator[LearningStep, None, QuantizedBlock]:
    """Train the floats of the stored forms, with `norms` the block's vectors, with `codes` the codes; returns the best block.

    Inputs are what the quantized model produces so far, the target is the original block's output in the original model.
    Codes are chosen at every `every`-th step. Each step sees windows of about `tokens` tokens, in an order drawn by `seed`;
    every eighth window is held out and looked at with every number rounded as it is stored. Never worse than the start on
    these windows.
    """
    forms = StoredForms(block.trees, block.weights if codes else None)
    vectors = {name: Trained.from_stored(vector) for name, vector in block.vectors.items()} if norms else {}
    count = len(block.loss.hidden)
    apart = list(range(0, count, HELD_OUT)) if count > 1 else [0]
    training = [i for i in range(count) if i not in apart] or apart
    batches = draw_batches([hidden.shape[1] for hidden in block.loss.hidden], training, tokens, schedule.steps, seed)

    def weights(rounded: bool, choose: bool = True) -> dict[str, Tensor]:
        decoded = {layer: formats.decode(forms.tree(layer, rounded=rounded, choose=choose)) for layer in block.trees}
        oriented = {block.names[layer]: block.orient[layer](w) for layer, w in decoded.items()}
        return oriented | {name: v.rounded().float() if rounded else v.value() for name, v in vectors.items()}

    def step_loss(step: int) -> Tensor:
        return block.loss(batches[step], weights(rounded=False, choose=step % every == 0))

    def held_out() -> float:
        with torch.no_grad():
            return block.loss(apart, weights(rounded=True)).item()

    parameters = [*forms.parameters(), *(vector.step for vector in vectors.values())]
    if parameters and schedule.steps:
        yield from descend(parameters, step_loss, held_out, schedule)
    trees = {layer: forms.tree(layer, rounded=True) for layer in block.trees}
    return replace(block, trees=trees, vectors={**block.vectors, **{name: v.rounded() for name, v in vectors.items()}})
