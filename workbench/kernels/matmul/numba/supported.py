"""Formats that the compiled loops of the CPU support, with the reason for any other."""

from workbench.kernels.packing.packed import Packed

AROUND = ("hadamard", "permuted", "rotated", "rounded-input", "scaled", "sum")  # run here around what they hold
CODED = ("planes", "uniform", "ternary", "binary-codebook", "parity-signs")
CODEWORD_FORMATS = ("vector-codebook", "trellis")
COMPOSED_FORMATS = ("binary-factors", "low-rank", "zero", *CODEWORD_FORMATS)
MAX_CODEWORD_LENGTH = 32  # numbers of a word
REAL_ZEROS = "it has no kernel for zero points that are not integer codes"
STEP_COLUMNS = 8  # columns of a byte of signs


def describe_refusal(packed: Packed, _batch: int) -> str | None:
    """Why a tree is not run here, as one sentence, or None; any number of inputs can be."""
    for _, node in packed.walk():
        for tensor in node.tensors.values():
            if tensor.device.type != "cpu":
                return f"it runs on the CPU, and the stored tensors are on {tensor.device}"
    return describe_misfit(packed)


def describe_misfit(packed: Packed, *, inside_mask: bool = False) -> str | None:
    """Why a stored matrix cannot be run here, or None."""
    if packed.format in AROUND and not inside_mask:
        return next((why for child in packed.children if (why := describe_misfit(child))), None)
    if packed.format == "masked":
        return next((why for child in packed.children if (why := describe_misfit(child, inside_mask=True))), None)
    if packed.format in CODED:
        return REAL_ZEROS if "offset" in packed.tensors else _describe_misalignment(packed)
    if packed.format in CODEWORD_FORMATS and packed.facts["length"] > MAX_CODEWORD_LENGTH:
        return f"codewords of {packed.facts['length']} numbers are longer than {MAX_CODEWORD_LENGTH}"
    runnable = ("dense", "zero") if inside_mask else COMPOSED_FORMATS
    return None if packed.format in runnable else f"it has no kernel for format {packed.format!r}"


def _describe_misalignment(packed: Packed) -> str | None:
    """Why groups do not consist of whole bytes of signs, or None; a row may end within one."""
    span = packed.facts["span"]
    if span < packed.cols and span % STEP_COLUMNS:
        return f"groups of {span} columns do not consist of bytes of {STEP_COLUMNS} signs"
    return None
