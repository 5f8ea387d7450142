"""Settings that several parts and presets have: their choices, help and ranges.

They stand apart from the parts so that presets can be listed, and their settings read, without torch.
"""

from typing import Any

from workbench.recipe import setting

SCALES = ("row", "row-column", "group", "group-column")  # what shares a scale of signs
METRICS = ("magnitude", "hessian")  # of saliency
GROUP_SEARCHES = ("joint", "greedy", "double")  # for the thresholds of three groups
TRIT_SCALE_RULES = ("least-squares", "absmean")
REFINED = ("scales", "norms", "codes")  # what of a block is trained after its layers are quantized
MODEL_STEPS = 700  # of training of the whole model


def make_group_setting(default: int) -> int:
    """The setting `group`."""
    return setting(default, "neighbouring columns of a row that share a scale; 0 is the whole row", low=0, high=65536)


def make_zero_setting() -> Any:
    """The setting `zero` of uniform grids."""
    help = "zero point: an integer code, or any fp16 number, which is better at 1 and 2 bits"
    return setting("integer", help, choices=("integer", "real"), rare=True)
