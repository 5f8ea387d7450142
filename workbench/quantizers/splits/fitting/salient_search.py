"""The number of columns in a block that get two sign planes: tried one by one, most salient first (BiLLM, arXiv 2402.04291)."""

import torch
from torch import Tensor


def select_salient_columns(w: Tensor, saliency: Tensor, limit: int) -> Tensor:
    """Mask `[cols]` of the salient columns of a block `w [rows, cols]`; `saliency [cols]` ranks them.

    The number, from 1 to `limit` − 1 and never all columns, is the one with the least squared error when the salient and the
    other columns are binarized apart with two planes each. The released code measures this on saliencies instead of weights.
    """
    order = torch.argsort(saliency, descending=True, stable=True)
    ranked = w[:, order]
    counts = range(1, min(limit, w.shape[1]))
    errors = [compute_second_order_error(ranked[:, :k]) + compute_second_order_error(ranked[:, k:]) for k in counts]
    chosen = torch.zeros(w.shape[1], dtype=torch.bool)
    if errors:
        chosen[order[: counts[int(torch.tensor(errors).argmin())]]] = True
    return chosen


def compute_second_order_error(w: Tensor) -> float:
    """‖w − μ − α₁s₁ − α₂s₂‖² for the closed-form mean and two planes of each row."""
    size = (w - w.mean(1, keepdim=True)).abs()
    first = size.mean(1)
    second = (size - first[:, None]).abs().mean(1)
    return (size.square().sum(1) - w.shape[1] * (first.square() + second.square())).sum(dtype=torch.float64).item()
