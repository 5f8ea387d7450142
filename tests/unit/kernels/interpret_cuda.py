"""Runs the Triton kernels on drawn matrices and prints, as JSON, how far each is from float64.

    python -m tests.unit.kernels.interpret_cuda            on a GPU
    TRITON_INTERPRET=1 python -m ...                       in Triton's interpreter, on the CPU

Half precision stands for both 16-bit types: the interpreter multiplies bfloat16 wrongly.
"""

import json
import sys
from collections.abc import Callable

import torch

from tests.unit.kernels.conftest import Draw
from workbench.kernels import formats
from workbench.kernels.kernel_mode import Mode
from workbench.kernels.matmul import dispatch
from workbench.kernels.matmul.cuda import backend
from workbench.kernels.packing.packed import Packed

FORMS: dict[str, Callable[[Draw], Packed]] = {
    "planes": lambda draw: draw.planes(1, draw.cols, extras=False),
    "planes-groups-columns-means": lambda draw: draw.planes(2, 32, extras=True),
    "ternary": lambda draw: draw.ternary(2, 48),
    "codes-2": lambda draw: draw.uniform(2, 32, zero=True),
    "codes-3-symmetric": lambda draw: draw.uniform(3, draw.cols, zero=False),
    "codes-4": lambda draw: draw.uniform(4, 48, zero=True),
    "codebook-small": lambda draw: draw.codebook(10, 300, draw.cols, extras=True),
    "codebook-groups": lambda draw: draw.codebook(8, 256, 16, extras=True),
    "codebook-large": lambda draw: draw.codebook(16, 1000, draw.cols, extras=False),
    "parity": lambda draw: draw.parity(15, 4, 32, extras=True),
    "factors": lambda draw: draw.factors(24, middle=True),
    "hadamard": lambda draw: draw.hadamard(draw.planes(1, draw.cols, extras=False)),
    "sum": lambda draw: Packed("sum", draw.rows, draw.cols, children=(draw.planes(1, draw.cols, extras=False), draw.low_rank())),
}
BATCHES = (1, 3, 20)  # one and a few are looked up, many go to tensor cores


def moved(packed: Packed, device: str) -> Packed:
    """The tree with its tensors on another device."""
    tensors = {name: tensor.to(device) for name, tensor in packed.tensors.items()}
    children = tuple(moved(child, device) for child in packed.children)
    return Packed(packed.format, packed.rows, packed.cols, tensors, packed.facts, children)


def distances(device: str) -> dict[str, float]:
    """‖y − y₆₄‖ / ‖y₆₄‖ by form, cache, inputs and type."""
    found = {}
    for form, make in FORMS.items():
        tree = make(Draw(rows=70, cols=96))
        here = moved(tree, device)
        assert dispatch.explain(here).backend == "cuda"
        weight = formats.decode(tree).double()
        for cache in ("decoded", "none") if form == "codebook-large" else ("decoded",):
            product = backend.prepare(here, Mode(cache=cache))
            for batch in BATCHES:
                x = torch.randn(batch, tree.cols, generator=torch.Generator().manual_seed(batch))
                for kind in (torch.float32, torch.float16)[: 1 if batch == 3 else 2]:
                    y, expected = product(x.to(device, kind)), x.double() @ weight.T
                    assert (y.dtype, y.shape) == (kind, expected.shape)
                    name = f"{form}/{cache}/{batch}/{str(kind)[6:]}"
                    found[name] = float((y.cpu().double() - expected).norm() / expected.norm())
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(distances("cpu" if backend.is_interpreted() else "cuda")))
