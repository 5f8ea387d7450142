"""Codewords one by one, and edits of them: counted and measured against what the stored layer really holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.analysis.method import codeword_edits, codewords
from workbench.errors import WorkbenchError
from workbench.jobs import run_steps
from workbench.kernels import formats
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.presets import recipe
from workbench.quantized import QuantizedLayer
from workbench.quantizers.distance import compute_relative_error
from workbench.quantizers.pipeline import quantize_layer

ROWS, COLS, LENGTH, ENTRIES = 12, 18, 4, 8  # the last vector of a row is two columns short
DRAW = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(ROWS, COLS, generator=DRAW)
MOMENT = torch.eye(COLS)
SEGMENTS = -(-COLS // LENGTH)
INDEX = torch.randint(0, ENTRIES - 2, (ROWS, SEGMENTS), generator=DRAW)  # codes 6 and 7 are dead
SCALE = (0.5 + torch.rand(ROWS, 1, generator=DRAW)).half()


def layer(kind: str) -> QuantizedLayer:
    """A layer with a codebook of signs or of values whose two last codewords are dead."""
    facts = {"length": LENGTH, "entries": ENTRIES, "span": COLS}
    if kind == "signs":
        words = torch.tensor([[n >> j & 1 for j in range(LENGTH)] for n in range(ENTRIES)])
        stored = bitpack.pack(words, 1)
    else:
        stored = torch.randn(ENTRIES, LENGTH, generator=torch.Generator().manual_seed(1)).half()
    tensors = {"index": bitpack.pack(INDEX, 3), "codebook": stored, "scale": SCALE}
    node = Packed(
        "binary-codebook" if kind == "signs" else "vector-codebook", ROWS, COLS, tensors, facts, (), {"codebook": ("all", 5)}
    )
    return whole(Packed("sum", ROWS, COLS, children=(node,)))


def whole(packed: Packed) -> QuantizedLayer:
    error = compute_relative_error(WEIGHT, formats.decode(packed))
    return QuantizedLayer("layer", packed, recipe("rtn"), build_ledger(packed, 0.75), error, error)


@pytest.fixture(params=["signs", "values"])
def made(request: pytest.FixtureRequest) -> QuantizedLayer:
    return layer(request.param)


def only_book(made: QuantizedLayer) -> codewords.Book:
    (book,) = codewords.list_codebooks(made.packed)
    return book


def test_a_book_is_read_as_it_was_stored(made: QuantizedLayer) -> None:
    book = only_book(made)
    assert (book.path, book.entries, book.length, book.width) == ("0.", ENTRIES, LENGTH, 3)
    torch.testing.assert_close(book.index, INDEX)
    value = book.words[book.index].reshape(ROWS, -1)[:, :COLS] * SCALE.float()
    torch.testing.assert_close(value, formats.decode(made.packed))


def test_errors_of_vectors_add_up_to_the_error_of_the_layer(made: QuantizedLayer) -> None:
    errors, energy = codewords.compute_vector_errors(made.packed, WEIGHT, only_book(made))
    assert errors.shape == (ROWS, SEGMENTS)
    assert float(errors.sum() / energy.sum()) == pytest.approx(made.relative_error, rel=1e-5)
    last = (formats.decode(made.packed) - WEIGHT)[:, -2:].square().sum(1)
    torch.testing.assert_close(errors[:, -1], last)


def test_every_code_is_counted_and_measured(made: QuantizedLayer) -> None:
    book = only_book(made)
    errors, energy = codewords.compute_vector_errors(made.packed, WEIGHT, book)
    table = codewords.tabulate_codewords(book, errors, energy)
    assert table["count"].tolist() == torch.bincount(INDEX.reshape(-1), minlength=ENTRIES).tolist()
    assert table["count"].tail(2).tolist() == [0, 0]
    assert table["served"].tail(2).isna().all()
    own = INDEX == 3
    assert table["served"][3] == pytest.approx(float(errors[own].sum() / energy[own].sum()), rel=1e-5)
    assert table["error_share"].sum() == pytest.approx(1.0)


def test_the_nearest_codeword_of_signs_is_one_sign_away() -> None:
    made = layer("signs")
    book = only_book(made)
    table = codewords.tabulate_codewords(book, *codewords.compute_vector_errors(made.packed, WEIGHT, book))
    assert table["gap"].tolist() == [1.0] * ENTRIES
    differing = [bin(int(near) ^ code).count("1") for code, near in enumerate(table["nearest"])]
    assert differing == [1] * ENTRIES


def test_positions_are_shares_of_the_vectors_there(made: QuantizedLayer) -> None:
    book = only_book(made)
    found = codewords.locate_codewords(book, [1, 3])
    assert (found.row_step, found.step) == (1, 1)
    assert found.values.tolist() == torch.isin(INDEX, torch.tensor([1, 3])).float().tolist()


def test_a_large_matrix_of_codes_is_seen_from_afar() -> None:
    index = torch.zeros(130, 300, dtype=torch.long)
    index[0, :3] = 1
    book = replace(only_book(layer("signs")), index=index)
    found = codewords.locate_codewords(book, [1])
    assert found.values.shape == (44, 100)
    assert found.values[0, 0] == pytest.approx(1 / 3)


def test_chosen_codes_stand_beside_all_others(made: QuantizedLayer) -> None:
    book = only_book(made)
    errors, energy = codewords.compute_vector_errors(made.packed, WEIGHT, book)
    table, bins = codewords.tabulate_error_profile(book, [2], errors, energy)
    assert table["which"].tolist() == ["chosen", "others"]
    assert table["count"].tolist() == [int((INDEX == 2).sum()), int((INDEX != 2).sum())]
    assert table["error_share"].sum() == pytest.approx(1.0, rel=1e-5)
    assert bins[["chosen", "others"]].sum().tolist() == pytest.approx([1.0, 1.0])
    dead, _ = codewords.tabulate_error_profile(book, [7], errors, energy)
    assert dead["count"].iloc[0] == 0


def test_merging_moves_all_vectors_of_a_code(made: QuantizedLayer) -> None:
    edit = codeword_edits.merge(made, WEIGHT, MOMENT, "0.", 4, 2)
    after = only_book(edit.layer)
    torch.testing.assert_close(after.index, torch.where(INDEX == 4, 2, INDEX))
    assert edit.moved == int((INDEX == 4).sum())
    assert edit.layer.relative_error == pytest.approx(compute_relative_error(WEIGHT, formats.decode(edit.layer.packed)))
    assert edit.layer.output_error == pytest.approx(edit.layer.relative_error, rel=1e-5), "under the identity both are one"
    assert edit.layer.edits == ("code 4 merged into 2",)
    assert edit.layer.bits_per_weight == made.bits_per_weight, "the codebook is shared and keeps its words"
    torch.testing.assert_close(only_book(made).index, INDEX)


def test_a_revived_code_takes_error_away_and_is_paid_for_by_its_layer(made: QuantizedLayer) -> None:
    edit = codeword_edits.revive(made, WEIGHT, MOMENT, "0.", 7)
    before, after = only_book(made), only_book(edit.layer)
    assert edit.layer.relative_error < made.relative_error
    assert int(after.counts[7]) == edit.moved > 0
    torch.testing.assert_close(after.words[:7], before.words[:7])
    moved = after.index != before.index
    errors = [codewords.compute_vector_errors(x.packed, WEIGHT, book)[0] for x, book in ((made, before), (edit.layer, after))]
    assert (errors[1][moved] < errors[0][moved]).all(), "a vector moves only where it gains"
    torch.testing.assert_close(errors[1][~moved], errors[0][~moved])
    assert "codebook" not in dict(edit.layer.packed.walk())["0."].shared
    assert edit.layer.bits_per_weight > made.bits_per_weight


def test_no_sign_pattern_would_have_taken_more_away() -> None:
    """All sixteen patterns, tried one by one."""
    made = layer("signs")
    edit = codeword_edits.revive(made, WEIGHT, MOMENT, "0.", 6)
    book = only_book(made)
    least = []
    for number in range(1 << LENGTH):
        words = book.words.clone()
        words[6] = torch.tensor([float(number >> j & 1) * 2 - 1 for j in range(LENGTH)])
        target = torch.nn.functional.pad(WEIGHT, (0, -COLS % LENGTH)).view(ROWS, SEGMENTS, LENGTH)
        real = torch.nn.functional.pad(torch.ones(ROWS, COLS), (0, -COLS % LENGTH)).view(ROWS, SEGMENTS, LENGTH)
        now, new = (((SCALE.float()[:, :, None] * w - target) * real).square().sum(-1) for w in (words[INDEX], words[6]))
        least.append(float(torch.minimum(now, new).sum() / WEIGHT.square().sum()))
    assert edit.layer.relative_error == pytest.approx(min(least), rel=1e-5)


def test_taking_dead_codes_out_changes_bits_and_nothing_else(made: QuantizedLayer) -> None:
    edit = codeword_edits.remove_dead(made, WEIGHT, MOMENT, "0.")
    torch.testing.assert_close(formats.decode(edit.layer.packed), formats.decode(made.packed))
    assert only_book(edit.layer).entries == ENTRIES - 2
    assert codeword_edits.count_index_bits(edit, "0.") == (3, 3)
    fewer = edit.layer
    for code in (5, 4):
        fewer = codeword_edits.merge(fewer, WEIGHT, MOMENT, "0.", code, 0).layer
    last = codeword_edits.remove_dead(fewer, WEIGHT, MOMENT, "0.")
    assert codeword_edits.count_index_bits(last, "0.") == (3, 2), "four codewords take two bits"
    assert last.layer.edits[-1] == "2 dead codes removed"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        pytest.param(lambda x: codeword_edits.merge(x, WEIGHT, None, "0.", 3, 3), "cannot be merged into itself", id="itself"),
        pytest.param(lambda x: codeword_edits.merge(x, WEIGHT, None, "0.", 7, 3), "code 7 is dead", id="dead"),
        pytest.param(lambda x: codeword_edits.merge(x, WEIGHT, None, "0.", 8, 3), "no code 8; use 0 to 7", id="outside"),
        pytest.param(
            lambda x: codeword_edits.revive(x, WEIGHT, None, "0.", 1), "code 1 is used by .* choose a dead code", id="used"
        ),
        pytest.param(lambda x: codeword_edits.merge(x, WEIGHT, None, "1.", 1, 2), "has no codebook at '1.'", id="path"),
    ],
)
def test_mistakes_are_explained(call: object, said: str) -> None:
    with pytest.raises(WorkbenchError, match=said):
        call(layer("signs"))  # type: ignore[operator]


def test_all_codes_in_use_leave_nothing_to_take_out() -> None:
    made = codeword_edits.remove_dead(layer("values"), WEIGHT, None, "0.").layer
    with pytest.raises(WorkbenchError, match="all 6 codewords are used"):
        codeword_edits.remove_dead(made, WEIGHT, None, "0.")


@pytest.mark.parametrize("preset", ["btc", "btc-planes", "btc-paper", "gptvq"])
def test_codebooks_of_every_preset_can_be_edited(preset: str) -> None:
    """Transforms, sums of planes and stored means are in the way; errors are measured on what comes out."""
    weight = torch.randn(96, 160, generator=DRAW)
    x = torch.randn(200, 160, generator=DRAW)
    moment = x.T @ x / 200
    made = run_steps(quantize_layer(weight, moment, recipe(preset), name="layer"))
    for book in codewords.list_codebooks(made.packed):
        errors, energy = codewords.compute_vector_errors(made.packed, weight, book)
        used = book.counts.argsort(descending=True)[:2].tolist()
        merged = codeword_edits.merge(made, weight, moment, book.path, *used)
        assert merged.layer.relative_error >= made.relative_error or made.recipe.assignment.name != "nearest"
        dead = int(book.counts.argmin())
        if int(book.counts[dead]) == 0:
            revived = codeword_edits.revive(made, weight, moment, book.path, dead)
            assert revived.layer.relative_error < made.relative_error
        assert torch.isfinite(errors).all()
        assert torch.isfinite(energy).all()


@st.composite
def index_windows(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], list[int], int, int]:
    """Any window of the index, some codes, and the most cells of a picture."""
    top, left = draw(st.integers(0, ROWS - 1)), draw(st.integers(0, SEGMENTS - 1))
    window = top, draw(st.integers(top, ROWS - 1)), left, draw(st.integers(left, SEGMENTS - 1))
    return window, draw(st.lists(st.integers(0, ENTRIES - 1), max_size=3)), draw(st.integers(1, 14)), draw(st.integers(1, 6))


@settings(deadline=None, max_examples=100)
@given(index_windows())
def test_a_cell_shows_its_first_vector_or_the_first_chosen_one(
    case: tuple[tuple[int, int, int, int], list[int], int, int],
) -> None:
    (top, bottom, left, right), chosen, height, width = case
    book = codewords.list_codebooks(layer("signs").packed)[0]
    seen = codewords.rasterize_index(book, (top, bottom, left, right), chosen, height=height, width=width)
    assert seen.codes.shape[0] <= height
    assert seen.codes.shape[1] <= width
    for down, across in np.ndindex(seen.codes.shape):
        row, col = top + down * seen.row_step, left + across * seen.col_step
        rows, cols = range(row, min(row + seen.row_step, bottom + 1)), range(col, min(col + seen.col_step, right + 1))
        vectors = [(r, c) for r in rows for c in cols]
        hits = [place for place in vectors if int(INDEX[place]) in chosen]
        place = (hits or vectors)[0]
        assert (int(seen.rows[down, across]), int(seen.cols[down, across])) == place
        assert seen.codes[down, across] == INDEX[place]
        assert seen.chosen[down, across] == bool(hits)


def test_the_codes_of_a_window_are_counted() -> None:
    book = codewords.list_codebooks(layer("signs").packed)[0]
    table = codewords.tabulate_codes_in_window(book, (2, 9, 1, 3))
    part = INDEX[2:10, 1:4]
    assert dict(zip(table["codeword"], table["count"], strict=True)) == {
        code: int((part == code).sum()) for code in part.unique().tolist()
    }
    assert table["count"].is_monotonic_decreasing
    assert table["share"].sum() == pytest.approx(1)
