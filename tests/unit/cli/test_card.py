"""`card` writes one file, `diff` ends with 1 exactly where something is above its tolerance."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench as wb
from tests.unit.cli.conftest import Said


@pytest.fixture(scope="module")
def folders(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two results of one model: 4 and 3 bits."""
    root, model = tmp_path_factory.mktemp("folders"), wb.open_model(tiny_models["llama"])
    made = [wb.quantize_model(model, wb.recipe("rtn", bits=bits, group=64), layers="*.0.mlp.*") for bits in (4, 3)]
    return wb.save(made[0], root / "four", model), wb.save(made[1], root / "three", model)


def test_card_and_diff(command: Callable[..., Said], folders: tuple[Path, Path], tmp_path: Path) -> None:
    four, three = folders
    page = tmp_path / "card.html"
    said = command("card", four, "--tokens", 64, "--out", page)
    assert (said.status, said.err) == (0, "")
    assert f"{page.stat().st_size:,} bytes" in said.out
    assert "The card was not saved; use --out card.html" in command("card", four, "--tokens", 64).out
    facts = json.loads(command("card", four, "--tokens", 64, "--json").out)
    assert facts["figures"]["tokens"] == 64

    same = command("diff", page, four)  # measured on as many tokens as the card
    assert (same.status, same.out) == (0, "The two cards agree in everything except times.\n")
    other = command("diff", page, three, "--json")
    found = json.loads(other.out)
    assert other.status == 1
    assert not found["same"]
    assert {"recipe", "ledger", "errors", "figures", "hashes"} == {row["section"] for row in found["differences"]}
    rules = [word for section in ("recipe", "hashes") for word in ("--allow", section)]
    loose = ["--bits", 2, "--error", 100, "--perplexity", 10, "--kl", 10, "--top1", 1]
    assert command("diff", page, three, *rules, *loose).status == 0
    assert command("diff", page, three, *rules, *loose[2:]).status == 1


def test_only_what_is_stored(command: Callable[..., Said], folders: tuple[Path, Path]) -> None:
    four, three = folders
    assert command("diff", four, four, "--stored-only").status == 0
    said = command("diff", four, three, "--stored-only")
    assert said.status == 1
    answer, *table = said.out.splitlines()
    assert answer.startswith("The two cards differ beyond the tolerances in ")
    bits = ["bits_per_weight", *(f"{wb.load(folder).bits_per_weight:.6g}" for folder in folders)]
    assert table[table.index("✗ ledger") + 1].split()[:3] == bits
    allowed = [number for number, line in enumerate(table) if line.endswith(", allowed")]
    assert all(number > table.index("✗ hashes") for number in allowed)


def test_what_is_no_card_is_one_line(command: Callable[..., Said], tmp_path: Path) -> None:
    said = command("diff", tmp_path / "a.json", tmp_path / "b.json")
    assert said.status == 1
    assert said.err.startswith("error: there is no card")
    assert said.err.count("\n") == 1
