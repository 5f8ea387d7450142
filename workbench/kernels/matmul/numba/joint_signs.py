"""Several matrices of signs with the same inputs as one: tables are made once, and one call does the work of all."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.kernels.kernel_mode import Product
from workbench.kernels.matmul.numba.lut.sign_matmul import STRIPE_ROWS
from workbench.kernels.matmul.numba.lut.sign_products import Signs
from workbench.kernels.matmul.numba.lut.stripe_layout import Stripes, allocate_pages

SHARED_FACTS = ("cols", "planes", "joined", "span", "abreast")  # of stripes that can stand below each other
PER_ROW = ("scale", "mean", "zero")


def join_signs(products: Sequence[Product]) -> tuple[Signs, list[Signs]] | None:
    """One product for matrices below each other, and those of each matrix alone in the same memory.

    None where they are laid out differently, or one that is not the last ends within a stripe.
    """
    signs = [product for product in products if type(product) is Signs]
    if len(signs) < len(products) or not all(_are_alike(signs[0], other) for other in signs[1:]):
        return None
    if any(one.stripes.rows % STRIPE_ROWS for one in signs[:-1]):
        return None
    joint = replace(signs[0], stripes=_stack_stripes([one.stripes for one in signs]))
    alone, first = [], 0
    for one in signs:
        last = first + -(-one.stripes.rows // STRIPE_ROWS)
        alone.append(replace(one, stripes=replace(joint.stripes.part(first, last), rows=one.stripes.rows)))
        first = last
    return joint, alone


def _are_alike(first: Signs, other: Signs) -> bool:
    """Whether two matrices are laid out alike and change their inputs in the same way."""
    a, b = first.stripes, other.stripes
    return (
        (first.precision, first.factor) == (other.precision, other.factor)
        and all(getattr(a, name) == getattr(b, name) for name in SHARED_FACTS)
        and np.array_equal(a.edges, b.edges)
        and np.array_equal(a.column, b.column)
        and all(bool(getattr(a, name).size) == bool(getattr(b, name).size) for name in PER_ROW)
    )


def _stack_stripes(parts: Sequence[Stripes]) -> Stripes:
    """The stripes of all matrices in one piece of memory."""
    signs = allocate_pages(sum(part.signs.size for part in parts))
    np.concatenate([part.signs for part in parts], out=signs)
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_ROW}
    return replace(parts[0], rows=sum(part.rows for part in parts), signs=signs, **arrays)
