"""What notes say of released methods is what the recorded table has."""

import pytest

from tests.released.reference import METHODS
from tests.released.table import COLUMNS, PAGE, Row, line
from workbench import presets


def recorded() -> dict[str, dict[str, str]]:
    """The cells of the recorded table by recipe and number of the column."""
    lines = [row.strip("| ").split(" | ") for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    return {cells[0].strip("`"): dict(zip(COLUMNS, cells, strict=True)) for cells in lines}


def number(cell: str) -> str:
    """The mean of a cell, two digits after the point."""
    return f"{float(cell.split(maxsplit=1)[0]):.2f}"


def test_every_method_has_a_line() -> None:
    assert list(recorded()) == list(METHODS)


@pytest.mark.parametrize("spelled", METHODS)
def test_the_presets_equal_the_reference_but_for_fp16(spelled: str) -> None:
    assert float(number(recorded()[spelled]["as released: over the reference"])) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "spelled",
    [
        "billm:released=yes",
        "arb-llm:released=yes",
        "stbllm:released=yes",
        "gptq:bits=2,group=64,clip=none",
        "gptq:bits=3,group=64,clip=none",
    ],
)
def test_notes_say_what_the_table_has(spelled: str) -> None:
    name, cells = spelled.partition(":")[0], recorded()[spelled]
    note = presets.find(name).note
    assert number(cells["default: over as released"]) in note
    if name != "gptq":
        assert number(cells["stored bits"]) in note
        assert number(cells["stored bits (the most over as released)"]) in note


def test_a_line_has_means_and_extremes() -> None:
    rows = [Row(0.1, 0.1, 2.0, 0.05, 2.0, 0.05, 1.1), Row(0.4, 0.4, 2.0, 0.4, 2.2, 0.2, 1.1)]
    cells = [
        "`x`",
        "1.10",
        "0.2000",
        "1.000 (1.000–1.000)",
        "2.00",
        "0.707 (0.500–1.000)",
        "2.10 (+10.0%)",
        "0.500 (0.500–0.500)",
    ]
    assert line("x", rows) == f"| {' | '.join(cells)} |"
