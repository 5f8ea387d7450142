"""Real-valued codebooks: k-means, vectors that end a row, rows of other sizes, and gradients of what is stored."""

import itertools

import pytest
import torch

from tests.battery.cases import correlated, gaussian, quantize
from workbench import presets, registry
from workbench.errors import ShapeError
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.kernels.search import vector_search
from workbench.presets.preset import compose
from workbench.quantizers.coders.binary_codebook import CodebookScales
from workbench.quantizers.coders.fitting import vector_kmeans
from workbench.quantizers.contract import Coder


def test_nearest_is_the_least_squared_error_under_its_scale() -> None:
    w, scale, words = gaussian(200, 5), gaussian(200, 1, 1), gaussian(12, 5, 2)
    error = ((w[:, None] - scale[:, None] * words) ** 2).sum(-1)
    assert torch.equal(vector_search.find_nearest_vectors(w, scale, words), error.argmin(1))


def test_searching_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    w, scale, words = gaussian(500, 5), gaussian(500, 1, 1), gaussian(64, 5, 2)
    whole = vector_search.find_nearest_vectors(w, scale, words)
    monkeypatch.setattr(vector_search, "VECTOR_PRODUCTS_AT_ONCE", 1000)
    assert torch.equal(vector_search.find_nearest_vectors(w, scale, words), whole)


@pytest.mark.parametrize("seed", range(4))
def test_training_never_gets_worse(seed: int) -> None:
    _, losses = vector_kmeans.train(gaussian(3000, 6, seed), 40)
    assert losses[-1] < 0.9 * losses[0]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(losses))


def test_planted_codewords_are_found() -> None:
    """Few well separated vectors, in rows of different sizes."""
    words = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)))
    index = torch.randint(16, (64, 30), generator=torch.Generator().manual_seed(1))
    w = torch.logspace(-2, 2, 64)[:, None].half().float() * words[index].reshape(64, -1)
    result = quantize(compose(registry.make("coder", "vector-codebook", length=4, entries=16)), w)
    assert result.relative_error < 1e-5


def test_a_vector_past_the_last_column_is_judged_by_its_real_columns() -> None:
    coder = registry.make("coder", "vector-codebook", length=3, entries=2)
    params = CodebookScales(torch.ones(1, 1), codebook=torch.tensor([[1.0, 1.0, 9.0], [-1.0, -1.0, 0.0]]))
    assert coder.encode(torch.tensor([[-1.0, -1.0, 0.0, 1.0, 0.5]]), params, slice(0, 5)).tolist() == [[1, 0]]


def test_index_and_codebook_take_the_bits_they_should() -> None:
    result = quantize(compose(registry.make("coder", "vector-codebook")), gaussian(64, 256))
    bits = {entry.item: entry.bits for entry in result.ledger.entries}
    assert bits["vector-codebook index"] == 64 * 26 * 8  # 256 columns are 25.6 vectors of 10
    assert bits["vector-codebook codebook"] == 256 * 10 * 16
    assert bits["vector-codebook scale"] == 64 * 16
    assert list(result.packed.shared) == ["codebook"]
    assert result.nominal_bits == pytest.approx(0.8)


def test_feedback_lowers_the_output_error() -> None:
    w, h = gaussian(64, 240), correlated(240)
    fed, plain = (quantize(presets.recipe("gptvq", compensation=flag), w, h) for flag in (True, False))
    assert fed.output_error < 0.9 * plain.output_error
    assert fed.bits_per_weight == plain.bits_per_weight


def test_gradients_reach_codewords_and_scales() -> None:
    packed = quantize(compose(registry.make("coder", "vector-codebook", length=4, entries=8)), gaussian(16, 40)).packed
    floats = {name: packed.tensors[name].float().requires_grad_() for name in ("codebook", "scale")}
    trained = Packed(packed.format, 16, 40, {**packed.tensors, **floats}, packed.facts)
    formats.decode(trained).square().sum().backward()
    assert all((tensor.grad != 0).any() for tensor in floats.values())


def test_groups_hold_whole_codewords() -> None:
    with pytest.raises(ShapeError, match="group size 128 does not hold whole vectors of 10 columns; use 10, 20, 40, 80, 160"):
        quantize(compose(registry.make("coder", "vector-codebook", group=128)), gaussian(8, 256))


def test_nearest_under_a_metric_costs_least() -> None:
    """Two vectors and a shorter one a row, against every codeword."""
    w, scale, words, column = gaussian(40, 10), gaussian(40, 1, 1), gaussian(12, 4, 2), gaussian(1, 10, 3)[0]
    column[5] = 0
    metric = correlated(10).double()
    found = vector_kmeans.find_nearest_under_metric(metric, w, scale, words, column)
    for vector, start in enumerate((0, 4, 8)):
        own = slice(start, min(start + 4, 10))
        error = w[:, None, own] - scale[:, None] * words[:, : own.stop - start] * column[own]
        cost = torch.einsum("rci,ij,rcj->rc", error.double(), metric[own, own], error.double())
        assert torch.equal(found[:, vector], cost.argmin(1))


CODERS = {
    "binary-codebook": {"entries": 32},
    "vector-codebook": {"entries": 32},
    "codebook-planes": {"entries": 32},
    "trellis": {"bits": 6, "length": 10},
}


@pytest.mark.parametrize("coder", CODERS)
def test_codes_are_chosen_for_the_output(coder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric that feedback gives beats the nearest code in the weights."""
    w, h = gaussian(64, 240), correlated(240)
    recipe = compose(registry.make("coder", coder, **CODERS[coder]), assignment=registry.make("assignment", "column-feedback"))
    under = quantize(recipe, w, h)
    monkeypatch.setattr(type(recipe.coders[0]), "encode_under", Coder.encode_under)
    plain = quantize(recipe, w, h)
    assert under.output_error < 0.99 * plain.output_error
    assert under.bits_per_weight == plain.bits_per_weight


def test_among_words_that_are_equal_where_it_counts_the_first_is_chosen() -> None:
    words, metric = gaussian(256, 10).sign(), correlated(2).double()
    w = gaussian(300, 2)
    found = vector_kmeans.find_nearest_under_metric(metric, w, torch.ones(300, 1), words)[:, 0]
    same = (words[:, None, :2] == words[None, :, :2]).all(-1)
    assert torch.equal(found, same.float().argmax(1)[found])
