"""A packed embedding: the rows that are looked up, decoded from the stored form of these rows alone."""

import pytest
import torch
from torch import nn

import workbench as wb
from workbench.jobs import run_steps
from workbench.kernels.formats import decode
from workbench.kernels.matmul.decoded_rows import take_rows
from workbench.kernels.matmul.packed_matrix import count_resident_bytes
from workbench.kernels.matmul.packed_module import PackedEmbedding
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.pipeline import quantize_layer
from workbench.recipe import Recipe

ROWS, COLS = 53, 28  # rows of codes neither begin nor end on a byte
IDS = torch.tensor([[52, 0, 7], [7, 31, 1]])
BY_ROW = {
    "uniform": wb.recipe("rtn", bits=3, group=8),
    "uniform symmetric": wb.recipe("rtn", bits=5, group=0),
    "dense": wb.recipe("none"),
    "planes": wb.recipe("binary", group=16),
    "sum of planes": wb.recipe("btc-planes"),
    "signs from a codebook": wb.recipe("btc"),
    "vectors from a codebook": wb.recipe("gptvq"),
    "trits": wb.recipe("ternary"),
    "factors": wb.recipe("littlebit"),
    "rotated": wb.recipe("rtn", bits=4).replace(transform=wb.part("transform", "hadamard")),
    "corrected": wb.recipe("rtn", bits=2).replace(correction=wb.part("correction", "low-rank", rank=2)),
}
WHOLE = {"trellis": wb.recipe("qtip"), "parity": wb.recipe("parity"), "masked": wb.recipe("pb-llm")}


def packed(recipe: Recipe) -> Packed:
    weight = torch.randn(ROWS, COLS, generator=torch.Generator().manual_seed(0))
    return run_steps(quantize_layer(weight, torch.eye(COLS), recipe)).packed


def embedding(tree: Packed, cache: str = "decoded") -> PackedEmbedding:
    return PackedEmbedding.instead_of(nn.Embedding(ROWS, COLS, padding_idx=1), tree, cache=cache)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", BY_ROW)
def test_rows_are_taken_without_the_others(form: str) -> None:
    tree = packed(BY_ROW[form])
    rows = torch.tensor([52, 0, 7, 8])
    some = take_rows(tree, rows)
    assert some is not None
    assert some.rows == len(rows)
    torch.testing.assert_close(decode(some), decode(tree)[rows], atol=1e-6, rtol=1e-6)
    stored = sum(tensor.nbytes for _, node in some.walk() for tensor in node.tensors.values())
    assert stored < sum(tensor.nbytes for _, node in tree.walk() for tensor in node.tensors.values())
    torch.testing.assert_close(embedding(tree)(IDS), decode(tree)[IDS], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("form", WHOLE)
def test_a_form_whose_rows_hang_together_is_decoded_whole_and_kept_where_asked(form: str) -> None:
    tree = packed(WHOLE[form])
    assert take_rows(tree, IDS.unique()) is None
    for cache, kept in (("decoded", 4 * ROWS * COLS), ("none", 0)):
        module = embedding(tree, cache)
        before = count_resident_bytes([module])
        assert torch.equal(module(IDS), decode(tree)[IDS])
        assert count_resident_bytes([module]) == before + kept


def test_codes_are_taken_across_bytes() -> None:
    for width in (1, 3, 5, 11, 24):
        codes = torch.randint(1 << width, (61,), generator=torch.Generator().manual_seed(width)).to(torch.int32)
        places = torch.tensor([0, 60, 7, 7, 31])
        assert torch.equal(bitpack.take(bitpack.pack(codes, width), width, places), codes[places])


class Doubled(nn.Embedding):
    """An embedding that does more than look up, with a buffer for it."""

    def __init__(self) -> None:
        super().__init__(ROWS, COLS)
        self.register_buffer("factor", torch.tensor(2.0), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * self.get_buffer("factor")


def test_the_class_of_the_embedding_stays_with_what_it_does() -> None:
    tree, original = packed(BY_ROW["uniform"]), Doubled()
    module = PackedEmbedding.instead_of(original, tree)
    assert isinstance(module, Doubled)
    torch.testing.assert_close(module(IDS), 2 * decode(tree)[IDS])
    assert not list(module.parameters())
    assert torch.equal(module.weight, decode(tree))
    assert isinstance(original.weight, nn.Parameter)
    moved = module.to(torch.float64)
    assert moved.get_buffer("factor").dtype == torch.float64
    assert moved.packed.tensors["scale"].dtype == torch.float16
