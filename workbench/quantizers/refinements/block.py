"""Refinement `block`: stored numbers are trained to bring the block's output closer to the original's."""

from collections.abc import Generator
from dataclasses import dataclass

from workbench.part_settings import REFINED
from workbench.quantizers.learning.descent import LearningStep, Schedule
from workbench.quantizers.learning.refine import QuantizedBlock, Refinement, refine_block
from workbench.recipe import setting
from workbench.registry import register


@register("refinement", "block")
@dataclass(frozen=True)
class Block(Refinement):
    """Block-wise reconstruction with quantized inputs, of whatever the layers store.

    As in BRECQ (arXiv 2102.05426) and NanoQuant (arXiv 2602.06694); AQLM (arXiv 2401.06118) trains the floats of a stored form
    that way. Codes move by a straight-through estimator; paths of a trellis and parity signs move slower and gain little.
    Every look at held-out windows is at numbers rounded as they are stored, and the best look wins: the block is never worse
    there than it was.
    """

    what: str = setting("codes", "trained parameters: stored scales; also gains of norms and biases; also codes", choices=REFINED)
    steps: int = setting(200, "maximum number of AdamW steps", low=0, high=100_000)
    rate: float = setting(
        0.02, "initial learning rate of the cosine schedule, relative to a tensor's magnitude", low=0.0, high=1.0
    )
    every: int = setting(1, "steps between updates of the codes; a trellis is slow", low=1, high=1000)
    tokens: int = setting(512, "tokens per step", low=1, high=1 << 20)

    def refine(self, block: QuantizedBlock, seed: int) -> Generator[LearningStep, None, QuantizedBlock]:
        """The block with trained numbers."""
        norms, codes = self.what != "scales", self.what == "codes"
        # to the end: the first codes to move can make a block worse for a while
        schedule = Schedule(self.steps, self.rate, patience=self.steps + 1)
        return (
            yield from refine_block(block, schedule, norms=norms, codes=codes, every=self.every, tokens=self.tokens, seed=seed)
        )
