"""The notebooks teach: each says how long it takes, asks before it shows, and has an exercise with a folded solution."""

import re
from pathlib import Path

import pytest

from tests.lessons import NOTEBOOKS, code, prose, read, solutions

TIMES = re.compile(r"\*Reading time: about \d+ minutes\. Run time: about \d+ seconds on two cores, without a GPU[.;].*\*")
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
TERMS = ("quantize", "group", "scale", "codebook", "second moment", "KL divergence", "perplexity", "output error", "hidden state")


@EACH
def test_it_says_how_long_it_takes_and_what_it_teaches(path: Path) -> None:
    title = read(path).cells[0].source
    assert title.startswith(f"# {path.stem[0]} · ")
    assert TIMES.search(" ".join(title.split()))
    assert "At the end you will know" in title


@EACH
def test_a_figure_follows_a_question_and_an_answer_follows_it(path: Path) -> None:
    text = prose(read(path))
    questions, answers = text.count("**Predict"), text.count("**Answer.**")
    assert answers >= 3
    assert questions >= answers, "each answer has its question"


@EACH
def test_it_has_an_exercise_with_a_folded_solution(path: Path) -> None:
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    exercises = [text for text in cells if "### Exercise: " in text]
    assert exercises
    for text in exercises:
        assert text.count("### Exercise: ") == len(solutions(text)) == text.count("<details>") == 1


@EACH
def test_code_compiles_and_cells_are_short(path: Path) -> None:
    for piece in code(read(path)):
        compile(piece, path.name, "exec")
        assert len(piece.splitlines()) <= 24


def test_the_tour_explains_the_terms() -> None:
    tour = prose(read(NOTEBOOKS[0])).lower()
    assert [term for term in TERMS if f"**{term.lower()}**" not in tour] == []


def test_the_tour_begins_with_the_way_to_its_answer() -> None:
    tour = read(NOTEBOOKS[0])
    walk = tour.cells[1].source
    steps = re.findall(r"^\| (\d)\. .*\| ([^|]+) \|$", walk, re.M)
    assert [int(number) for number, _ in steps] == list(range(1, 8))
    assert all(re.search(r"\d+ s$|network", time) for _, time in steps)
    assert "is the most sensitive layer, because**" in prose(tour)


def test_a_solution_is_read_from_its_fold() -> None:
    text = "Text\n\n<details><summary>Solution</summary>\n\n```python\nx = 1\n```\n\nOne.\n\n</details>\n\n```python\ny = 2\n```"
    assert solutions(text) == ["x = 1\n"]
