"""Backend `numba`: products straight from packed codes on the CPU, by looking sums up in tables. No matrix is decoded.

A byte of signs, or an index into a codebook, selects one of few possible sums of neighbouring inputs; all of them are made
once for each input (T-MAC, arXiv 2407.00088, tabulates groups of 4 signs; here 8, in float32). Portable, one thread.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from workbench.errors import KernelError
from workbench.kernels import reference
from workbench.kernels.packed import Packed
from workbench.kernels.reference.codebook import index_width
from workbench.kernels.reference.format import find
from workbench.kernels.reference.transforms import Transformed

MAX_BATCH = 8  # beyond it decoding once and multiplying was faster, measured at 256 × 768
AROUND = ("hadamard", "permuted", "rounded-input", "scaled", "sum")  # run here around what they hold


def refuses(packed: Packed, batch: int) -> str | None:
    """Why a tree is not run here for `batch` inputs at a time, as one sentence, or None."""
    if batch > MAX_BATCH:
        return f"looking up costs the same for every input; for {batch} at a time (more than {MAX_BATCH}) decoding once is faster"
    return unfit(packed)


def unfit(packed: Packed) -> str | None:
    """Why a stored matrix cannot be run here, or None."""
    for tensor in packed.tensors.values():
        if tensor.device.type != "cpu":
            return f"it runs on the CPU, and the stored tensors are on {tensor.device}"
    if packed.format in AROUND:
        return next((why for why in map(unfit, packed.children) if why), None)
    if packed.format == "planes":
        return misaligned(packed, 8, "bytes of 8 signs")
    if packed.format == "binary-codebook":
        entries, length = packed.facts["entries"], packed.facts["length"]
        if entries > packed.rows:
            return f"a table of {entries} codewords takes longer to make than the {packed.rows} rows take to multiply"
        return misaligned(packed, length, f"vectors of {length}", padded=True)
    if packed.format == "binary-factors":
        if packed.facts["rank"] % 8:
            return f"a rank of {packed.facts['rank']} does not consist of bytes of 8 signs"
        return f"rows of {packed.cols} columns do not consist of bytes of 8 signs" if packed.cols % 8 else None
    return None if packed.format == "low-rank" else f"it has no kernel for format {packed.format!r}"


def misaligned(packed: Packed, unit: int, name: str, *, padded: bool = False) -> str | None:
    """Why rows or groups do not consist of whole lookups of `unit` columns, or None; `padded` rows may end within one."""
    if packed.cols % unit and not padded:
        return f"rows of {packed.cols} columns do not consist of {name}"
    if packed.facts["span"] < packed.cols and packed.facts["span"] % unit:
        return f"groups of {packed.facts['span']} columns do not consist of {name}"
    return None


def linear(x: Tensor, packed: Packed) -> Tensor:
    """x Wᵀ: `[..., cols]` to `[..., rows]` in the type of `x`, summed in float32. KernelError where a gradient is asked for."""
    if x.requires_grad and torch.is_grad_enabled():
        raise KernelError("backend 'numba' computes no gradients; use torch.inference_mode(), or WORKBENCH_KERNELS=reference.")
    y = product(x.reshape(-1, packed.cols).to(torch.float32), packed)
    return y.reshape(*x.shape[:-1], packed.rows).to(x.dtype)


def product(x: Tensor, packed: Packed) -> Tensor:
    """x Wᵀ for `x [n, cols]`, float32; a low-rank part is left to the reference, which never builds its matrix."""
    form = find(packed)
    if issubclass(form, Transformed):
        return product(form.input(x, packed), packed.children[0])
    if packed.format == "sum":
        return torch.stack([product(x, child) for child in packed.children]).sum(0)
    if packed.format == "planes":
        return add_means(planes(x, packed), x, packed)
    if packed.format == "binary-codebook":
        return add_means(codebook(x, packed), x, packed)
    if packed.format == "binary-factors":
        return factors(x, packed)
    return reference.linear(x, packed)


def planes(x: Tensor, packed: Packed) -> Tensor:
    """Σ_p scale_p · sign sums, `[n, rows]`; column scales go to the input, and then each plane has its own."""
    from workbench.kernels.numba import lookup

    signs = packed.tensors["signs"].view(packed.facts["planes"], -1).numpy()
    scale = packed.tensors["scale"].to(torch.float32).numpy()
    group = per_group(packed, 8)
    if "column_scale" not in packed.tensors:
        return torch.from_numpy(lookup.planes(x.contiguous().numpy(), signs, scale, group))
    inputs = (x * columns for columns in packed.tensors["column_scale"].to(torch.float32))
    parts = [lookup.planes(own.numpy(), signs[p : p + 1], scale[p : p + 1], group) for p, own in enumerate(inputs)]
    return torch.from_numpy(sum(parts[1:], start=parts[0]))


def codebook(x: Tensor, packed: Packed) -> Tensor:
    """scale · codeword products, `[n, rows]`; column scales go to the input."""
    from workbench.kernels.numba import lookup

    entries, length = packed.facts["entries"], packed.facts["length"]
    if "column_scale" in packed.tensors:
        x = x * packed.tensors["column_scale"].to(torch.float32)
    words, index = packed.tensors["codebook"].numpy(), packed.tensors["index"].numpy()
    scale = packed.tensors["scale"].to(torch.float32).numpy()
    x = pad(x, (0, -packed.cols % length)).contiguous()
    width, group = index_width(entries), per_group(packed, length)
    return torch.from_numpy(lookup.codebook(x.numpy(), words, length, entries, index, width, scale, group))


def factors(x: Tensor, packed: Packed) -> Tensor:
    """Sums with the right signs, then of those sums with the left ones, `[n, rows]`."""
    stored = packed.tensors
    middle = stored.get("middle", torch.ones(packed.facts["rank"]))
    return sign_sums(sign_sums(x * stored["column"].float(), stored["right"], middle), stored["left"], stored["row"])


def sign_sums(x: Tensor, signs: Tensor, size: Tensor) -> Tensor:
    """diag(size) · signs · x for `x [n, k]`, signs `[m, k]` as a stream and `size [m]`: `[n, m]`."""
    from workbench.kernels.numba import lookup

    scale = size.float().view(1, -1, 1).numpy()
    return torch.from_numpy(lookup.planes(x.contiguous().numpy(), signs.view(1, -1).numpy(), scale, x.shape[1] // 8))


def per_group(packed: Packed, unit: int) -> int:
    """Lookups of `unit` columns in a group; a group as wide as the row holds all, a padded one too."""
    return -(-min(packed.facts["span"], packed.cols) // unit)


def add_means(y: Tensor, x: Tensor, packed: Packed) -> Tensor:
    """Add what the offsets give: Σ_g mean[r, g] · (sum of the group's inputs)."""
    if "mean" not in packed.tensors:
        return y
    mean, span = packed.tensors["mean"].to(torch.float32), packed.facts["span"]
    sums = pad(x, (0, mean.shape[1] * span - packed.cols)).view(len(x), mean.shape[1], span).sum(-1)
    return y + sums @ mean.mT
