"""Binary codebooks: k-means in {±1} against brute force, its rules for ties and empty clusters, and the coder around it."""

import itertools

import pytest
import torch

from tests.battery.cases import gaussian, quantize
from workbench import registry
from workbench.errors import RecipeError, ShapeError
from workbench.kernels.search import codeword_search
from workbench.presets.preset import compose
from workbench.quantizers.coders.binary_codebook import CodebookScales
from workbench.quantizers.coders.fitting import binary_kmeans


def test_nearest_is_the_smallest_hamming_distance() -> None:
    points, words = gaussian(200, 9).sign(), gaussian(12, 9, 1).sign()
    distance = (points[:, None] != words[None]).sum(-1)
    chosen = binary_kmeans.find_nearest_codewords(points, words)
    assert torch.equal(distance[torch.arange(200), chosen], distance.amin(1))
    assert torch.equal(chosen, distance.argmin(1))


def test_nearest_by_magnitude_is_the_least_squared_error() -> None:
    y, words = gaussian(200, 9), gaussian(12, 9, 1).sign()
    error = ((y[:, None] - words[None]) ** 2).sum(-1)
    assert torch.equal(binary_kmeans.find_nearest_codewords(y, words), error.argmin(1))


def test_counting_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    y, words = gaussian(500, 10), gaussian(64, 10, 1).sign()
    whole = binary_kmeans.find_nearest_codewords(y, words)
    monkeypatch.setattr(codeword_search, "PRODUCTS_AT_ONCE", 1000)
    assert torch.equal(binary_kmeans.find_nearest_codewords(y, words), whole)


def test_patterns_count_and_return() -> None:
    y = torch.tensor([[1.0, -1.0, 0.5], [2.0, -0.1, 0.0], [-1.0, -1.0, -1.0]])
    counts = binary_kmeans.count_patterns(y)
    assert counts.nonzero()[:, 0].tolist() == [0, 0b101]
    assert counts[0b101] == 2
    assert codeword_search.decode_signs(torch.tensor([0b101]), 3).tolist() == [[1, -1, 1]]


@pytest.mark.parametrize(("length", "bits"), [(10, 8), (10, 7), (9, 5), (4, 3)], ids=str)
def test_even_words_lie_evenly(length: int, bits: int) -> None:
    """The sum of two words is a word again (so every word has the same neighbours), and none is there twice."""
    (words,) = binary_kmeans.build_even_words(length, 1 << bits)
    known = set(words.tolist())
    assert len(known) == 1 << bits
    assert max(known) < 1 << length
    assert all(a ^ b in known for a in words[:9].tolist() for b in words.tolist())


@pytest.mark.parametrize(("length", "entries"), [(10, 100), (3, 8)], ids=str)
def test_other_sizes_have_no_even_words(length: int, entries: int) -> None:
    assert binary_kmeans.build_even_words(length, entries) == []


def test_training_begins_where_less_is_lost() -> None:
    """Normal weights have no frequent patterns; planted ones do, and are found again."""
    y, planted = gaussian(5000, 10), gaussian(64, 10, 5).sign()
    even, frequent = (
        binary_kmeans.build_even_words(10, 256)[0],
        binary_kmeans.select_most_frequent(binary_kmeans.count_patterns(y), 256),
    )
    losses = [binary_kmeans.train_magnitude(y, 256, codeword_search.decode_signs(start, 10))[1][-1] for start in (even, frequent)]
    assert binary_kmeans.train_magnitude(y, 256)[1][-1] == losses[0] < 0.95 * losses[1]
    seen = planted[torch.randint(64, (3000,), generator=torch.Generator().manual_seed(0))]
    assert binary_kmeans.train_magnitude(seen, 64)[1][-1] == 0


def test_few_patterns_are_stored_without_loss() -> None:
    seen = gaussian(6, 8).sign()
    y = seen[torch.randint(6, (300,), generator=torch.Generator().manual_seed(0))]
    words, losses = binary_kmeans.train_hamming(binary_kmeans.count_patterns(y), 8, 8)
    assert losses[-1] == 0
    assert torch.equal(words[binary_kmeans.find_nearest_codewords(y, words)], y)


@pytest.mark.parametrize("assignment", ["hamming", "magnitude"])
@pytest.mark.parametrize("seed", range(4))
def test_training_never_gets_worse(assignment: str, seed: int) -> None:
    """Noisy copies of 40 patterns, from a start that knows none of them."""
    planted = gaussian(40, 12, seed)[torch.randint(40, (3000,), generator=torch.Generator().manual_seed(seed))].sign()
    y = planted + 0.8 * gaussian(3000, 12, seed + 10)
    if assignment == "hamming":
        y = torch.where(y >= 0, 1.0, -1.0)
    _, losses = binary_kmeans.train_magnitude(y, 40, gaussian(40, 12, seed + 20).sign())
    assert len(losses) > 3
    assert losses[-1] < 0.9 * losses[0]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(losses))


def test_hamming_training_on_counts_is_training_on_vectors() -> None:
    y = torch.where(gaussian(2000, 6) + gaussian(1, 6) >= 0, 1.0, -1.0)
    counts = binary_kmeans.count_patterns(y)
    words, losses = binary_kmeans.train_hamming(counts, 10, 6)
    plain, plain_losses = binary_kmeans.train_magnitude(y, 10)
    assert torch.equal(words, plain)
    assert losses == plain_losses


def test_no_codeword_stays_unused_while_signs_are_flipped() -> None:
    y = gaussian(4000, 8)
    start = torch.ones(32, 8)  # every point goes to the first
    words, losses = binary_kmeans.train_magnitude(y, 32, start)
    used = torch.bincount(binary_kmeans.find_nearest_codewords(y, words), minlength=32)
    assert (used > 0).sum() >= 31
    assert losses[-1] < 0.5 * losses[0]


def test_ties_keep_the_old_bit() -> None:
    points = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    words, losses = binary_kmeans.train_magnitude(points, 1, torch.tensor([[1.0, -1.0]]))
    assert words.tolist() == [[1.0, -1.0]]
    assert len(losses) == 1  # a bit that flips at a tie would go on flipping


def test_padding_of_the_last_vector_counts_for_nothing() -> None:
    y = torch.tensor([[1.0, -1.0, 2.0, -2.0, 3.0]])
    assert binary_kmeans.split_vectors(y, 3).tolist() == [[1.0, -1.0, 2.0], [-2.0, 3.0, 0.0]]
    words = torch.tensor([[-1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
    assert binary_kmeans.find_nearest_codewords(binary_kmeans.split_vectors(y, 3), words)[1] == 0


@pytest.mark.parametrize("assignment", ["hamming", "magnitude"])
def test_a_coder_looks_at_the_real_columns_only(assignment: str) -> None:
    coder = registry.make("coder", "binary-codebook", length=4, entries=2, assignment=assignment)
    params = CodebookScales(torch.ones(1, 1), codebook=torch.tensor([[1.0] * 4, [-1.0] * 4]))
    assert coder.encode(torch.tensor([[1.0, 1.0, 1.0, 1.0, -1.0]]), params, slice(0, 5)).tolist() == [[0, 1]]


@pytest.mark.parametrize("length", [4, 7, 16])
def test_magnitude_beats_hamming_at_the_same_bits(length: int) -> None:
    w = gaussian(128, 480)
    hamming, magnitude = (
        quantize(compose(registry.make("coder", "binary-codebook", length=length, entries=12, assignment=how)), w)
        for how in ("hamming", "magnitude")
    )
    assert magnitude.bits_per_weight == hamming.bits_per_weight
    assert magnitude.relative_error < 0.97 * hamming.relative_error


def test_planted_codewords_are_found() -> None:
    words = gaussian(16, 10).sign()
    index = torch.randint(16, (64, 30), generator=torch.Generator().manual_seed(1))
    w = (gaussian(64, 1).abs() + 0.5).half().float() * words[index].reshape(64, -1)
    result = quantize(compose(registry.make("coder", "binary-codebook", length=10, entries=16)), w)
    assert result.relative_error < 1e-6


def test_index_and_codebook_take_the_bits_they_should() -> None:
    result = quantize(compose(registry.make("coder", "binary-codebook", scope="matrix")), gaussian(64, 256))
    bits = {entry.item: entry.bits for entry in result.ledger.entries}
    assert bits["binary-codebook index"] == 64 * 26 * 8  # 256 columns are 25.6 vectors of 10
    assert bits["binary-codebook codebook"] == 256 * 10
    assert bits["binary-codebook scale"] == 64 * 16
    assert result.nominal_bits == pytest.approx(0.8)


def test_only_a_codebook_for_one_matrix_is_not_shared() -> None:
    for scope, shared in (("matrix", []), ("projection", ["codebook"]), ("model", ["codebook"])):
        packed = quantize(compose(registry.make("coder", "binary-codebook", scope=scope)), gaussian(16, 60)).packed
        assert list(packed.shared) == shared


def test_more_codewords_than_patterns_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match="'binary-codebook': 256 codewords of 4 signs; only 16 different codewords exist"):
        registry.make("coder", "binary-codebook", length=4, entries=256)


def test_a_codebook_has_a_word_and_a_word_has_a_sign() -> None:
    with pytest.raises(ShapeError, match="a codebook of 0 words; use 1 or more"):
        binary_kmeans.train_magnitude(torch.ones(4, 2), 0)
    with pytest.raises(ShapeError, match="vectors of 0 columns; use 1 or more"):
        binary_kmeans.split_vectors(torch.ones(4, 2), 0)


def test_groups_hold_whole_codewords() -> None:
    coder = registry.make("coder", "binary-codebook", scales="group", group=128)
    with pytest.raises(
        ShapeError, match="group size 128 does not hold whole vectors of 10 columns; use 10, 20, 40, 80, 160 or 0 for"
    ):
        quantize(compose(coder), gaussian(8, 256))
