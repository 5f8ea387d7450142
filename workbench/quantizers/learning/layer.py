"""A basis learned for one layer alone: least output error tr(E H Eᵀ) of the quantized weight under the second moment."""

from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from workbench.quantizers.contract import Rounding
from workbench.quantizers.learning.basis import Basis, BasisState, Factors
from workbench.quantizers.learning.bit_price import keep_what_pays
from workbench.quantizers.learning.descent import LearningStep, Schedule, copy_values, descend
from workbench.quantizers.learning.inputs import Input
from workbench.quantizers.learning.sign_draws import draw_signs


def learn_layer(
    w: Tensor,
    moment: Tensor | None,
    factors: Factors,
    rounding: Rounding,
    schedule: Schedule,
    gradient: str,
    *,
    draws: int = 1,
    commitment: float = 0.0,
    seed: int = 0,
) -> Generator[LearningStep, None, BasisState]:
    """The stored state of the best basis for `w [rows, cols]`; its loss is the share of the output's energy that is lost."""
    size = w.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    scaled = w / size  # far from the ends of float32, where squares are lost
    h = None if moment is None else moment / moment.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    basis = Basis(w.shape[1], factors, seed)
    layer = Input({"weight": scaled}, basis, {"weight": rounding}, gradient, h)

    def energy(e: Tensor) -> Tensor:
        return (e * e).sum() if h is None else ((e @ h) * e).sum()

    total_energy = energy(scaled).clamp(min=torch.finfo(torch.float32).tiny)

    def loss(_step: int) -> Tensor:
        relative_loss = energy(layer.effective()["weight"] - scaled) / total_energy
        return commitment * layer.distance() + (1 - commitment) * relative_loss

    def held_out() -> float:
        return (energy(layer.refresh()["weight"] - scaled) / total_energy).item()

    def drawn_loss(weights: Mapping[str, Tensor]) -> float:
        return (energy(weights["weight"] - scaled) / total_energy).item()

    yield from draw_signs([layer], drawn_loss, draws, schedule.steps, seed)
    parameters = list(basis.parameters())
    if schedule.steps and any(parameter.requires_grad for parameter in parameters):
        beginning = copy_values(parameters)
        yield from descend(parameters, loss, held_out, schedule)
        keep_what_pays([layer], beginning, held_out)
    return basis.state()
