"""Saliency of weights: by magnitude, or by the output error of removing a weight."""

from torch import Tensor

from workbench.quantizers.curvature import compute_inverse_factor

DAMPING = 0.01


def compute_saliency(w: Tensor, moment: Tensor | None, metric: str) -> Tensor:
    """Scores `[rows, cols]`: |w| for "magnitude", w² / U_jj² for "hessian" (U of `curvature.compute_inverse_factor`).

    The second is the published code's metric in PB-LLM (arXiv 2310.00034) and BiLLM (arXiv 2402.04291): the output energy
    that is lost when the weight is removed and the columns after it repair what they can.
    """
    if metric == "magnitude":
        return w.abs()
    assert moment is not None
    diagonal = compute_inverse_factor(moment, DAMPING).diagonal().to(w.dtype)
    return (w / diagonal).square()
