"""Presets `btc`, `btc-planes` and `btc-paper`: the binary codebook of BTC-LLM.

`btc` is its honest form, one plane and one scale a row; `btc-planes` adds planes that have codebooks too; `btc-paper` adds the
magnitude groups that the paper's figures imply and its bits leave out.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import RecipeError
from workbench.presets.preset import Preset, compose, part, refinement, refinement_setting
from workbench.quantizers.coders.sign import SCALES
from workbench.recipe import Part, Recipe, setting
from workbench.registry import register

LENGTHS = range(8, 21)  # signs a codeword may stand for
BLOCK = 128  # columns whose weights share scales in the paper
WIDEST = 16  # bits of the longest index
CLOSE = 0.005  # how far k/v may be from the bits that were asked for
TRANSFORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("identity", {}),
    "hadamard": ("hadamard", {}),
    "signs": ("learned", {"gain": False, "rotation": "none", "steps": 0}),  # drawn; a straight-through gradient finds none better
    "rotation": ("learned", {"gain": False, "signs": False}),
    "both": ("learned", {"gain": False}),
    "all": ("learned", {}),
}


def activation_setting() -> Any:
    """The setting of all presets here for W·A8: bits of a layer's input."""
    return setting(16, "bits of a layer's inputs when it runs, rounded token by token; 16 keeps them", choices=(16, 8, 6, 4))


def activations(bits: int) -> Part:
    """The part that rounds inputs to so many bits."""
    return part("activations", "keep") if bits == 16 else part("activations", "per-token", bits=bits)


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
        "re-implemented from the paper, no code was released; the learned transformation is off unless asked for, and one scale "
        "a row stands where the paper's figures need maps and scales of several magnitude groups that its bits leave out. "
        "assignment='hamming' is the paper's clustering, 'magnitude' this project's. Errors move on after each codeword"
    )

    bits: float = setting(0.8, "nominal bits per weight", low=0.3, high=2.0)
    assignment: str = setting("magnitude", "what a wrong sign costs: the weight's size, or 1", choices=("magnitude", "hamming"))
    scope: str = setting("projection", "which layers share a codebook", choices=("matrix", "projection", "model"))
    scales: str = setting("row", "what shares a scale", choices=SCALES[:2])
    mean: bool = setting(False, "also store a mean beside each scale")
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    repair: bool = setting(True, "where layers run in sequence, also repair what the layers before lost")
    compensation: bool = setting(True, "move each block's error to later columns (needs calibration)")
    transform: str = setting(
        "none",
        "change of the input's basis: random Hadamard, or learned signs, rotation, both, all with gains",
        choices=tuple(TRANSFORMS),
    )
    block: int = setting(1, "columns coded at once, in whole codewords and at least one (papers: 128)", low=1, high=65536)
    activations: int = activation_setting()
    refinement: str = refinement_setting()

    def build(self) -> Recipe:
        """Codebook, signs, or signs with a second plane for salient columns, by `bits`, in the basis of `transform`."""
        name, settings = TRANSFORMS[self.transform]
        basis, inputs = part("transform", name, **settings), activations(self.activations)
        return dataclasses.replace(self.plain(), transform=basis, activations=inputs, refinement=refinement(self.refinement))

    def plain(self) -> Recipe:
        """The same without a change of basis."""
        assignment = part("assignment", "block-feedback", block=self.block, repair=self.repair) if self.compensation else None
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


@register("preset", "btc-planes")
@dataclass(frozen=True)
class BtcPlanes(Preset):
    """A sum of sign planes, each looked up in a codebook of its own: magnitude groups without a map of single weights."""

    source: ClassVar[str] = "BTC-LLM, arXiv 2506.12040"
    note: ClassVar[str] = (
        "this project's: two magnitudes with a map are two sign planes, and a plane can be looked up like the signs; nominal "
        "bits are those of all indices"
    )

    bits: float = setting(1.6, "nominal bits per weight, the same share for each plane", low=0.6, high=1.8)
    planes: int = setting(2, "sign planes", low=2, high=3)
    assignment: str = setting("magnitude", "what a wrong sign costs: the weight's size, or 1", choices=("magnitude", "hamming"))
    scope: str = setting("projection", "which layers share codebooks", choices=("matrix", "projection", "model"))
    scales: str = setting("row", "what shares a scale", choices=SCALES[:2])
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    repair: bool = setting(True, "where layers run in sequence, also repair what the layers before lost")
    compensation: bool = setting(True, "move each block's error to later columns (needs calibration)")
    block: int = setting(1, "columns coded at once, in whole codewords and at least one (papers: 128)", low=1, high=65536)
    activations: int = activation_setting()
    refinement: str = refinement_setting()

    def build(self) -> Recipe:
        """Planes of codewords."""
        length, entries = codebook_shape(self.bits / self.planes)
        shape = {"planes": self.planes, "indexed": self.planes, "length": length, "entries": entries}
        how = {"assignment": self.assignment, "scope": self.scope, "scales": self.scales, "sweeps": self.sweeps}
        assignment = part("assignment", "block-feedback", block=self.block, repair=self.repair) if self.compensation else None
        inputs, trained = activations(self.activations), refinement(self.refinement)
        coder = part("coder", "codebook-planes", **shape, **how)
        return compose(coder, assignment=assignment, activations=inputs, refinement=trained)


@register("preset", "btc-paper")
@dataclass(frozen=True)
class BtcPaper(Preset):
    """The codebook on the signs of two to four magnitude groups in blocks of 128: nominal bits count the index alone.

    `splits` are the paper's: each adds a plane of one bit a weight that says which magnitude a weight has.
    """

    source: ClassVar[str] = "BTC-LLM, arXiv 2506.12040"
    note: ClassVar[str] = (
        "as the paper's figures imply, no code was released: 2 splits (four magnitudes here, three there), means and scales in "
        "blocks of 128, maps and scales left out of the nominal bits. Maps are stored as planes, which may also repair signs "
        "that the codebook flips; without the second plane of salient columns and the learned transformation"
    )

    bits: float = setting(0.8, "nominal bits per weight: the index alone", low=0.3, high=0.9)
    splits: int = setting(2, "splits by magnitude, one stored bit a weight each (paper: 2)", low=1, high=2)
    assignment: str = setting("hamming", "what a wrong sign costs: 1, or the weight's size", choices=("hamming", "magnitude"))
    scope: str = setting("model", "which layers share the codebook", choices=("matrix", "projection", "model"))
    mean: bool = setting(True, "also store a mean beside the scales")
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    activations: int = activation_setting()

    def build(self) -> Recipe:
        """One plane of codewords, a plane of single bits a split, scales in blocks of whole codewords."""
        length, entries = codebook_shape(self.bits)
        block = BLOCK // length * length
        shape = {"planes": 1 + self.splits, "indexed": 1, "length": length, "entries": entries, "scales": "group", "group": block}
        how = {"assignment": self.assignment, "scope": self.scope, "mean": self.mean, "sweeps": self.sweeps}
        assignment, inputs = part("assignment", "block-feedback", block=block), activations(self.activations)
        return compose(part("coder", "codebook-planes", **shape, **how), assignment=assignment, activations=inputs)


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
