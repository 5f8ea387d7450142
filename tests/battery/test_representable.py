"""What can be represented comes back: values of a coder's own format, quantized again, are the same values."""

import dataclasses

import pytest
import torch

from tests.battery.cases import VARIANTS, gaussian, moment_for, quantize, recipe_with
from workbench import registry
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Coder

EXACT = 1e-6
BILINEAR = "scales of rows times scales of columns under two planes: no closed form finds both, sweeps end near them"
LOOSER = {
    "uniform": (2e-2, "clip='none' is plain min-max: it comes back only where a group's weights reach both ends of its grid"),
    "uniform-symmetric=True": (2e-2, "the same for a symmetric grid"),
    "uniform-zero=real": (2e-2, "the same for a zero that is any number"),
    "trellis-rescale=False": (5e-2, "the scale is the weights' mean size, and is not solved for the path"),
    "vector-codebook": (5e-2, "which points vectors were drawn from is k-means' problem, which is NP-hard"),
    "codebook-planes": (5e-3, "plane by plane: a first plane that is not the stored one is not taken back"),
    "codebook-planes-scales=row-column": (5e-2, BILINEAR),
    "codebook-planes-scales=group-column": (5e-2, BILINEAR),
    "sign-planes=2,scales=row-column": (5e-2, BILINEAR),
    "released-sign": (5e-2, "as released: a fixed number of sweeps from the first signs, without a search"),
}  # by variant: what is reached, and why not more
FAMILIES = ("vector-codebook", "codebook-planes", "released-sign")  # of which an entry holds for all variants
CODERS = {name.removeprefix("coder-"): part for name, part in VARIANTS.items() if isinstance(part, Coder)}
for name, settings in [
    ("sign", {"planes": 2}),
    ("sign", {"planes": 2, "scales": "group", "group": 64}),
    ("sign", {"planes": 2, "scales": "row-column"}),
    ("ternary", {"planes": 2}),
    ("ternary", {"planes": 3}),
    ("trellis", {"bits": 1}),
    *[("uniform", {"clip": "mse", "bits": bits, "group": 32}) for bits in range(1, 9)],
    *[("uniform", {"clip": "mse", "bits": bits, "group": 32, "zero": "real"}) for bits in range(1, 9)],
    *[("uniform", {"clip": "mse", "bits": bits, "group": 32, "symmetric": True}) for bits in range(2, 9)],
]:
    CODERS[f"{name}-" + ",".join(f"{key}={value}" for key, value in settings.items())] = registry.make("coder", name, **settings)


def shuffled(packed: Packed, draw: torch.Generator) -> Packed:
    """Another value of the same format: every tensor's numbers in drawn order, fp16 ones half to twice as large."""
    tensors = {}
    for name, tensor in packed.tensors.items():
        moved = tensor.flatten()[torch.randperm(tensor.numel(), generator=draw)].view_as(tensor)
        size = 2 ** (2 * torch.rand(tensor.shape, generator=draw) - 1)
        tensors[name] = (moved.float() * size).half() if tensor.dtype == torch.float16 else moved
    return dataclasses.replace(packed, tensors=tensors, children=tuple(shuffled(child, draw) for child in packed.children))


def allowed(name: str) -> float:
    """The relative error that a variant may have: that of the longest entry that its name begins with."""
    entries = [own for own in LOOSER if name == own or (own in FAMILIES and name.startswith(own))]
    return LOOSER[max(entries, key=len)][0] if entries else EXACT


@pytest.mark.parametrize("name", CODERS)
def test_values_of_its_own_format_come_back(name: str) -> None:
    part = CODERS[name]
    recipe, cols = recipe_with(part), 240
    packed = quantize(recipe, gaussian(12, cols), moment_for(recipe, cols)).packed
    w = formats.decode(shuffled(packed, torch.Generator().manual_seed(0)))
    assert quantize(recipe, w, moment_for(recipe, cols)).relative_error < allowed(name)
