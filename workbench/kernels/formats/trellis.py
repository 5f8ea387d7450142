"""Format `trellis`: values of states that share all but a few bits with their neighbours; no codebook is stored.

A ring of T steps stores k bits a step. The state of a step is the last L bits stored up to it, and stands for V values that a
hash of the state gives. Before the first step come the bits of the last (tail-biting), so stored bits alone say every state.

    bits   … 1011 0010 0111 1100 …        k = 4
    state       ‾‾‾‾‾‾‾‾‾‾‾‾‾‾            L = 12: the step that ends here, and the two before it

QTIP (arXiv 2406.11235) has 1 or 2 weights a step and 256 of a tile in a ring; here V may be any number, which gives rates below
one bit, and a ring runs down all rows of V neighbouring columns. The hash is this project's.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels.formats.format import Format, count_groups, declare_span_fact, expand_groups, replace_codes
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import (
    FactSpec,
    TensorSpec,
    declare_code_stream,
    declare_finite_numbers,
    declare_integer,
)
from workbench.kernels.packing.trellis_code import compute_state_values, compute_states
from workbench.kernels.search import viterbi
from workbench.registry import register

MAX_STEP_BITS, MAX_STEP_COLUMNS, MAX_STATE_BITS = 16, 32, 16  # bits of a step, its columns, bits of a state


@register("format", "trellis")
class Trellis(Format):
    """value = scale · values(state); see above.

    Facts: `bits` k a step, `length` V columns a step, `state` L bits, `span` columns a group. Tensors: `path` (stream of k bits,
    `[rows, ceil(cols/V)]`; the ring of a step's columns runs down the rows), `scale` fp16 `[rows, groups]`. Values past the last
    column are ignored.

    Value j of state s: x = s · V + j + 1, then for each (m, r) of HASH x ← x · m mod 2³² and x ← x xor ⌊x / 2^r⌋; the sum of the
    four bytes of x, less 510, over √21845, which is close to normal.
    """

    paths: ClassVar = True
    items: ClassVar = {
        "path": "the newest bits of the state, for each row and step of columns",
        "scale": "magnitude, one a row and group",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "bits", declare_integer(1, MAX_STEP_BITS)
        yield "length", declare_integer(1, MAX_STEP_COLUMNS)
        yield "state", declare_integer(packed.facts["bits"], MAX_STATE_BITS)
        yield declare_span_fact(packed)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        steps = -(-packed.cols // packed.facts["length"])
        yield "path", declare_code_stream(packed.rows * steps, packed.facts["bits"])
        yield "scale", declare_finite_numbers(packed.rows, count_groups(packed))

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · values(state)."""
        _check_unmasked(packed, mask)
        bits, length, state = (packed.facts[name] for name in ("bits", "length", "state"))
        steps = -(-packed.cols // length)
        codes = bitpack.unpack(packed.tensors["path"], bits, packed.rows * steps).view(packed.rows, steps)
        words = compute_state_values(state, length).to(codes.device)[compute_states(codes, bits, state)].view(packed.rows, -1)
        return expand_groups(packed.tensors["scale"], packed.facts["span"], packed.cols) * words[:, : packed.cols]

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The path that leaves the least squared error, for every ring."""
        _check_unmasked(packed, mask)
        bits, length, state, span = (packed.facts[name] for name in ("bits", "length", "state", "span"))
        groups = zip(target.split(span, 1), packed.tensors["scale"].float().unbind(1), strict=True)
        codes = torch.cat([viterbi.find_nearest_codes(w, scale, bits, length, state) for w, scale in groups], 1)
        return replace_codes(packed, "path", codes, bits, None)


def _check_unmasked(packed: Packed, mask: Tensor | None) -> None:
    """Raise ShapeError where single weights are asked for."""
    if mask is not None:
        raise ShapeError(f"format {packed.format!r} stores whole rings and cannot be masked; use it for the whole matrix.")
