"""Presets `btc`, `btc-planes` and `btc-paper`: the binary codebook of BTC-LLM.

`btc` is its honest form, one plane and one scale a row; `btc-planes` adds planes that have codebooks too; `btc-paper` adds the
magnitude groups that the paper's figures imply and its bits leave out.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import RecipeError
from workbench.part_settings import SCALES
from workbench.presets.preset import (
    Preset,
    compose,
    define_model_steps_setting,
    define_refinement_setting,
    make_part,
    make_refinement_part,
)
from workbench.recipe import Recipe, setting, shrinkage_setting
from workbench.registry import register

if TYPE_CHECKING:
    from workbench.quantizers.contract import Activations, Transform

CODEWORD_LENGTHS = range(8, 21)  # signs a codeword may stand for
SCALE_COLUMNS = 128  # columns whose weights share scales in the paper
MAX_INDEX_BITS = 16  # bits of the longest index
CLOSE = 0.005  # how far k/v may be from the bits that were asked for
TRANSFORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("identity", {}),
    "hadamard": ("hadamard", {}),
    "signs": ("learned", {"gain": False, "rotation": "none", "steps": 0}),  # drawn; a straight-through gradient finds none better
    "rotation": ("learned", {"gain": False, "signs": False}),
    "both": ("learned", {"gain": False}),
    "all": ("learned", {}),
}


def define_transform_setting() -> Any:
    """The setting of all presets here for the basis in which weights are coded."""
    help_text = "transform of the input: random Hadamard, or learned signs, rotation, both, or all with gains"
    return setting("none", help_text, choices=tuple(TRANSFORMS))


def make_transform_part(name: str) -> "Transform":
    """The part of that setting."""
    transform, settings = TRANSFORMS[name]
    part: Transform = make_part("transform", transform, **settings)
    return part


def define_activation_setting() -> Any:
    """The setting of all presets here for W·A8: bits of a layer's input."""
    return setting(
        16,
        "activation bits, quantized per token at run time; 16 leaves activations unquantized",
        choices=(16, 8, 6, 4),
        rare=True,
    )


def make_activation_part(bits: int) -> "Activations":
    """The part that rounds inputs to so many bits."""
    part: Activations = make_part("activations", "keep") if bits == 16 else make_part("activations", "per-token", bits=bits)
    return part


@register("preset", "btc")
@dataclass(frozen=True)
class Btc(Preset):
    """ARB signs, a binary codebook shared over a scope below one bit, exact block compensation.

    Below 1 bit: codewords of v signs, 2^k of them, nominal k/v. At 1 bit: the signs themselves. Above: a second plane for
    the most salient columns, whose share is what exceeds 1. That is how "1.11" is counted in the paper: 11 % of the
    weights with two planes and nothing else.
    """

    title: ClassVar[str] = "BTC-LLM"
    family: ClassVar[str] = "codebook"
    summary: ClassVar[str] = "Looks up runs of signs in a binary codebook, so that a weight costs less than one bit."
    default_bits: ClassVar[float] = 0.8
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "BTC-LLM, arXiv 2506.12040"
    note: ClassVar[str] = (
        "re-implemented from the paper, as no code was released; the learned transform is off by default. One scale per row is "
        "stored, where the paper's figures need maps and scales of several magnitude groups that its bit counts leave out. "
        "assignment='hamming' is the paper's clustering, 'magnitude' this project's. Error feedback runs after each codeword"
    )

    bits: float = setting(0.8, "nominal bits per weight", low=0.3, high=2.0)
    assignment: str = setting(
        "magnitude", "cost of a flipped sign: the weight's magnitude, or 1", choices=("magnitude", "hamming")
    )
    scope: str = setting("projection", "which layers share a codebook", choices=("matrix", "projection", "model"))
    scales: str = setting("row", "granularity of the scales", choices=SCALES[:2])
    mean: bool = setting(False, "also store a mean with each scale")
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    repair: bool = setting(True, "in sequential runs, also compensate the errors of earlier layers", rare=True)
    compensation: bool = setting(True, "error feedback from each block to later columns (needs calibration)")
    transform: str = define_transform_setting()
    block: int = setting(1, "columns coded at once, rounded to whole codewords (papers: 128)", low=1, high=65536, rare=True)
    activations: int = define_activation_setting()
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """Codebook, signs, or signs with a second plane for salient columns, by `bits`, in the basis of `transform`."""
        inputs, trained = make_activation_part(self.activations), make_refinement_part(self.refinement, self.model_steps)
        return dataclasses.replace(
            self.plain(), transform=make_transform_part(self.transform), activations=inputs, refinement=trained
        )

    def plain(self) -> Recipe:
        """The same without a change of basis."""
        assignment = (
            make_part("assignment", "block-feedback", block=self.block, repair=self.repair) if self.compensation else None
        )
        scales = {"scales": self.scales, "mean": self.mean, "sweeps": self.sweeps}
        if self.bits < 1:
            length, entries = choose_codebook_shape(self.bits, self.name)
            shape = {"length": length, "entries": entries, "assignment": self.assignment, "scope": self.scope}
            return compose(make_part("coder", "binary-codebook", **shape, **scales), assignment=assignment)
        if self.bits in (1, 2):
            return compose(make_part("coder", "sign", planes=int(self.bits), **scales), assignment=assignment)
        metric = "hessian" if self.compensation else "magnitude"
        return compose(
            make_part("coder", "sign", planes=1, **scales),
            make_part("coder", "sign", planes=2, **scales),
            split=make_part("split", "salient-columns", share=round(self.bits - 1, 6), metric=metric),
            assignment=assignment,
        )


@register("preset", "btc-planes")
@dataclass(frozen=True)
class BtcPlanes(Preset):
    """A sum of sign planes, each looked up in a codebook of its own: magnitude groups without a map of single weights."""

    title: ClassVar[str] = "BTC-LLM sign planes"
    family: ClassVar[str] = "codebook"
    summary: ClassVar[str] = "Adds up two or three sign planes, each looked up in a binary codebook of its own."
    default_bits: ClassVar[float] = 1.6
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "BTC-LLM, arXiv 2506.12040"
    note: ClassVar[str] = (
        "this project's: two magnitudes with a map are equivalent to two sign planes, and each plane can have a codebook; "
        "nominal bits count all indices"
    )

    bits: float = setting(1.6, "nominal bits per weight, divided equally among the planes", low=0.6, high=1.8)
    planes: int = setting(2, "sign planes", low=2, high=3)
    assignment: str = setting(
        "magnitude", "cost of a flipped sign: the weight's magnitude, or 1", choices=("magnitude", "hamming")
    )
    scope: str = setting("projection", "which layers share codebooks", choices=("matrix", "projection", "model"))
    scales: str = setting("row", "granularity of the scales", choices=SCALES[:2])
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    repair: bool = setting(True, "in sequential runs, also compensate the errors of earlier layers", rare=True)
    compensation: bool = setting(True, "error feedback from each block to later columns (needs calibration)")
    block: int = setting(1, "columns coded at once, rounded to whole codewords (papers: 128)", low=1, high=65536, rare=True)
    transform: str = define_transform_setting()
    activations: int = define_activation_setting()
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """Planes of codewords."""
        length, entries = choose_codebook_shape(self.bits, self.name, self.planes)
        shape = {"planes": self.planes, "indexed": self.planes, "length": length, "entries": entries}
        how = {"assignment": self.assignment, "scope": self.scope, "scales": self.scales, "sweeps": self.sweeps}
        assignment = (
            make_part("assignment", "block-feedback", block=self.block, repair=self.repair) if self.compensation else None
        )
        inputs, trained = make_activation_part(self.activations), make_refinement_part(self.refinement, self.model_steps)
        coder = make_part("coder", "codebook-planes", **shape, **how)
        return compose(
            coder, transform=make_transform_part(self.transform), assignment=assignment, activations=inputs, refinement=trained
        )


@register("preset", "btc-paper")
@dataclass(frozen=True)
class BtcPaper(Preset):
    """Magnitude groups in blocks of 128 columns as the paper's figures imply; below 1 bit a codebook on their signs.

    `splits` are the paper's. Below 1 bit nominal bits are those of the index, and each split adds a plane of one bit a weight
    that says which magnitude a weight has. From 1 bit on there is no codebook: the split is ARB-LLM's, into `splits` + 1 groups,
    and nominal bits count the second plane of salient columns, at most a share of `bits` − 1 of each block ("1.11": 11 %).
    """

    title: ClassVar[str] = "BTC-LLM as published"
    family: ClassVar[str] = "codebook"
    summary: ClassVar[str] = (
        "Looks up signs in a binary codebook and adds the groups by magnitude that the paper's figures imply."
    )
    default_bits: ClassVar[float] = 0.8
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "BTC-LLM, arXiv 2506.12040"
    note: ClassVar[str] = (
        "as implied by the paper's figures, as no code was released: 2 splits, means and scales in blocks of 128, maps and "
        "scales left out of the nominal bits. Below 1 bit maps are planes: 2 splits give four magnitudes where the paper has "
        "three. Planes may also repair signs that the codebook flips; a codeword stands for neighbouring columns, so salient "
        "columns cannot be separated there: their second plane exists only at 1.11 bits. No transform by default"
    )

    shrinkage: float = shrinkage_setting(0.0)  # the paper speaks of damping alone
    bits: float = setting(0.8, "nominal bits per weight: the index alone, or signs and second planes", low=0.3, high=1.4)
    splits: int = setting(2, "splits by magnitude, about one stored bit per weight each (paper: 2)", low=1, high=2)
    assignment: str = setting("hamming", "cost of a flipped sign: 1, or the weight's magnitude", choices=("hamming", "magnitude"))
    scope: str = setting("model", "which layers share the codebook", choices=("matrix", "projection", "model"))
    mean: bool = setting(True, "also store a mean with the scales")
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    transform: str = define_transform_setting()
    activations: int = define_activation_setting()

    def build(self) -> Recipe:
        """A codebook with planes of single bits, or groups of signs, in the basis of `transform`."""
        plain = self.indexed() if self.bits < 1 else self.signs()
        return dataclasses.replace(
            plain, transform=make_transform_part(self.transform), activations=make_activation_part(self.activations)
        )

    def indexed(self) -> Recipe:
        """One plane of codewords, a plane of single bits a split, scales in blocks of whole codewords."""
        length, entries = choose_codebook_shape(self.bits, self.name)
        block = SCALE_COLUMNS // length * length
        shape = {"planes": 1 + self.splits, "indexed": 1, "length": length, "entries": entries, "scales": "group", "group": block}
        how = {"assignment": self.assignment, "scope": self.scope, "mean": self.mean, "sweeps": self.sweeps}
        assignment = make_part("assignment", "block-feedback", block=block)
        return compose(make_part("coder", "codebook-planes", **shape, **how), assignment=assignment)

    def signs(self) -> Recipe:
        """One plane of signs for each magnitude group, two for salient columns, blocks of 128."""
        most = round((self.bits - 1) * SCALE_COLUMNS)
        salient = most + 1 if most else 0  # fewer than so many
        settings = {
            "groups": self.splits + 1,
            "search": "greedy",
            "salient": salient,
            "metric": "hessian",
            "block": SCALE_COLUMNS,
        }
        sign = {"scales": "group", "group": SCALE_COLUMNS, "mean": self.mean, "sweeps": self.sweeps, "rescale": False}
        planes = [1] * (self.splits + 1) + ([2] if salient else [])
        coders = [make_part("coder", "sign", planes=count, **sign) for count in planes]
        assignment = make_part("assignment", "block-feedback", block=SCALE_COLUMNS)
        return compose(*coders, split=make_part("split", "groups", **settings), assignment=assignment)


def choose_codebook_shape(bits: float, owner: str = "btc", planes: int = 1) -> tuple[int, int]:
    """(v, 2^k): the shortest codewords whose planes · k/v is within 0.005 of `bits`; RecipeError names the nearest there are."""
    shapes = [(v, k) for v in CODEWORD_LENGTHS for k in range(1, min(v, MAX_INDEX_BITS + 1))]
    for v, k in shapes:
        if abs(k / v - bits / planes) <= CLOSE:
            return v, 1 << k
    rates = [planes * k / v for v, k in shapes]
    below = max((rate for rate in rates if rate < bits), default=None)
    above = min((rate for rate in rates if rate > bits), default=float(planes))
    near = " or ".join(f"{rate:.4g}" for rate in (below, above) if rate is not None)
    tried = f"{CODEWORD_LENGTHS[0]} to {CODEWORD_LENGTHS[-1]} signs with at most 2^{MAX_INDEX_BITS} entries"
    raise RecipeError(f"preset {owner!r}: no codebook of {tried} has {bits} bits; use {near}.")
