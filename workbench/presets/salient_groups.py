"""Presets `billm`, `arb-llm` and `stbllm`: two sign planes for salient columns, one for magnitude groups of the other weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import RecipeError
from workbench.part_settings import GROUP_SEARCHES
from workbench.presets.preset import Preset, compose, make_part
from workbench.recipe import Recipe, setting
from workbench.registry import register

if TYPE_CHECKING:
    from workbench.quantizers.contract import Coder, Split

PAPER = (
    "as in the paper: searches use weights, and error feedback uses the exact solve. released=yes is the released code,"
    " which searches by saliency and divides errors by the diagonal of the factor"
)
COMPARISON = "built-in model, docs/released_methods.md"
MAPS = "maps of groups, scales and means are stored and counted, though nominal bits leave them out"


def _define_released_setting() -> Any:
    """The setting `released`."""
    return setting(False, "follow the released code, which differs from the paper (see the note)")


@register("preset", "billm")
@dataclass(frozen=True)
class BiLlm(Preset):
    """Residual planes for salient columns, two magnitude groups for the rest (bell split), searched in blocks of 128."""

    title: ClassVar[str] = "BiLLM"
    family: ClassVar[str] = "salience"
    summary: ClassVar[str] = "Gives salient columns a second sign and splits all other weights into small and large ones."
    default_bits: ClassVar[float] = 1.1
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "BiLLM, arXiv 2402.04291"
    note: ClassVar[str] = (
        f"{PAPER}; the default has 0.62 of its output error at equal stored bits ({COMPARISON}). Nominal 1.11 bits are 2.88 "
        f"stored: {MAPS}"
    )

    groups: int = setting(2, "magnitude groups of the weights that are not salient (paper: 2)", low=1, high=3)
    salient: int = setting(50, "upper limit (exclusive) of salient columns per block", low=2, high=1024)
    block: int = setting(128, "columns that are split, coded and compensated together", low=8, high=65536, rare=True)
    released: bool = _define_released_setting()

    def build(self) -> Recipe:
        """Closed-form planes with means."""
        if self.released:
            return _compose_released_recipe(self, 1, "residual")
        sign = {"scales": "group", "group": self.block, "sweeps": 0, "rescale": False}
        split = make_part("split", "groups", groups=self.groups, salient=self.salient, metric="hessian", block=self.block)
        return _compose_group_recipe([], self.groups, 1, sign, split)


@register("preset", "arb-llm")
@dataclass(frozen=True)
class ArbLlm(Preset):
    """BiLLM's groups with alternating refined binarization: row and column scales (rc), or calibrated scales (x)."""

    title: ClassVar[str] = "ARB-LLM"
    family: ClassVar[str] = "salience"
    summary: ClassVar[str] = "Splits weights as BiLLM does, then improves signs and scales in turns."
    default_bits: ClassVar[float] = 1.1
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "ARB-LLM, arXiv 2410.03129"
    note: ClassVar[str] = (
        f"{PAPER}, and always takes 15 sweeps; the default has 0.54 of its output error but finds more salient "
        f"columns and stores more, up to 7.9 % per layer; 0.62 at no more bits ({COMPARISON}). Nominal 1.11 bits are 3.38 "
        f"stored, as released 3.28: {MAPS}. Variant 'x' refits signs to its calibrated scales; the paper and the released code "
        "keep them"
    )

    variant: str = setting("rc", "row and column scales, or scales calibrated under the second moment", choices=("rc", "x"))
    bitmap: bool = setting(True, "column-group bitmap: two magnitude groups in the salient columns as well")
    groups: int = setting(2, "magnitude groups of the weights that are not salient", low=1, high=3)
    search: str = setting("greedy", "how three groups are found; as released: greedy", choices=GROUP_SEARCHES, rare=True)
    sweeps: int = setting(15, "alternating sweeps over scales and signs", low=0, high=100)
    salient: int = setting(50, "upper limit (exclusive) of salient columns per block", low=2, high=1024)
    block: int = setting(128, "columns that are split, coded and compensated together", low=8, high=65536, rare=True)
    released: bool = _define_released_setting()

    def build(self) -> Recipe:
        """Alternating planes."""
        if self.released:
            loss = "moment" if self.variant == "x" else "plain"
            rule = "moment" if self.variant == "x" else "row-column"
            return _compose_released_recipe(self, 2 if self.bitmap else 1, rule, loss=loss)
        scales = {"scales": "group-column", "mean": False} if self.variant == "rc" else {"scales": "group", "scaling": "moment"}
        sign = {**scales, "group": self.block, "sweeps": self.sweeps, "rescale": False}
        apart = 2 if self.bitmap else 1
        settings = {"groups": self.groups, "search": self.search, "salient": self.salient, "salient_groups": apart}
        split = make_part("split", "groups", **settings, metric="hessian", block=self.block)
        return _compose_group_recipe([], self.groups, apart, sign, split)


@register("preset", "stbllm")
@dataclass(frozen=True)
class StbLlm(Preset):
    """N:M pruning, then salient columns and three magnitude groups of what is kept."""

    title: ClassVar[str] = "STBLLM"
    family: ClassVar[str] = "salience"
    summary: ClassVar[str] = "Prunes some of every eight weights and stores the rest as signs in three sizes."
    default_bits: ClassVar[float] = 0.55
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "STBLLM, arXiv 2408.01803"
    note: ClassVar[str] = (
        f"{PAPER}, prunes before coding without storing a mask: each pruned weight becomes a mean ± a scale, so that zeros "
        f"are lost and save nothing; the default stores them and has 0.71 of its output error at fewer bits ({COMPARISON}). "
        f"Nominal 0.55 bits are 3.35 stored, as released (nominal 1.1) 4.02: {MAPS}, as is the choice of kept weights. "
        "All layers have the same N, where the paper gives important layers more"
    )

    kept: int = setting(4, "weights kept out of every 8: 4, 6 and 8 are the paper's 0.55, 0.8 and 1.1 bits", low=1, high=8)
    salient: int = setting(50, "upper limit (exclusive) of salient columns per block", low=2, high=1024)
    block: int = setting(
        128, "columns that are split, coded and compensated together; a multiple of 8", low=8, high=65536, rare=True
    )

    released: bool = _define_released_setting()

    def build(self) -> Recipe:
        """Closed-form planes with means on the kept weights; as released on all."""
        if self.released:
            return _compose_released_recipe(self, 1, "residual", groups=3, kept=self.kept)
        sign = {"scales": "group", "group": self.block, "sweeps": 0, "rescale": False}
        settings = {"groups": 3, "search": "double", "salient": self.salient, "kept": self.kept, "of": 8}
        split = make_part("split", "groups", **settings, metric="hessian", block=self.block)
        return _compose_group_recipe([make_part("coder", "zero")] if self.kept < 8 else [], 3, 1, sign, split)


def _compose_released_recipe(preset: BiLlm | ArbLlm | StbLlm, salient_groups: int, rule: str, **other: Any) -> Recipe:
    """Planes, split and feedback of the released codes; RecipeError for groups that they do not make."""
    groups = other.get("groups", 2)
    if getattr(preset, "groups", groups) != groups:
        raise RecipeError(f"preset {preset.name!r}: the released code makes {groups} groups; use groups={groups} or released=no.")
    sweeps = {"sweeps": preset.sweeps} if isinstance(preset, ArbLlm) else {}
    planes = [1] * groups + [2] * salient_groups
    block, shared = preset.block, {"group": preset.block, "rule": rule, **sweeps}
    return compose(
        *(make_part("coder", "released-sign", planes=count, **shared) for count in planes),
        split=make_part(
            "split",
            "released-groups",
            groups=groups,
            salient=preset.salient,
            salient_groups=salient_groups,
            loss=other.get("loss", "plain"),
            block=block,
        ),
        assignment=make_part("assignment", "released-feedback", block=block, kept=other.get("kept", 8)),
    )


def _compose_group_recipe(pruned: list["Coder"], groups: int, salient: int, sign: dict, split: "Split") -> Recipe:
    """One plane a group, two for salient columns, compensated block by block."""
    planes = [1] * groups + [2] * salient
    coders = [make_part("coder", "sign", planes=count, **sign) for count in planes]
    return compose(*pruned, *coders, split=split, assignment=make_part("assignment", "block-feedback", block=sign["group"]))
