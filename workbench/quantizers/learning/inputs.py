"""One input that several layers read (q, k, v; gate, up), its trainable basis, and the layers' weights quantized in it."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.quantizers.contract import Rounding
from workbench.quantizers.learning.basis import Basis

GRADIENTS = ("codes", "straight-through")


class Input:
    """Layers `weights` (by name, `[rows, cols]`) that share a basis and the input with second moment `moment`.

    `gradient` says what stays put while the basis moves: "codes", the quantized values Q(W'), which is the true gradient
    wherever no weight changes its code; or "straight-through", the rounding error Q(W') − W', the usual surrogate.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        basis: Basis,
        roundings: Mapping[str, Rounding],
        gradient: str,
        moment: Tensor | None = None,
    ) -> None:
        self.weights, self.basis, self.roundings, self.gradient = dict(weights), basis, roundings, gradient
        self.moment = moment
        self.effective_weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def refresh(self) -> dict[str, Tensor]:
        """Quantize again in the basis as it would be stored now, and return what that decodes to in the model's own basis."""
        basis = copy.deepcopy(self.basis)
        basis.round()
        moment = None if self.moment is None else basis.input(basis.input(self.moment).mT)
        decoded = {}
        for name, w in self.weights.items():
            inner = basis(w)
            values = self.roundings[name](inner, moment)
            self.effective_weights[name] = values if self.gradient == "codes" else values - inner
            decoded[name] = basis.undo(values)
        return decoded

    def distance(self) -> Tensor:
        """‖Ŵ − W‖² over ‖W‖² for the codes nearest in the basis as it is now, differentiable in the basis."""
        error_sum, energy_sum = torch.zeros(()), torch.zeros(())
        for name, w in self.weights.items():
            with torch.no_grad():
                values = self.roundings[name].nearest(self.basis(w))
            error_sum = error_sum + (self.basis.undo(values) - w).square().sum()
            energy_sum = energy_sum + w.square().sum()
        return error_sum / energy_sum.clamp(min=torch.finfo(torch.float32).tiny)

    def effective(self) -> dict[str, Tensor]:
        """Quantized weights in the model's own basis, differentiable in the basis."""
        back = {name: self.basis.undo(weight) for name, weight in self.effective_weights.items()}
        return back if self.gradient == "codes" else {name: self.weights[name] + error for name, error in back.items()}
