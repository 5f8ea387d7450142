"""Λ, D± and R of one input as numbers to train, and rounded as they are stored."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.kernels.formats.rotation import ANGLES, compute_cayley_rotation, find_factor_pair, rotate
from workbench.kernels.formats.transforms import hadamard, invert_hadamard
from workbench.quantizers.contract import State

LARGEST_GAIN = 5 * 0.6931471805599453  # |log λ| at most log 32
LEAN = 0.05  # how far from zero a sign starts where it is trained
STORED_NUMBERS = {"gain": ("gain",), "rotation": ANGLES}  # learned numbers, and what they are stored as


@dataclass(frozen=True)
class Factors:
    """Which of Λ (`gain`), D± (`signs`) and R (`rotation`) are learned; R is a Kronecker product unless `full`.

    With `hadamard` the fixed Hadamard transform comes after them, T = Λ D± R H.
    """

    gain: bool
    signs: bool
    rotation: bool
    full: bool = False
    hadamard: bool = False

    def sizes(self, cols: int) -> tuple[int, int]:
        """Sizes of R₁ and R₂."""
        return (1, cols) if self.full else find_factor_pair(cols)


@dataclass(frozen=True)
class BasisState(State):
    """T as stored: `gain [cols]` (Λ, fp16), `signs [cols]` (D±, ±1), `left` and `right` (angles of R₁ and R₂, fp16).

    None for what is not learned, and for Λ and R where they stayed the identity.
    """

    gain: Tensor | None = None
    signs: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None

    @property
    def rotates(self) -> bool:
        """Whether there is an R."""
        return self.left is not None or self.right is not None


class Basis(nn.Module):
    """A trainable T = Λ D± R H. Λ and R begin as the identity, D too, or with H as random signs drawn by `seed`.

    λ = exp(θ) with |θ| ≤ log 32; d = sign(u), straight through for |u| ≤ 1; R by its Cayley matrices. What training sees is
    what is stored, up to rounding. Signs matter only before something that mixes inputs, R or H; before H they are
    chosen among draws (see `draws`) and not trained, as a step that flips some of them undoes what was learned around them.
    """

    def __init__(self, cols: int, factors: Factors, seed: int = 0) -> None:
        super().__init__()
        self.cols, self.sizes, self.hadamard = cols, factors.sizes(cols), factors.hadamard
        if factors.gain:
            self.log_gain = nn.Parameter(torch.zeros(cols))
        if factors.signs:
            drawn = torch.randint(2, (cols,), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
            start = drawn if factors.hadamard else torch.full((cols,), LEAN)
            self.lean = nn.Parameter(start, requires_grad=not factors.hadamard)
        if factors.rotation:
            for side, size in zip(ANGLES, self.sizes, strict=True):
                if size > 1:
                    self.register_parameter(side, nn.Parameter(torch.zeros(size * (size - 1) // 2)))

    def matrices(self) -> tuple[Tensor, ...]:
        """R₁ and R₂, or nothing without rotation."""
        upper = dict(self.named_parameters())
        if not set(ANGLES) & upper.keys():
            return ()
        pairs = zip(ANGLES, self.sizes, strict=True)
        return tuple(compute_cayley_rotation(upper[side], size) if size > 1 else torch.ones(1, 1) for side, size in pairs)

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
        """W' = W Λ⁻¹ D R H."""
        gain = self.gain()
        return self.turned(w if gain is None else w / gain)

    def input(self, x: Tensor) -> Tensor:
        """x' = x Λ D R H."""
        gain = self.gain()
        return self.turned(x if gain is None else x * gain)

    def turned(self, x: Tensor) -> Tensor:
        """x D R H."""
        signs = self.signs()
        x = rotate(x if signs is None else x * signs, *self.matrices())
        return hadamard(x, torch.ones_like(x[0])) if self.hadamard else x

    def undo(self, w: Tensor) -> Tensor:
        """W from W': W' Hᵀ Rᵀ D Λ."""
        gain, signs = self.gain(), self.signs()
        w = invert_hadamard(w, torch.ones_like(w[0])) if self.hadamard else w
        w = rotate(w, *(r.mT for r in self.matrices()))
        w = w if signs is None else w * signs
        return w if gain is None else w * gain

    @torch.no_grad()
    def round(self) -> None:
        """Take the values that will be read back from the stored state."""
        state = self.state().tensors()
        for side in ANGLES:
            if hasattr(self, side):
                angles = getattr(self, side)
                angles.copy_(state.get(side, torch.zeros_like(angles)).float())
        if hasattr(self, "log_gain"):
            self.log_gain.copy_(state.get("gain", torch.ones(self.cols)).float().log())

    def stored_bits(self) -> dict[str, int]:
        """Bits of each learned part, "gain" (Λ) and "rotation" (R), that is not the identity."""
        state = self.state().tensors()
        bits = {part: 16 * sum(state[name].numel() for name in names if name in state) for part, names in STORED_NUMBERS.items()}
        return {part: part_bits for part, part_bits in bits.items() if part_bits}

    @torch.no_grad()
    def reset(self, part: str) -> None:
        """Make a part the identity again."""
        for parameter in [self.log_gain] if part == "gain" else [getattr(self, side) for side in ANGLES if hasattr(self, side)]:
            parameter.zero_()

    def state(self) -> BasisState:
        """As stored."""
        gain = self.gain()
        gain = None if gain is None else gain.detach().half()
        angles = {side: getattr(self, side).detach().half() for side in ANGLES if hasattr(self, side)}
        return BasisState(
            gain=gain if gain is not None and (gain != 1).any() else None,
            signs=torch.where(self.lean.detach() >= 0, 1.0, -1.0) if hasattr(self, "lean") else None,
            **(angles if any(side.any() for side in angles.values()) else {}),
        )
