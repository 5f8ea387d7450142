"""Signs before a Hadamard transform, chosen among random draws, because gradients cannot change a sign pattern."""

from collections.abc import Callable, Generator, Mapping, Sequence

import torch
from torch import Tensor

from workbench.quantizers.learning.descent import LearningStep
from workbench.quantizers.learning.inputs import Input


def draw_signs(
    inputs: Sequence[Input], loss: Callable[[Mapping[str, Tensor]], float], draws: int, steps: int, seed: int
) -> Generator[LearningStep, None, None]:
    """Leave in every input whose signs come before a Hadamard transform the best of `draws` sign patterns, its own first.

    One input after the other, the others as they are by then; `loss` is asked with all quantized weights by layer. Yields a
    step 0 of `steps` for every draw.
    """
    free = [group for group in inputs if group.basis.hadamard and group.basis.signs() is not None]
    if draws < 2 or not free:
        return
    generator = torch.Generator().manual_seed(seed)
    decoded = {name: w for group in inputs for name, w in group.refresh().items()}
    best = loss(decoded)
    for group in free:
        best_signs = group.basis.lean.detach().clone()
        for _ in range(draws - 1):
            drawn = torch.randint(2, best_signs.shape, generator=generator) * 2.0 - 1
            with torch.no_grad():
                group.basis.lean.copy_(drawn * best_signs.abs())
            tried = {**decoded, **group.refresh()}
            now = loss(tried)
            if now < best:
                best, decoded, best_signs = now, tried, group.basis.lean.detach().clone()
            yield LearningStep(0, steps, now)
        with torch.no_grad():
            group.basis.lean.copy_(best_signs)
