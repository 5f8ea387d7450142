"""Trees of stored matrices: their paths, their sharing, and a ledger that counts every byte once."""

import pytest
import torch

from workbench.kernels.packing.packed import Packed, build_ledger, count_stored_bits


def test_ledger_equals_the_bytes_of_the_tensors(example: Packed) -> None:
    size = sum(tensor.numel() * tensor.element_size() for _, node in example.walk() for tensor in node.tensors.values())
    book = build_ledger(example, 1.5)
    assert book.total_bits == 8 * size
    assert book.weights == example.rows * example.cols
    assert book.nominal_bits == 1.5
    assert all(entry.why for entry in book.entries)


def test_walk_names_every_node(draw) -> None:
    paths = [(path, node.format) for path, node in draw.hadamard(draw.sum()).walk()]
    assert paths == [
        ("", "hadamard"),
        ("0.", "sum"),
        ("0.0.", "masked"),
        ("0.0.0.", "planes"),
        ("0.0.1.", "uniform"),
        ("0.1.", "low-rank"),
    ]


def test_a_shared_tensor_is_paid_in_parts(draw) -> None:
    node = draw.codebook(4, 6, 13, extras=False)
    shared = Packed(node.format, node.rows, node.cols, node.tensors, node.facts, shared={"codebook": ("", 1)})
    tree = draw.permuted(shared).share("block 0", 3)
    assert tree.children[0].shared == {"codebook": ("block 0/0.codebook", 3)}
    entry = next(entry for entry in build_ledger(tree, 1).entries if entry.item.endswith("codebook"))
    assert entry.shared_by == 3
    assert entry.bits * 3 == count_stored_bits(node.tensors["codebook"]) == 24


@pytest.mark.parametrize(("dtype", "bits"), [(torch.uint8, 8), (torch.float16, 16), (torch.float32, 32)], ids=str)
def test_stored_bits_follow_the_type(dtype: torch.dtype, bits: int) -> None:
    assert count_stored_bits(torch.zeros(3, 2, dtype=dtype)) == 6 * bits
