"""Λ, D± and R of one input as numbers to train, and rounded as they are stored."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.kernels.reference.rotation import cayley, factor_pair, rotate
from workbench.quantizers.contract import Params

LARGEST_GAIN = 5 * 0.6931471805599453  # |log λ| at most log 32


@dataclass(frozen=True)
class Factors:
    """Which of Λ (`gain`), D± (`signs`) and R (`rotation`) are learned; R is a Kronecker product unless `full`."""

    gain: bool
    signs: bool
    rotation: bool
    full: bool = False

    def sizes(self, cols: int) -> tuple[int, int]:
        """Sizes of R₁ and R₂."""
        return (1, cols) if self.full else factor_pair(cols)


class Basis(nn.Module):
    """A trainable T = Λ D± R that begins as the identity.

    λ = exp(θ) with |θ| ≤ log 32; d = sign(u), straight through for |u| ≤ 1; R by its Cayley matrices. What training sees is
    what is stored, up to rounding to fp16.
    """

    def __init__(self, cols: int, factors: Factors) -> None:
        super().__init__()
        self.cols, self.sizes = cols, factors.sizes(cols)
        if factors.gain:
            self.log_gain = nn.Parameter(torch.zeros(cols))
        if factors.signs:
            self.lean = nn.Parameter(torch.full((cols,), 0.05))
        if factors.rotation:
            for side, size in zip(("left", "right"), self.sizes, strict=True):
                if size > 1:
                    self.register_parameter(side, nn.Parameter(torch.zeros(size * (size - 1) // 2)))

    def matrices(self) -> tuple[Tensor, ...]:
        """R₁ and R₂, or nothing without rotation."""
        upper = dict(self.named_parameters())
        if not {"left", "right"} & upper.keys():
            return ()
        pairs = zip(("left", "right"), self.sizes, strict=True)
        return tuple(cayley(upper[side], size) if size > 1 else torch.ones(1, 1) for side, size in pairs)

    def gain(self) -> Tensor | None:
        """λ `[cols]`, or None."""
        if not hasattr(self, "log_gain"):
            return None
        return self.log_gain.clamp(-LARGEST_GAIN, LARGEST_GAIN).exp()

    def signs(self) -> Tensor | None:
        """d `[cols]`, or None."""
        if not hasattr(self, "lean"):
            return None
        hard = torch.where(self.lean >= 0, 1.0, -1.0)
        soft = self.lean.clamp(-1, 1)
        return hard + soft - soft.detach()

    def forward(self, w: Tensor) -> Tensor:
        """W' = W Λ⁻¹ D R."""
        gain, signs = self.gain(), self.signs()
        w = w if gain is None else w / gain
        return rotate(w if signs is None else w * signs, *self.matrices())

    def undo(self, w: Tensor) -> Tensor:
        """W from W': W' Rᵀ D Λ."""
        gain, signs = self.gain(), self.signs()
        w = rotate(w, *(r.mT for r in self.matrices()))
        w = w if signs is None else w * signs
        return w if gain is None else w * gain

    @torch.no_grad()
    def round(self) -> None:
        """Take the values that will be read back from the stored state."""
        state = self.state()
        for side in ("left", "right"):
            if side in state:
                getattr(self, side).copy_(state[side].float())
        if "gain" in state:
            self.log_gain.copy_(state["gain"].float().log())

    def state(self) -> Params:
        """As stored: `gain` fp16, `signs` ±1, `left` and `right` fp16; only what is learned."""
        found: Params = {}
        gain, signs = self.gain(), self.signs()
        if gain is not None:
            found["gain"] = gain.detach().half()
        if signs is not None:
            found["signs"] = torch.where(self.lean.detach() >= 0, 1.0, -1.0)
        for side in ("left", "right"):
            if hasattr(self, side):
                found[side] = getattr(self, side).detach().half()
        return found
