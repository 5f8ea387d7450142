"""Transform `learned`: the learned scaling, signs and rotation of the input of BTC-LLM, which lower the error of binarization."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.jobs import run_steps
from workbench.kernels.formats.rotation import Rotated
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.coders.fitting.sign_planes import (
    PlaneScales,
    alternate,
    choose_nearest_signs,
    fit_greedy_planes,
    sum_planes,
)
from workbench.quantizers.contract import Rounding, Transform
from workbench.quantizers.learning.basis import Basis, BasisState, Factors
from workbench.quantizers.learning.descent import LearningStep, Schedule
from workbench.quantizers.learning.inputs import GRADIENTS
from workbench.quantizers.learning.layer import learn_layer
from workbench.recipe import setting
from workbench.registry import register

ROTATIONS = ("none", "kronecker", "full")
ROTATION_STARTS = ("hadamard", "identity")
INPUTS = ("quantized", "teacher")


@register("transform", "learned")
@dataclass(frozen=True)
class Learned(Transform[BasisState]):
    """T = Λ D± R H of BTC-LLM (arXiv 2506.12040; no released code), learned with the recipe's own coders in the loop.

    W' = W Λ⁻¹ D R H. R is a Kronecker product of two rotations (placement and cost as in FlatQuant, arXiv 2410.09426) or one
    full rotation, by the Cayley map. Trained by AdamW where the paper uses Cayley SGD. For one layer the loss is its output
    error under the second moment; over a model, what a whole block's output loses (see `runs.block_sequence`).

    Differences: H, without which signs change nothing; signs are drawn and compared, as a straight-through gradient does no
    better than that; most of the loss is the weights' distance from their nearest codes (the paper's auxiliary loss is not
    public), as a rotation that follows the block's output alone fits codes that are gone once it is quantized again; codebooks
    are there before learning and stay; a block learns on what quantized blocks feed it (the paper: the original's), as below one
    bit these inputs have little in common; and Λ and R stay only where they gain more than their bits (see `learning.worth`).
    """

    learns: ClassVar[bool] = True
    gain: bool = setting(True, "learn a positive factor for each input (Λ)")
    signs: bool = setting(True, "learn a sign for each input (D±)")
    rotation: str = setting(
        "kronecker", "learn a rotation of the input (R), as two small Kronecker factors or in full", choices=ROTATIONS
    )
    start: str = setting("hadamard", "transform after Λ, D± and R: fixed Hadamard or none", choices=ROTATION_STARTS)
    draws: int = setting(16, "number of random sign patterns to try first, if a Hadamard transform follows", low=1, high=1000)
    commitment: float = setting(0.9, "share of the loss for the weights' distance from their nearest codes", low=0.0, high=1.0)
    inputs: str = setting(
        "quantized", "inputs of a block during learning: outputs of quantized blocks, or of the original's", choices=INPUTS
    )
    steps: int = setting(60, "maximum number of AdamW steps", low=0, high=100_000)
    rate: float = setting(0.02, "initial learning rate of the cosine schedule", low=0.0, high=1.0)
    tokens: int = setting(1024, "tokens per step, if a block is learned", low=1, high=1 << 20)
    gradient: str = setting(
        "codes", "what is held constant while the basis changes: the codes or the rounding error", choices=GRADIENTS
    )

    @property
    def factors(self) -> Factors:
        """What is learned."""
        rotation, full = self.rotation != "none", self.rotation == "full"
        return Factors(self.gain, self.signs, rotation, full, self.start == "hadamard")

    @property
    def schedule(self) -> Schedule:
        """How it is learned."""
        return Schedule(self.steps, self.rate)

    def beginning(self, cols: int, seed: int) -> BasisState:
        """The state in which learning begins for `cols` columns."""
        return Basis(cols, self.factors, seed).state()

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> BasisState:
        """Learned against plain binarization."""
        return run_steps(self.learn(w, moment, seed, Binarized()))

    def read_state(self, tensors: Mapping[str, Tensor]) -> BasisState:
        """The state that has these tensors."""
        return BasisState(**tensors)

    def learn(self, w: Tensor, moment: Tensor | None, seed: int, rounding: Rounding) -> Generator[LearningStep, None, BasisState]:
        """The same, step by step, against the recipe's coders."""
        factors, schedule, how = self.factors, self.schedule, {"draws": self.draws, "seed": seed}
        steps = learn_layer(w, moment, factors, rounding, schedule, self.gradient, commitment=self.commitment, **how)
        return (yield from steps)

    def forward(self, w: Tensor, state: BasisState) -> Tensor:
        """W Λ⁻¹ D R H."""
        return Rotated.apply(w, self.node(w.shape[0], w.shape[1], state))

    def moment(self, moment: Tensor, state: BasisState) -> Tensor:
        """Tᵀ M T, M being the second moment."""
        node = self.node(len(moment), len(moment), state)
        return Rotated.input(Rotated.input(moment, node).mT, node)

    def pack(self, inner: Packed, state: BasisState) -> Packed:
        """Format `rotated`."""
        return self.node(inner.rows, inner.cols, state, inner)

    def node(self, rows: int, cols: int, state: BasisState, *children: Packed) -> Packed:
        """The stored form around `children`."""
        tensors = {name: bitpack.pack(value > 0, 1) if name == "signs" else value for name, value in state.tensors().items()}
        facts: dict[str, Any] = {"factors": list(self.factors.sizes(cols))} if state.rotates else {}
        if self.factors.hadamard:
            facts["hadamard"] = True
        return Packed("rotated", rows, cols, tensors, facts, children)


class Binarized:
    """First-order ARB with row scales and means, three sweeps; blind to the second moment."""

    params: PlaneScales

    def __call__(self, w: Tensor, _moment: Tensor | None = None) -> Tensor:
        """Scales, means and signs of `w [rows, cols]`."""
        every = torch.ones_like(w, dtype=torch.bool)
        self.params = alternate(
            w, every, fit_greedy_planes(w, every, 1, mean=True, columns=False, over=every), 3, choose_nearest_signs
        ).params
        return self.nearest(w)

    def nearest(self, w: Tensor) -> Tensor:
        """Signs of another matrix, with these scales and means."""
        return sum_planes(choose_nearest_signs(w, self.params), self.params, slice(0, w.shape[1]))
