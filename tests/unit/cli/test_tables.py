"""Tables are as wide as the terminal: nothing is cut, names of layers are below their blocks, and a row is one line in a pipe."""

import pandas as pd
import pytest

from workbench.cli.tables import Column, format_groups, format_layer_table, format_rows, format_table

NAME = "model.layers.{}.block_sparse_moe.experts.{}.w1"
SENTENCE = "which says at length what this row is about, and then a little more of it"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 characters."""
    monkeypatch.setenv("COLUMNS", "40")


def test_a_table_has_short_numbers_and_headers_over_several_lines() -> None:
    table = pd.DataFrame({"name": ["a.b", "c"], "bits_per_weight": [2.140625, 16.0], "output_error": [0.123456, float("nan")]})
    assert format_table(table).split("\n") == [
        "        bits",
        "         per  output",
        "name  weight   error",
        "a.b     2.14   0.123",
        "c      16.00       –",
    ]


def test_a_header_is_stacked_only_where_it_is_wider_than_its_column() -> None:
    columns = [Column("95 %", right=True), Column("bits per byte", right=True)]
    assert format_rows(columns, [["0.979 to 42.940", "1.406"]]).split("\n") == [
        "                  bits",
        "                   per",
        "           95 %   byte",
        "0.979 to 42.940  1.406",
    ]


def test_layers_are_below_their_blocks() -> None:
    names = [NAME.format(block, expert) for block in (0, 1) for expert in (0, 7)]
    table = pd.DataFrame({"name": [*names, "lm_head"], "bits": [2.0, 3.0, 4.0, 5.0, 6.0]})
    assert format_layer_table(table).split("\n") == [
        "  matrix                         bits",
        "model.layers.0",
        "  block_sparse_moe.experts.0.w1     2",
        "  block_sparse_moe.experts.7.w1     3",
        "model.layers.1",
        "  block_sparse_moe.experts.0.w1     4",
        "  block_sparse_moe.experts.7.w1     5",
        "outside the blocks",
        "  lm_head                           6",
    ]


def test_cells_that_fold_share_the_room_and_lose_nothing() -> None:
    columns = [Column("name"), Column("size", right=True), Column("what it is", folds=True), Column("kind", folds=True)]
    groups = {"first": [["a", "12", SENTENCE, "short"]], "second": [["b", "3", "none", "x" * 30]]}
    assert format_groups(columns, groups).split("\n") == [
        "  name  size  what it is    kind",
        "first",
        "  a       12  which says    short",
        "              at length",
        "              what this",
        "              row is",
        "              about, and",
        "              then a",
        "              little more",
        "              of it",
        "second",
        "  b        3  none          xxxxxxxxxxxx",
        "                            xxxxxxxxxxxx",
        "                            xxxxxx",
    ]


def test_a_row_is_one_line_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    assert format_rows([Column("name"), Column("what", folds=True)], [["a", SENTENCE]]).split("\n") == [
        "name  what",
        f"a     {SENTENCE}",
    ]
