"""Preset `btc`: the binary codebook of BTC-LLM in its honest form, one group of scales a row and no magnitude maps."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.errors import RecipeError
from workbench.presets.preset import Preset, compose, part
from workbench.quantizers.coders.sign import SCALES
from workbench.recipe import Recipe, setting
from workbench.registry import register

LENGTHS = range(8, 21)  # signs a codeword may stand for
WIDEST = 16  # bits of the longest index
CLOSE = 0.005  # how far k/v may be from the bits that were asked for


@register("preset", "btc")
@dataclass(frozen=True)
class Btc(Preset):
    """ARB signs, a binary codebook shared over a scope below one bit, exact block compensation.

    Below 1 bit: codewords of v signs, 2^k of them, nominal k/v. At 1 bit: the signs themselves. Above: a second plane for
    the most salient columns, whose share is what exceeds 1. That is how "1.11" is counted in the paper: 11 % of the
    weights with two planes and nothing else.
    """

    source: ClassVar[str] = "BTC-LLM, arXiv 2506.12040"
    note: ClassVar[str] = (
        "re-implemented from the paper, no code was released; without the learned transformation, and with one scale a row "
        "where the paper's figures need maps and scales of several magnitude groups that its bits leave out. "
        "assignment='hamming' is the paper's clustering, 'magnitude' this project's. Errors move on after each codeword"
    )

    bits: float = setting(0.8, "nominal bits per weight", low=0.3, high=2.0)
    assignment: str = setting("magnitude", "what a wrong sign costs: the weight's size, or 1", choices=("magnitude", "hamming"))
    scope: str = setting("projection", "which layers share a codebook", choices=("matrix", "projection", "model"))
    scales: str = setting("row", "what shares a scale", choices=SCALES[:2])
    mean: bool = setting(False, "also store a mean beside each scale")
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    compensation: bool = setting(True, "move each block's error to later columns (needs calibration)")
    block: int = setting(1, "columns coded at once, in whole codewords and at least one (papers: 128)", low=1, high=65536)

    def build(self) -> Recipe:
        """Codebook, signs, or signs with a second plane for salient columns, by `bits`."""
        assignment = part("assignment", "block-feedback", block=self.block) if self.compensation else None
        scales = {"scales": self.scales, "mean": self.mean, "sweeps": self.sweeps}
        if self.bits < 1:
            length, entries = codebook_shape(self.bits)
            shape = {"length": length, "entries": entries, "assignment": self.assignment, "scope": self.scope}
            return compose(part("coder", "binary-codebook", **shape, **scales), assignment=assignment)
        if self.bits in (1, 2):
            return compose(part("coder", "sign", planes=int(self.bits), **scales), assignment=assignment)
        metric = "hessian" if self.compensation else "magnitude"
        return compose(
            part("coder", "sign", planes=1, **scales),
            part("coder", "sign", planes=2, **scales),
            split=part("split", "salient-columns", share=round(self.bits - 1, 6), metric=metric),
            assignment=assignment,
        )


def codebook_shape(bits: float) -> tuple[int, int]:
    """(v, 2^k): the shortest codewords whose k/v is within 0.005 of `bits`; RecipeError names the nearest there are."""
    shapes = [(v, k) for v in LENGTHS for k in range(1, min(v, WIDEST + 1))]
    for v, k in shapes:
        if abs(k / v - bits) <= CLOSE:
            return v, 1 << k
    below = max((k / v for v, k in shapes if k / v < bits), default=None)
    above = min((k / v for v, k in shapes if k / v > bits), default=1.0)
    near = " or ".join(f"{rate:.4g}" for rate in (below, above) if rate is not None)
    tried = f"{LENGTHS[0]} to {LENGTHS[-1]} signs with at most 2^{WIDEST} entries"
    raise RecipeError(f"preset 'btc': no codebook of {tried} has {bits} bits; use {near}.")
