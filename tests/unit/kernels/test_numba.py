"""The numba backend against the reference: every form it accepts, how exact it is, every reason it refuses."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.unit.kernels.conftest import Draw
from workbench.errors import KernelError
from workbench.kernels import forced_backend, formats
from workbench.kernels.kernel_mode import Mode
from workbench.kernels.matmul import dispatch
from workbench.kernels.matmul.numba import backend
from workbench.kernels.matmul.numba.lut import sign_products
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.packing.bitpack import pack
from workbench.kernels.packing.packed import Packed

BOUND = 2e-4  # of the norm of the output
FAST = 2e-2


def masked(draw: Draw, share: float, *kinds: Callable[[Draw, Tensor], Packed]) -> Packed:
    """The second coder owns about this share of the weights, the first one the others."""
    owner = torch.rand(draw.rows, draw.cols, generator=draw.random) < share
    children = tuple(kind(draw, owner == number) for number, kind in enumerate(kinds))
    return Packed("masked", draw.rows, draw.cols, {"map": pack(owner, 1)}, {"map": "bitmap"}, children)


def by_columns(draw: Draw, *kinds: Callable[[Draw, Tensor], Packed]) -> Packed:
    """Columns alternate between two coders."""
    owner = torch.arange(draw.cols) % 2
    full = owner.expand(draw.rows, draw.cols)
    children = tuple(kind(draw, full == number) for number, kind in enumerate(kinds))
    return Packed("masked", draw.rows, draw.cols, {"map": pack(owner, 1)}, {"map": "columns"}, children)


def plane(draw: Draw, mask: Tensor) -> Packed:
    return draw.planes(1, 16, extras=True, mask=mask)


def two_planes(draw: Draw, mask: Tensor) -> Packed:
    return draw.planes(2, 48, extras=False, mask=mask)


def integers(draw: Draw, mask: Tensor) -> Packed:
    return draw.uniform(8, 48, zero=True, mask=mask)


def trits(draw: Draw, mask: Tensor) -> Packed:
    return draw.ternary(1, 16, mask=mask)


def kept(draw: Draw, mask: Tensor) -> Packed:
    return draw.dense(mask=mask)


def none(draw: Draw, mask: Tensor) -> Packed:
    return Packed("zero", draw.rows, draw.cols)


def twice(draw: Draw, mask: Tensor) -> Packed:
    """A mask inside a mask."""
    inner = (torch.rand(draw.rows, draw.cols, generator=draw.random) < 0.5) & mask
    children = (plane(draw, mask & ~inner), two_planes(draw, inner))
    return Packed("masked", draw.rows, draw.cols, {"map": pack(inner[mask], 1)}, {"map": "bitmap"}, children)


def rotated(draw: Draw, *, hadamard: bool = False) -> Packed:
    node = draw.rotated(draw.planes(1, 48, extras=False), (6, 8))
    return replace(node, facts={**node.facts, "hadamard": hadamard})


def rounded(draw: Draw) -> Packed:
    return Packed("rounded-input", draw.rows, draw.cols, facts={"bits": 8}, children=(draw.uniform(4, 16, zero=True),))


ACCEPTED: dict[str, Callable[[Draw], Packed]] = {
    "planes-row-scales": lambda draw: draw.planes(1, 48, extras=False),
    "planes-groups": lambda draw: draw.planes(2, 16, extras=False),
    "planes-columns-and-means": lambda draw: draw.planes(4, 16, extras=True),
    "planes-ragged-last-group": lambda draw: draw.planes(1, 32, extras=True),
    "codes-1": lambda draw: draw.uniform(1, 16, zero=True),
    "codes-2": lambda draw: draw.uniform(2, 16, zero=True),
    "codes-3-symmetric": lambda draw: draw.uniform(3, 48, zero=False),
    "codes-4": lambda draw: draw.uniform(4, 32, zero=True),
    "codes-5": lambda draw: draw.uniform(5, 16, zero=True),
    "codes-8": lambda draw: draw.uniform(8, 48, zero=True),
    "ternary": lambda draw: draw.ternary(1, 48),
    "ternary-groups": lambda draw: draw.ternary(3, 16),
    "codebook-8-bit-index": lambda draw: draw.codebook(8, 256, 48, extras=False),
    "codebook-3-bit-index": lambda draw: draw.codebook(4, 6, 16, extras=True),
    "codebook-of-3-signs": lambda draw: draw.codebook(3, 5, 48, extras=True),
    "codebook-11-bit-index": lambda draw: draw.codebook(16, 1100, 16, extras=True),
    "codebook-padded": lambda draw: draw.codebook(10, 12, 48, extras=True),
    "codebook-one-entry": lambda draw: draw.codebook(8, 1, 48, extras=False),
    "vectors": lambda draw: draw.vectors(5, 30, 48),
    "vectors-groups": lambda draw: draw.vectors(8, 256, 16),
    "table": lambda draw: draw.vectors(1, 12, 16),
    "trellis": lambda draw: draw.trellis(4, 5, 12, 48),
    "trellis-groups": lambda draw: draw.trellis(3, 2, 10, 8),
    "parity": lambda draw: draw.parity(15, 4, 16, extras=True),
    "factors": lambda draw: draw.factors(24, middle=False),
    "factors-odd-rank": lambda draw: draw.factors(13, middle=True),
    "masked-halves": lambda draw: masked(draw, 0.5, plane, two_planes),
    "masked-few": lambda draw: masked(draw, 0.05, plane, integers),
    "masked-kept": lambda draw: masked(draw, 0.1, plane, kept),
    "masked-many-integers": lambda draw: masked(draw, 0.7, none, integers),
    "masked-twice": lambda draw: masked(draw, 0.4, two_planes, twice),
    "masked-trits": lambda draw: masked(draw, 0.5, trits, plane),
    "masked-columns": lambda draw: by_columns(draw, plane, two_planes),
    "masked-columns-of-masks": lambda draw: by_columns(draw, twice, integers),
    "hadamard": lambda draw: draw.hadamard(draw.planes(1, 8, extras=True)),
    "rotated": rotated,
    "rotated-hadamard": lambda draw: rotated(draw, hadamard=True),
    "permuted-scaled": lambda draw: draw.permuted(draw.scaled(draw.codebook(4, 16, 48, extras=False))),
    "zero": lambda draw: Packed("zero", draw.rows, draw.cols),
    "sum": lambda draw: Packed("sum", draw.rows, draw.cols, children=(draw.planes(1, 48, extras=False), draw.low_rank())),
}


@pytest.fixture(params=list(ACCEPTED), ids=list(ACCEPTED))
def accepted(request: pytest.FixtureRequest) -> Packed:
    """A stored matrix that the backend runs; its last stripe of 64 rows is not full."""
    return ACCEPTED[request.param](Draw(rows=150, cols=48))


def product(x: Tensor, packed: Packed, **mode: str) -> Tensor:
    """What the backend gives."""
    return backend.prepare(packed, Mode(**mode))(x)


def distance(y: Tensor, x: Tensor, packed: Packed) -> float:
    """How far `y` is from the reference in float64, as a share of its norm, or of √Σ(w x)² where the terms cancel each other."""
    weight, given = formats.decode(packed).double(), x.double()
    expected = given @ weight.T
    terms = (given.square() @ weight.square().T).sum().sqrt()
    return float((y - expected).norm() / torch.maximum(expected.norm(), terms).clamp(min=1e-300))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (130,)], ids=["vector", "one", "six", "many"])
@pytest.mark.parametrize("cache", ["decoded", "none"])
def test_equals_the_reference(accepted: Packed, batch: tuple[int, ...], cache: str) -> None:
    x = torch.randn(*batch, accepted.cols, generator=torch.Generator().manual_seed(3))
    assert backend.describe_refusal(accepted, 6) is None
    y = product(x, accepted, cache=cache)
    assert y.shape == (*batch, accepted.rows)
    assert distance(y, x, accepted) < BOUND


@pytest.mark.parametrize("cache", ["decoded", "none"])
def test_tiles_equal_the_reference(accepted: Packed, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_products, "choose_tile_threshold", lambda planes, digits: 1)
    x = torch.randn(7, accepted.cols, generator=torch.Generator().manual_seed(3))
    y = product(x, accepted, cache=cache)
    torch.testing.assert_close(y, formats.linear(x, accepted), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("form", ["planes-groups", "codes-4", "masked-halves", "codebook-8-bit-index"])
def test_fast_sums_are_coarser(form: str) -> None:
    tree = ACCEPTED[form](Draw(rows=150, cols=48))
    x = torch.randn(4, 48, generator=torch.Generator().manual_seed(3))
    assert BOUND < distance(product(x, tree, precision="fast"), x, tree) < FAST


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
INPUTS = 5
LARGE = 1e30  # beyond it float32 outputs may overflow
WIDE: dict[str, Callable[[Draw], Packed]] = {
    "row-scales": lambda draw: draw.planes(1, 1024, extras=False),
    "columns-and-means": lambda draw: draw.planes(2, 1024, extras=True),
    "groups": lambda draw: draw.planes(1, 128, extras=False),
    "codes-2": lambda draw: draw.uniform(2, 1024, zero=True),
    "codes-4": lambda draw: draw.uniform(4, 128, zero=True),
    "codes-3": lambda draw: draw.uniform(3, 64, zero=False),
    "ternary": lambda draw: draw.ternary(1, 256),
    "codebook": lambda draw: draw.codebook(8, 64, 1024, extras=False),
    "vectors": lambda draw: draw.vectors(4, 64, 1024),
    "trellis": lambda draw: draw.trellis(4, 4, 12, 128),
    "parity": lambda draw: draw.parity(15, 4, 1024, extras=True),
    "masked": lambda draw: masked(draw, 0.3, plane, integers),
    "factors": lambda draw: draw.factors(200, middle=True),
    "hadamard": lambda draw: draw.hadamard(draw.planes(1, 1024, extras=False)),
}
SOME = st.sampled_from([0.0, 1.0, -3.0, 1e-3, 400.0]) | FINITE.filter(lambda value: abs(value) < LARGE)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(list(WIDE)),
    st.lists(SOME, min_size=1, max_size=40),
    st.integers(0, 2**20),
    st.sampled_from([0.0, 1e-6, 1e-4, 1e-3, 1e-2, 1.0]),
    st.booleans(),
    st.sampled_from(["decoded", "none"]),
)
@example("hadamard", [1.0], 0, 0.0, False, "decoded")  # many inputs of one magnitude
@example("factors", [1.0], 3431, 1.0, False, "decoded")  # two products in a row, both rounded
@example("masked", [0.0, 0.0, 0.0, 3.6e15, 6.35e16, 6.35e16, 2.6e15], 0, 0.0, True, "decoded")  # all energy in one step
def test_any_inputs_are_summed_exactly(
    form: str, values: list[float], seed: int, noise: float, together: bool, cache: str
) -> None:
    """Outliers, apart or side by side, all kinds of magnitudes, subnormal numbers: nothing is rounded away that counts, in any of
    five inputs, some of which are summed together and have their outliers elsewhere."""
    tree = WIDE[form](Draw(rows=128, cols=1024, seed=seed))
    random = torch.Generator().manual_seed(seed)
    x = noise * torch.randn(INPUTS, 1024, generator=random) * max(map(abs, values))
    places = torch.arange(1024) if together else torch.randperm(1024, generator=random)
    for i, own in enumerate(x):
        own[places.roll(-100 * i)[: len(values)]] = torch.tensor(values)
    y = product(x, tree, cache=cache)
    assert y.isfinite().all()
    smallest = 1e-38 * 1024  # a float32 below about 1e-38 is not exact itself
    expected = x.double() @ formats.decode(tree).double().T
    assert ((y - expected).norm(dim=1) <= BOUND * expected.norm(dim=1) + smallest).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 300), st.integers(1, 16), st.integers(1, 600), st.booleans())
@example(130, 33, 4, 16, False)  # the last vector of a row ends before its last byte
@example(130, 104, 16, 64, True)  # groups that are not whole words of four steps
def test_indices_of_any_shape_are_decoded(rows: int, cols: int, length: int, entries: int, groups: bool) -> None:
    """Codewords of all lengths and indices of all widths, where rows, bytes, words and vectors end at different columns."""
    span = 8 if groups and cols % 8 == 0 else cols
    tree = Draw(rows=rows, cols=cols, seed=length).codebook(length, min(entries, 2**length), span, extras=False)
    x = torch.randn(2, cols, generator=torch.Generator().manual_seed(0))
    assert distance(product(x, tree, cache="none"), x, tree) < BOUND


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 300), st.integers(1, 32), st.integers(1, 16), st.booleans(), st.booleans())
@example(130, 99, 5, 3, True, True)  # codes begin anywhere in a byte, groups and words end at different columns
def test_words_of_any_shape_are_decoded(rows: int, cols: int, length: int, bits: int, path: bool, groups: bool) -> None:
    """Words of all lengths and codes of all widths, alone or as paths through a trellis."""
    span = max(1, cols // 3) if groups else cols
    draw = Draw(rows=rows, cols=cols, seed=length)
    tree = draw.trellis(min(bits, 4), length, 8, span) if path else draw.vectors(length, min(2**bits - 1, 700), span)
    x = torch.randn(2, cols, generator=torch.Generator().manual_seed(0))
    assert distance(product(x, tree, cache="none"), x, tree) < 1e-6


def test_inputs_are_rounded_first() -> None:
    tree = rounded(Draw(rows=150, cols=48))
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    expected = formats.linear(x, tree)
    assert (product(x, tree) - expected).norm() < BOUND * expected.norm()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=["nan", "inf", "minus-inf"])
def test_what_is_not_finite_makes_no_number(value: float) -> None:
    x = torch.ones(2, 48)
    x[1, 7] = value
    y = product(x, Draw(rows=70, cols=48).planes(1, 48, extras=False))
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["fp64", "bf16"])
def test_keeps_the_type_of_its_input(accepted: Packed, dtype: torch.dtype) -> None:
    assert product(torch.ones(2, accepted.cols, dtype=dtype), accepted).dtype == dtype


def test_inputs_need_not_lie_in_one_piece(accepted: Packed) -> None:
    x = torch.randn(accepted.cols, 3).T
    assert distance(product(x, accepted), x, accepted) < BOUND


def test_is_chosen_and_explained(accepted: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(forced_backend.VARIABLE, raising=False)
    explanation = dispatch.explain(accepted)
    assert explanation.backend == "numba"
    assert explanation.refused.pop("cuda").startswith("it runs on a CUDA device, and ")
    assert explanation.refused == {"reference": "numba comes first and can run it"}


def test_stripes_are_resident_beside_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(forced_backend.VARIABLE, raising=False)
    layer = PackedLinear(Draw(rows=128, cols=64).planes(1, 64, extras=False))
    before = layer.resident_bytes
    layer(torch.ones(1, 64))
    signs, scales, edges = 128 * 64 // 8, 2 * 128, 8
    assert layer.resident_bytes == before + signs + scales + edges


REFUSED: dict[str, tuple[Callable[[Draw], Packed], str]] = {
    "format": (lambda draw: draw.dense(), "it has no kernel for format 'dense'"),
    "child": (lambda draw: draw.hadamard(draw.dense()), "it has no kernel for format 'dense'"),
    "words": (lambda draw: draw.vectors(40, 4, 48), "words of 40 numbers are longer than 32"),
    "groups": (lambda draw: draw.planes(1, 12, extras=False), "groups of 12 columns do not consist of bytes of 8 signs"),
    "masked-groups": (lambda draw: draw.sum(), "groups of 4 columns do not consist of bytes of 8 signs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, sentence = REFUSED[case]
    monkeypatch.delenv(forced_backend.VARIABLE, raising=False)
    explanation = dispatch.explain(make(Draw(rows=8, cols=48)))
    assert explanation.backend == "reference"
    assert sentence in explanation.refused["numba"]


def test_other_devices_are_refused(draw: Draw) -> None:
    tree = draw.planes(1, 13, extras=False)
    moved = Packed(tree.format, 5, 13, {name: tensor.to("meta") for name, tensor in tree.tensors.items()}, tree.facts)
    assert backend.describe_refusal(moved, 1) == "it runs on the CPU, and the stored tensors are on meta"


def test_a_gradient_is_refused() -> None:
    tree = Draw(cols=48).planes(1, 48, extras=False)
    x = torch.ones(1, 48, requires_grad=True)
    with pytest.raises(KernelError, match="has no gradients"):
        product(x, tree)
    with torch.inference_mode():
        assert product(x, tree).shape == (1, 5)
