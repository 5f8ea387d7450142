"""Preset `pb-llm`: most weights binary, salient weights at eight bits."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.part_settings import METRICS
from workbench.presets.preset import Preset, compose, make_part
from workbench.recipe import Recipe, setting
from workbench.registry import register


@register("preset", "pb-llm")
@dataclass(frozen=True)
class PbLlm(Preset):
    """Partially binarized weights, post-training form: nominal 8ρ + (1 − ρ) bits, and a bitmap that papers do not count."""

    title: ClassVar[str] = "PB-LLM"
    family: ClassVar[str] = "salience"
    summary: ClassVar[str] = "Keeps the few most salient weights at eight bits and stores only the sign of all others."
    default_bits: ClassVar[float] = 1.7
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "PB-LLM, arXiv 2310.00034"
    note: ClassVar[str] = (
        "scale='kept' averages over the binary weights; the released code averages over all positions of the row, zeros "
        "included, so its scale is too small by about the kept share: scale='as-released'. The 8-bit range here is that of "
        "the salient weights, in the released code that of the whole row. Nominal 1.7 bits leave out the bitmap and all scales: "
        "2.71 stored at 4,096 columns, 2.92 at 256"
    )

    share: float = setting(0.1, "share of weights stored at eight bits", low=0.0, high=1.0)
    metric: str = setting("hessian", "measure of saliency", choices=METRICS)
    scale: str = setting("kept", "weights that the binary scale averages over", choices=("kept", "as-released"))
    damping: float = setting(0.01, "damping of the second moment, relative to its mean diagonal", low=0.0, high=10.0, rare=True)

    def build(self) -> Recipe:
        """Top elements apart, one plane and an 8-bit grid per row, both fitted first, then column feedback."""
        average = "kept" if self.scale == "kept" else "span"
        return compose(
            make_part("coder", "sign", sweeps=0, rescale=False, average=average),
            make_part("coder", "uniform", bits=8, group=0),
            split=make_part("split", "top-elements", share=self.share, metric=self.metric),
            assignment=make_part("assignment", "column-feedback", fit_first=True, damping=self.damping),
        )
