"""workbench export: a table that fits 80 columns, one JSON document, and mistakes in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench as wb
from tests.unit.cli.conftest import Said
from workbench.cli.export import format_export
from workbench.exchange.writing import Export, Outcome
from workbench.models.handle import ModelHandle


@pytest.fixture(scope="module")
def saved(builtin: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two quantized layers, one of which no other format holds."""
    rules = (("*.0.mlp.up_proj", wb.recipe("rtn", bits=4)), ("*.0.mlp.down_proj", wb.recipe("binary")))
    small = wb.quantize_model(builtin, wb.LayerPlan(rules))
    return wb.save(small, tmp_path_factory.mktemp("export") / "small", builtin)


def test_a_folder_is_written_and_told(command: Callable[..., Said], saved: Path, tmp_path: Path) -> None:
    said = command("export", saved, "--to", "gptq", "--out", tmp_path / "packed")
    assert said.status == 0, said.err
    size = (tmp_path / "packed/model.safetensors").stat().st_size
    assert "1 tensor dequantized to F16, because it stores a mean for each group; first model.layers.0.mlp.down" in said.out
    assert f"{size:,} bytes in {tmp_path / 'packed'}" in said.out
    facts = json.loads(command("export", saved, "--to", "gptq", "--out", tmp_path / "packed", "--json").out)
    assert facts["bytes"] == size
    assert facts["bits_per_weight"] == pytest.approx(8 * size / sum(tensor["weights"] for tensor in facts["tensors"]))
    assert [tensor["name"] for tensor in facts["tensors"] if tensor["stored_as"] == "W4A16"] == [
        "model.layers.0.mlp.up_proj.weight"
    ]


def test_a_layer_that_grows_says_why(command: Callable[..., Said], saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the library gguf is not installed; it comes with the extra 'exchange'")
    said = command("export", saved, "--to", "gguf", "--out", tmp_path / "small.gguf")
    assert said.status == 0, said.err
    assert "1 layer as Q5_0: levels beyond -8 to 7, which Q4_0 holds; each scale of 128 columns is repeated for" in said.out
    assert "40 layers as F16: not quantized in the source" in said.out


def test_a_recipe_is_written_and_told(command: Callable[..., Said], saved: Path, tmp_path: Path) -> None:
    said = command("export", saved, "--recipe-for", "llm-compressor", "--out", tmp_path / "recipe.yaml")
    assert said.out.splitlines()[1] == "not in it: model.layers.0.mlp.down_proj, because its coder 'sign' has no equivalent"


def test_the_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    many = [Outcome("model.embed_tokens.weight", "embedding", 10**9, "BF16", 16e9, 16 * 10**9)]
    loss = "dequantized to BF16, because it stores a mean for each group"
    many += [Outcome(f"layers.{n}", "layers", 10**8, "Q4_0", 4e8, 45 * 10**7, loss if n % 2 else "") for n in range(99)]
    text = format_export(Export(Path("model.gguf"), "gguf", tuple(many), ("A note.",), 7 * 10**9, 3.0))
    table = text.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "50 of 99" in table
    assert "A note." in text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        pytest.param(["builtin"], 2, "neither --to nor --recipe-for is given", id="neither"),
        pytest.param(
            ["builtin", "--to", "hf", "--recipe-for", "gptqmodel"], 2, "both --to and --recipe-for are given", id="both"
        ),
        pytest.param(["builtin", "--to", "onnx"], 1, "unknown format 'onnx' to export to; use hf, gguf", id="unknown-format"),
        pytest.param(["nowhere", "--to", "hf"], 1, "there is no folder 'nowhere'", id="no-source"),
        pytest.param(["builtin", "--recipe-for", "gptqmodel"], 1, "'builtin' has no quantized layers", id="no-recipe"),
    ],
)
def test_mistakes(command: Callable[..., Said], tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    said = command("export", *arguments, "--out", tmp_path / "out")
    assert said.status == status
    assert message in " ".join(said.err.split())
    assert not (tmp_path / "out").exists()
