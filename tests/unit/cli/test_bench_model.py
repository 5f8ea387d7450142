"""`workbench bench --model`: a table of models beside each other, and what it cannot measure."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench as wb
from tests.unit.cli.conftest import Said


@pytest.fixture(scope="module")
def folder(builtin: wb.models.ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quantized = wb.quantize_model(builtin, wb.recipe("binary"))
    return Path(wb.save(quantized, tmp_path_factory.mktemp("bench") / "binary", builtin))


def test_a_packed_model_is_measured_beside_transformers(command: Callable[..., Said], folder: Path) -> None:
    said = command("bench", "--model", folder, "--threads", 1)
    assert said.status == 0, said.err
    names = [line.split("  ")[0] for line in said.out.splitlines() if " 1 " in line]
    assert names[:3] == ["packed", "transformers bf16", "transformers fp32"]
    assert "a new token of the first model, one thread:" in said.out


def test_json_has_every_row_and_the_parts_of_a_token(command: Callable[..., Said]) -> None:
    facts = json.loads(command("bench", "--model", "builtin", "--threads", 1, "--json").out)
    assert [row["name"] for row in facts["rows"]] == ["this workbench", "transformers bf16", "transformers fp32"]
    assert set(facts["parts"]) == {"token", "matrices", "head", "remainder"}
    assert facts["refusal"] is None


def test_what_cannot_be_measured_is_one_sentence(command: Callable[..., Said], tmp_path: Path) -> None:
    said = command("bench", "--gguf", "some.gguf")
    assert said.err == "error: --gguf 'some.gguf' is measured beside a model; give one with --model.\n"
    said = command("bench", "--model", tmp_path / "nothing")
    assert said.status == 1
    assert said.err.startswith("error: ")
