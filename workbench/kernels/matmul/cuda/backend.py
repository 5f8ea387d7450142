"""Backend `cuda`: matmuls directly from packed codes on a GPU, with kernels that Triton compiles at first use.

TRITON_INTERPRET=1, set before Triton is first imported, runs the same kernels on the CPU, slowly: that is how tests without a GPU
check them.
"""

import os
from importlib.util import find_spec

import torch

from workbench.kernels.formats.declared import check_tree
from workbench.kernels.kernel_mode import Mode, Product
from workbench.kernels.matmul.composed import Shaped
from workbench.kernels.packing.packed import Packed

AROUND = ("hadamard", "permuted", "rotated", "rounded-input", "scaled", "sum")  # run here around what they hold
CODED = ("planes", "ternary", "uniform", "binary-codebook", "parity-signs")
COMPOSED_FORMATS = ("binary-factors", "low-rank", "zero")
NARROWEST = 16  # columns of a group at least: what tensor cores multiply at a time
MAX_CODE_BITS = 4
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def describe_refusal(packed: Packed, _batch: int) -> str | None:
    """Why a tree is not run here, as one sentence, or None; any number of inputs can be."""
    devices = {tensor.device.type for _, node in packed.walk() for tensor in node.tensors.values()}
    if not devices <= {"cuda"} and not (is_interpreted() and devices == {"cpu"}):
        return f"it runs on a CUDA device, and the stored tensors are on {' and '.join(sorted(devices))}"
    if not devices:
        return "it runs on a CUDA device, and nothing is stored on one"
    if find_spec("triton") is None:
        return "Triton is not installed; it comes with the extra 'gpu'"
    return describe_misfit(packed)


def describe_misfit(packed: Packed) -> str | None:
    """Why a stored matrix cannot be run here, or None."""
    if packed.format in AROUND:
        return next((why for child in packed.children if (why := describe_misfit(child))), None)
    if packed.format in COMPOSED_FORMATS:
        return None
    if packed.format not in CODED:
        return f"it has no kernel for format {packed.format!r}"
    if "offset" in packed.tensors:
        return "it has no kernel for zero points that are not integer codes"
    if packed.facts.get("bits", 0) > MAX_CODE_BITS:
        return f"codes of {packed.facts['bits']} bits are too wide; it runs 1 to {MAX_CODE_BITS}"
    span = packed.facts["span"]
    if span < packed.cols and span % NARROWEST:
        return f"groups of {span} columns are not a multiple of the {NARROWEST} columns that tensor cores multiply at a time"
    if packed.format == "binary-codebook" and span < packed.cols and span % packed.facts["length"]:
        return f"groups of {span} columns do not consist of vectors of {packed.facts['length']}"
    return None


def prepare(packed: Packed, mode: Mode) -> Product:
    """The product with a stored tree; ShapeError where it does not hold what its formats declare: loops read without looking."""
    check_tree(packed)
    from workbench.kernels.matmul.cuda import products

    return Shaped(products.prepare(packed, mode), packed.rows, packed.cols, "cuda", TYPES)
