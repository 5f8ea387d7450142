"""Every format against a decoder that reads one bit and one weight at a time, written from the format's description alone."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from workbench import registry
from workbench.errors import ShapeError
from workbench.kernels import formats
from workbench.kernels.formats.transforms import hadamard, invert_hadamard
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.parity_code import ParityCode


def number(stream: Tensor, width: int, place: int) -> int:
    """Code `place` of a stream, bit by bit."""
    bits = [int(stream[k // 8]) >> (k % 8) & 1 for k in range(place * width, (place + 1) * width)]
    return sum(bit << i for i, bit in enumerate(bits))


def width_for(count: int) -> int:
    return max(1, math.ceil(math.log2(count)))


def slow(node: Packed, mask: list[list[bool]] | None = None) -> Tensor:
    """The matrix of a tree, weight by weight, in float64."""
    rows, cols = node.rows, node.cols
    out = torch.zeros(rows, cols, dtype=torch.float64)
    if node.format in TRANSFORMS:
        return TRANSFORMS[node.format](slow(node.children[0]), node)
    stored = [(r, c) for r in range(rows) for c in range(cols) if mask is None or mask[r][c]]
    if node.format == "masked":
        children = [
            slow(child, [[owner(node, r, c) == i for c in range(cols)] for r in range(rows)])
            for i, child in enumerate(node.children)
        ]
        for r, c in stored:
            out[r, c] = children[owner(node, r, c)][r, c]
        return out
    for place, (r, c) in enumerate(stored):
        out[r, c] = WEIGHTS[node.format](node, r, c, place, len(stored))
    return out


def owner(node: Packed, r: int, c: int) -> int:
    if node.facts["map"] == "n-of-m":
        n, m = node.facts["n"], node.facts["m"]
        choices = sorted(sum(1 << bit for bit in bits) for bits in itertools.combinations(range(m), n))
        choice = number(node.tensors["map"], width_for(len(choices)), r * -(-node.cols // m) + c // m)
        return choices[choice] >> c % m & 1
    place = r * node.cols + c if node.facts["map"] == "bitmap" else c
    return number(node.tensors["map"], width_for(len(node.children)), place)


def dense(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    return float(node.tensors["weight"].reshape(-1)[place])


def uniform(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    bits, group = node.facts["bits"], c // node.facts["span"]
    groups = node.tensors["scale"].shape[1]
    zero = number(node.tensors["zero"], bits, r * groups + group) if "zero" in node.tensors else 2 ** (bits - 1)
    return float(node.tensors["scale"][r, group]) * (number(node.tensors["codes"], bits, place) - zero)


def planes(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    group, value = c // node.facts["span"], 0.0
    for p in range(node.facts["planes"]):
        sign = 2 * number(node.tensors["signs"], 1, p * stored + place) - 1
        column = float(node.tensors["column_scale"][p, c]) if "column_scale" in node.tensors else 1.0
        value += sign * column * float(node.tensors["scale"][p, r, group])
    return value + (float(node.tensors["mean"][r, group]) if "mean" in node.tensors else 0.0)


def ternary(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    value = 0.0
    for p in range(node.facts["planes"]):
        byte, digit = divmod(p * stored + place, 5)
        trit = int(node.tensors["trits"][byte]) // 3**digit % 3 - 1
        value += trit * float(node.tensors["scale"][p, r, c // node.facts["span"]])
    return value


def codebook(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    length, group = node.facts["length"], c // node.facts["span"]
    segment = r * math.ceil(node.cols / length) + c // length
    word = number(node.tensors["index"], width_for(node.facts["entries"]), segment)
    sign = 2 * number(node.tensors["codebook"], 1, word * length + c % length) - 1
    column = float(node.tensors["column_scale"][c]) if "column_scale" in node.tensors else 1.0
    mean = float(node.tensors["mean"][r, group]) if "mean" in node.tensors else 0.0
    return sign * column * float(node.tensors["scale"][r, group]) + mean


def vectors(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    length, group = node.facts["length"], c // node.facts["span"]
    word = number(node.tensors["index"], width_for(node.facts["entries"]), r * math.ceil(node.cols / length) + c // length)
    return float(node.tensors["codebook"][word, c % length]) * float(node.tensors["scale"][r, group])


def trellis(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    bits, length = node.facts["bits"], node.facts["length"]
    steps, state = math.ceil(node.cols / length), 0
    for back in reversed(range(math.ceil(node.facts["state"] / bits))):
        state = state << bits | number(node.tensors["path"], bits, (r - back) % node.rows * steps + c // length)
    x = state % 2 ** node.facts["state"] * length + c % length + 1
    for factor, shift in ((0x9E3779B1, 15), (0x2C1B3C6D, 12), (0x297A2D39, 15)):
        x = x * factor % 2**32
        x ^= x >> shift
    value = (sum(x.to_bytes(4, "little")) - 510) / math.sqrt(21845)
    return value * float(node.tensors["scale"][r, c // node.facts["span"]])


def parity(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    """A shift register of open checks: a −1 toggles those its mask names, and a check that closes must be even."""
    code, group = ParityCode(node.facts["length"], node.facts["checks"]), c // node.facts["span"]
    masks, open_checks, at, negative = code.masks(node.rows), 0, 0, 0
    for row in range(r + 1):
        if code.closes(row):
            negative = open_checks & 1
        else:
            negative, at = number(node.tensors["signs"], 1, at * node.cols + c), at + 1
        open_checks = (open_checks ^ masks[row] * negative) >> code.closes(row)
    column = float(node.tensors["column_scale"][c]) if "column_scale" in node.tensors else 1.0
    mean = float(node.tensors["mean"][r, group]) if "mean" in node.tensors else 0.0
    return (1 - 2 * negative) * column * float(node.tensors["scale"][r, group]) + mean


def low_rank(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    left, right = node.tensors["left"], node.tensors["right"]
    return sum(float(left[r, k]) * float(right[k, c]) for k in range(left.shape[1]))


def factors(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    rank, value = node.facts["rank"], 0.0
    for k in range(rank):
        left = 2 * number(node.tensors["left"], 1, r * rank + k) - 1
        right = 2 * number(node.tensors["right"], 1, k * node.cols + c) - 1
        value += left * right * (float(node.tensors["middle"][k]) if "middle" in node.tensors else 1.0)
    return value * float(node.tensors["row"][r]) * float(node.tensors["column"][c])


def total(node: Packed, r: int, c: int, place: int, stored: int) -> float:
    return sum(float(slow(child)[r, c]) for child in node.children)


def unpermute(w: Tensor, node: Packed) -> Tensor:
    out = torch.empty_like(w)
    for place in range(node.cols):
        out[:, number(node.tensors["order"], width_for(node.cols), place)] = w[:, place]
    return out


def unscale(w: Tensor, node: Packed) -> Tensor:
    return w / node.tensors["scale"].double()


def unrotate(w: Tensor, node: Packed) -> Tensor:
    """W' Hᵀ D."""
    signs = torch.tensor([2.0 * number(node.tensors["signs"], 1, i) - 1 for i in range(node.cols)], dtype=torch.float64)
    return w @ hadamard_matrix(node.cols).T * signs


def hadamard_matrix(n: int) -> Tensor:
    """H written out as a Kronecker product of its two factors."""
    power = 1
    while n % (2 * power) == 0:
        power *= 2
    k = n // power
    sylvester = torch.tensor([[(-1.0) ** (i & j).bit_count() for j in range(power)] for i in range(power)], dtype=torch.float64)
    cosine = torch.tensor([[math.cos(math.pi * (i + 0.5) * j / k) for j in range(k)] for i in range(k)], dtype=torch.float64)
    return torch.kron(sylvester / math.sqrt(power), cosine / cosine.norm(dim=0))


def cayley(stream: Tensor, size: int) -> Tensor:
    """The rotation of a stored triangle, from the definition (I − A)(I + A)⁻¹."""
    a, place = torch.zeros(size, size, dtype=torch.float64), iter(stream.double().tolist())
    for i in range(size):
        for j in range(i + 1, size):
            a[i, j] = next(place)
            a[j, i] = -a[i, j]
    eye = torch.eye(size, dtype=torch.float64)
    return (eye - a) @ torch.linalg.inv(eye + a)


def unlearn(w: Tensor, node: Packed) -> Tensor:
    """W' Hᵀ Rᵀ D Λ with R written out as a Kronecker product."""
    w = w @ hadamard_matrix(node.cols).T if node.facts.get("hadamard") else w
    a, b = node.facts["factors"]
    left = cayley(node.tensors["left"], a) if a > 1 else torch.ones(1, 1, dtype=torch.float64)
    w = w @ torch.kron(left, cayley(node.tensors["right"], b)).T
    if "signs" in node.tensors:
        w = w * torch.tensor([2.0 * number(node.tensors["signs"], 1, i) - 1 for i in range(node.cols)], dtype=torch.float64)
    return w * node.tensors["gain"].double() if "gain" in node.tensors else w


WEIGHTS = {
    "dense": dense,
    "uniform": uniform,
    "planes": planes,
    "ternary": ternary,
    "binary-codebook": codebook,
    "vector-codebook": vectors,
    "trellis": trellis,
    "parity-signs": parity,
    "low-rank": low_rank,
    "binary-factors": factors,
    "sum": total,
    "zero": lambda *_: 0.0,
}
APART = {"rounded-input", "transposed", "rows", "offset", "fourier"}  # tested in test_rounding and test_arranged
TRANSFORMS = {"permuted": unpermute, "scaled": unscale, "hadamard": unrotate, "rotated": unlearn}


def test_decode_is_what_the_description_says(example: Packed) -> None:
    torch.testing.assert_close(formats.decode(example).double(), slow(example), rtol=1e-5, atol=1e-5)


def test_linear_is_the_product_with_the_decoded_matrix(example: Packed) -> None:
    x = torch.randn(2, 3, example.cols, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(formats.linear(x, example).double(), x.double() @ slow(example).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["fp64", "bf16"])
def test_linear_keeps_the_type_of_its_input(example: Packed, dtype: torch.dtype) -> None:
    assert formats.linear(torch.ones(1, example.cols, dtype=dtype), example).dtype == dtype


def test_every_format_is_covered_here(example: Packed) -> None:
    assert set(registry.list_names("format")) == {*WEIGHTS, *TRANSFORMS, "masked", *APART}, "these have tests of their own"
    for _, node in example.walk():
        assert set(node.tensors) <= set(registry.find("format", node.format).items)


@pytest.mark.parametrize("cols", [1, 2, 3, 8, 12, 96, 100, 255, 256, 344])
def test_hadamard_is_orthonormal_at_any_width(cols: int) -> None:
    signs = torch.randint(0, 2, (cols,), generator=torch.Generator().manual_seed(cols)) * 2.0 - 1
    unit = torch.eye(cols, dtype=torch.float64)
    h = hadamard(unit, signs)
    torch.testing.assert_close(h @ h.T, unit)
    torch.testing.assert_close(invert_hadamard(h, signs), unit)


def test_hadamard_spreads_one_outlier_evenly() -> None:
    unit = torch.eye(256)
    h = hadamard(unit, torch.ones(256))
    torch.testing.assert_close(h.abs(), torch.full((256, 256), 1 / 16))


def test_a_mask_inside_a_mask_owns_the_common_weights(draw) -> None:
    outer = draw.codes(1, draw.rows, draw.cols)
    inner = draw.codes(1, draw.rows, draw.cols)
    leaves = [draw.uniform(4, 4, zero=True, mask=(outer == 1) & (inner == i)) for i in (0, 1)]
    nested = Packed("masked", draw.rows, draw.cols, {"map": bitpack.pack(inner[outer == 1], 1)}, {"map": "bitmap"}, tuple(leaves))
    first = draw.planes(1, 13, extras=False, mask=outer == 0)
    tree = Packed("masked", draw.rows, draw.cols, {"map": bitpack.pack(outer, 1)}, {"map": "bitmap"}, (first, nested))
    decoded = formats.decode(tree)
    for i, leaf in enumerate(leaves):
        own = (outer == 1) & (inner == i)
        torch.testing.assert_close(decoded[own], formats.decode(leaf, own)[own])
    torch.testing.assert_close(decoded[outer == 0], formats.decode(first, outer == 0)[outer == 0])


def test_three_children_take_two_bits_of_map(draw) -> None:
    owner = torch.arange(draw.rows * draw.cols).view(draw.rows, draw.cols) % 3
    children = tuple(draw.uniform(2 + i, 4, zero=True, mask=owner == i) for i in range(3))
    tree = Packed("masked", draw.rows, draw.cols, {"map": bitpack.pack(owner, 2)}, {"map": "bitmap"}, children)
    torch.testing.assert_close(formats.decode(tree).double(), slow(tree), rtol=1e-5, atol=1e-5)


WHOLE = {
    "binary-codebook": lambda draw: draw.codebook(4, 4, 13, extras=False),
    "vector-codebook": lambda draw: draw.vectors(4, 4, 13),
    "trellis": lambda draw: draw.trellis(4, 5, 12, 13),
    "parity-signs": lambda draw: draw.parity(5, 2, 13, extras=False),
    "hadamard": lambda draw: draw.hadamard(draw.dense()),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_formats_of_whole_rows_refuse_a_mask(draw, kind: str) -> None:
    node = WHOLE[kind](draw)
    with pytest.raises(ShapeError, match="cannot be masked"):
        formats.decode(node, torch.ones(draw.rows, draw.cols, dtype=torch.bool))


def test_factors_have_a_gradient_in_every_magnitude(draw) -> None:
    node = draw.factors(middle=True)
    names = ("row", "column", "middle")
    tensors = {name: tensor.float().requires_grad_() if name in names else tensor for name, tensor in node.tensors.items()}
    tree = Packed(node.format, node.rows, node.cols, tensors, node.facts)
    x = torch.randn(4, node.cols, generator=torch.Generator().manual_seed(2))
    by_decode = torch.autograd.grad((x @ formats.decode(tree).T).square().sum(), [tensors[name] for name in names])
    by_linear = torch.autograd.grad(formats.linear(x, tree).square().sum(), [tensors[name] for name in names])
    for one, other in zip(by_decode, by_linear, strict=True):
        assert one.abs().min() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
