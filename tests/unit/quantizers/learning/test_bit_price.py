"""Learned parts stay only where they gain more than their bits would elsewhere."""

import pytest
import torch

from workbench.quantizers.learning.basis import Basis, Factors
from workbench.quantizers.learning.bit_price import keep_what_pays
from workbench.quantizers.learning.inputs import Input

ROWS, COLS = 32, 16
PRICE = {"gain": 16 * COLS, "rotation": 16 * 2 * 6}  # bits: Λ, and the upper triangles of two 4 × 4 matrices


def learned() -> Input:
    """One input with every part away from the identity."""
    basis = Basis(COLS, Factors(gain=True, signs=True, rotation=True, hadamard=True))
    with torch.no_grad():
        for parameter in basis.parameters():
            if parameter.requires_grad:
                parameter += 0.3
    return Input({"w": torch.ones(ROWS, COLS)}, basis, {}, "codes")


def beginning(group: Input) -> list[torch.Tensor]:
    """Neither Λ nor R, and the same signs."""
    return [p.detach() if not p.requires_grad else torch.zeros_like(p) for p in group.basis.parameters()]


@pytest.mark.parametrize("part", PRICE)
@pytest.mark.parametrize(("share", "stays"), [(0.9, False), (1.1, True)], ids=["too-little", "enough"])
def test_a_part_stays_where_it_gains_more_than_its_bits(part: str, share: float, stays: bool) -> None:
    """Here a part divides the loss by 4 to the power of `share` times its bits a weight; the other part gains a lot."""
    group = learned()
    (other,) = set(PRICE) - {part}
    bits = PRICE[part] / (ROWS * COLS)
    worth = {part: 4 ** (share * bits), other: 100.0}

    def held_out() -> float:
        kept = group.basis.stored_bits()
        return 1.0 * (1 if part in kept else worth[part]) * (1 if other in kept else worth[other])

    assert group.basis.stored_bits() == PRICE
    loss = keep_what_pays([group], beginning(group), held_out)
    assert set(group.basis.stored_bits()) == ({part, other} if stays else {other})
    assert loss == pytest.approx(1.0 if stays else worth[part])
    assert "signs" in group.basis.state().tensors()


def test_what_makes_nothing_better_is_not_stored() -> None:
    group = learned()
    assert keep_what_pays([group], beginning(group), lambda: 1.0) == 1.0
    assert set(group.basis.state().tensors()) == {"signs"}


def test_parts_that_pay_only_one_by_one_are_all_taken_back() -> None:
    """Without either one the loss is high, without both it is not: then the beginning is better."""
    group = learned()
    lost = {0: 1.01, 1: 100.0, 2: 1.0}
    assert keep_what_pays([group], beginning(group), lambda: lost[len(group.basis.stored_bits())]) == 1.01
    assert set(group.basis.state().tensors()) == {"signs"}
