"""Recipes of other tools: what they ask for, and what is left out, by layer."""

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from workbench.errors import ArtifactError, OutputError
from workbench.exchange.writing import write_recipe
from workbench.exchange.writing.tool_recipes import read_grid_request
from workbench.models.handle import ModelHandle
from workbench.presets import parse

MLP = "model.layers.0.mlp"
PLAN = wb.LayerPlan(
    (
        (f"{MLP}.up_proj", parse("gptq:bits=4,act_order=yes,static_groups=yes")),
        (f"{MLP}.down_proj", parse("rtn:bits=4,group=32,symmetric=yes")),
        (f"{MLP}.gate_proj", parse("ternary:group=256")),
        ("model.layers.1.mlp.up_proj", parse("gptq:bits=3,group=64,damping=0.1")),
    )
)


@pytest.fixture(scope="module")
def saved(builtin: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose layers have four recipes."""
    small = wb.quantize_model(builtin, wb.LayerPlan(tuple((pattern, parse("rtn")) for pattern, _ in PLAN.rules)))
    layers = {name: replace(layer, recipe=PLAN.recipe_for(name)) for name, layer in small.layers.items()}  # all that is read
    return wb.save(replace(small, layers=layers), tmp_path_factory.mktemp("recipes") / "small", builtin)


def test_llm_compressor(saved: Path, tmp_path: Path) -> None:
    written = write_recipe(saved, tmp_path / "recipe.yaml", tool="llm-compressor")
    assert (written.layers, written.missing) == (3, {f"{MLP}.gate_proj": "its coder 'ternary' has no equivalent"})
    document = json.loads((tmp_path / "recipe.yaml").read_text())
    assert all(name.endswith("_stage") for name in document)  # what has another name is not read, without a word
    stages = [stage["quantization_modifiers"] for stage in document.values()]
    assert [list(stage) for stage in stages] == [["GPTQModifier"], ["QuantizationModifier"], ["GPTQModifier"]]
    first, second, third = (next(iter(stage.values())) for stage in stages)
    assert (first["dampening_frac"], first["actorder"]) == (0.01, "static")
    assert (third["dampening_frac"], third["actorder"]) == (0.1, None)
    assert second["config_groups"]["group_0"]["targets"] == [f"{MLP}.down_proj"]
    weights = second["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (4, 32, True)
    if find_spec("compressed_tensors") is not None:
        from compressed_tensors.quantization import QuantizationScheme

        for modifier in (first, second, third):
            QuantizationScheme.model_validate(modifier["config_groups"]["group_0"])


def test_gptqmodel(saved: Path, tmp_path: Path) -> None:
    written = write_recipe(saved, tmp_path / "recipe.json", tool="gptqmodel")
    assert written.layers == 2
    assert written.missing[f"{MLP}.down_proj"] == "it rounds to nearest, and GPTQModel feeds errors back"
    config = json.loads((tmp_path / "recipe.json").read_text())
    assert (config["bits"], config["desc_act"], config["static_groups"]) == (4, True, True)
    other = config["dynamic"][r"+:^model\.layers\.1\.mlp\.up_proj$"]
    assert (other["bits"], other["group_size"], other["damp_percent"], other["desc_act"]) == (3, 64, 0.1, False)
    left = [key for key in config["dynamic"] if key.startswith("-:")]
    assert len(left) == 40
    assert not any(re.match(key[2:], f"{MLP}.up_proj") for key in left)


def test_llama_quantize(saved: Path, tmp_path: Path) -> None:
    written = write_recipe(saved, tmp_path / "recipe.sh", tool="llama-quantize")
    text = (tmp_path / "recipe.sh").read_text()
    assert re.findall("'(.*)'", text) == [r"blk\.0\.ffn_gate=tq1_0", r"blk\.0\.ffn_down=q4_0", "weight=f16"]
    assert text.endswith("  model-f16.gguf model.gguf TQ1_0\n")  # of a plain type it would leave out all patterns
    assert written.missing[f"{MLP}.up_proj"] == "it feeds errors back, and llama-quantize rounds to nearest"
    assert "not in it: model.layers.1.mlp.up_proj, because it feeds" in str(written)


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (parse("rtn:bits=4,zero=real"), "its coder 'uniform' with real zeros has no equivalent"),
        (parse("binary"), "its coder 'sign' has no equivalent"),
        (parse("rtn").replace(transform=wb.part("transform", "hadamard")), "its transform 'hadamard' has no equivalent"),
        (parse("rtn").replace(activations=wb.part("activations", "per-token")), "its activations 'per-token' has no equivalent"),
    ],
)
def test_why_there_is_no_equivalent(recipe: wb.Recipe, why: str) -> None:
    assert read_grid_request(recipe) == why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tool": "onnx"}, "unknown tool 'onnx' to write a recipe for; use llm-compressor, gptqmodel, llama-quantize"),
        ({"source": "builtin"}, "'builtin' has no quantized layers; give a folder that wb.save wrote"),
        ({"strict": True}, rf"1 of 4 layers have no equivalent in llm-compressor: {MLP}.gate_proj, because its coder 'ternary'"),
    ],
)
def test_mistakes_are_one_sentence(saved: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    settings = {"source": saved, "tool": "llm-compressor", "strict": False, **change}
    with pytest.raises(ArtifactError, match=message):
        write_recipe(settings.pop("source"), tmp_path / "recipe", **settings)
    assert not (tmp_path / "recipe").exists()


def test_a_folder_is_no_file(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; give the name of a file"):
        write_recipe(saved, tmp_path, tool="llm-compressor")
