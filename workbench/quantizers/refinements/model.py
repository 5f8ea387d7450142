"""Refinement `model`: stored numbers are trained to bring the whole model's predictions closer to the original's."""

from dataclasses import dataclass

from workbench.part_settings import MODEL_STEPS
from workbench.quantizers.learning.descent import Schedule
from workbench.quantizers.refinements.block import Block
from workbench.recipe import setting
from workbench.registry import register

LOOK = 20  # steps between two looks at held-out text


@register("refinement", "model")
@dataclass(frozen=True)
class Model(Block):
    """Block-wise reconstruction, then training of all blocks together on the divergence from what the original predicts.

    The last stage of NanoQuant (arXiv 2602.06694) and the objective of PV-Tuning (arXiv 2405.14852), which chooses codes in
    another way: here they are those nearest to latent weights (straight-through). Beside the calibration text the model is
    trained on text that the original writes itself, as in LLM-QAT (arXiv 2305.17888), so that less depends on the calibration
    text. Activations that a layer rounds are not rounded in training. Held-out windows are looked at with numbers rounded as they
    are stored, and the best look wins.
    """

    model_steps: int = setting(MODEL_STEPS, "maximum number of AdamW steps on the whole model", low=0, high=1_000_000)
    model_rate: float = setting(
        0.01, "initial learning rate of the whole model, relative to a tensor's magnitude", low=0.0, high=1.0
    )
    model_tokens: int = setting(512, "tokens per step of the whole model", low=1, high=1 << 20)
    written: int = setting(65_536, "tokens of text that the original writes for training", low=0, high=1 << 30)

    patience: int = setting(
        15, "looks at held-out text without a gain after which training of the whole model ends", low=1, high=10_000
    )

    @property
    def model_schedule(self) -> Schedule:
        """With patience: codes that have just moved can be worse for a while."""
        return Schedule(self.model_steps, self.model_rate, check=LOOK, patience=self.patience)
