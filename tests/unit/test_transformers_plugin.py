"""Saved folders in transformers: refused without this package, and the same model with it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, pipeline

import workbench as wb
from workbench.artifact import digest
from workbench.errors import ArtifactError, ModelError
from workbench.kernels.formats import decode
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.models import ModelHandle, open_model

PROMPT = "Once upon a time there was a little dog."
RECIPE = wb.recipe("rtn", bits=3, group=32)


@pytest.fixture(scope="module")
def saved(builtin: ModelHandle, tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models, read only: tied and untied, with biases and transposed weights, and with a head untied by fusing."""
    root = tmp_path_factory.mktemp("saved")
    models = {name: open_model(tiny_models[name]) for name in ("llama", "gpt2", "opt", "gemma3", "bert")}
    models |= {"builtin": builtin, "fused": wb.fuse(builtin)}
    return {name: wb.save(wb.quantize_model(model, RECIPE), root / name, model) for name, model in models.items()}


@pytest.fixture
def copy(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A saved model that a test may change."""
    return Path(shutil.copytree(saved["llama"], tmp_path / "copy"))


def edit_config(folder: Path, *removed: str) -> dict:
    """Remove entries from config.json, and return what it was."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in removed}))
    return config


def run(code: str, *arguments: object) -> list[str]:
    """Lines that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


WITHOUT = """
import sys
from transformers import AutoModelForCausalLM
for folder in sys.argv[1:]:
    try:
        AutoModelForCausalLM.from_pretrained(folder)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
    else:
        print("loaded")
assert "workbench" not in sys.modules
"""


def test_transformers_alone_refuses(saved: dict[str, Path], tmp_path: Path) -> None:
    marks = ("quantization_config", "transformers_weights")
    folders = [Path(shutil.copytree(saved["llama"], tmp_path / name)) for name in ("as-saved", "file-name-only", "no-mark")]
    for folder in folders[1:]:
        edit_config(folder, *marks)
    (folders[2] / "packed.safetensors").rename(folders[2] / "model.safetensors")
    as_saved, file_name_only, no_mark = run(WITHOUT, *folders)
    assert as_saved.startswith("ValueError The transformers file in the config seems to be incorrect")
    assert as_saved.endswith("by the Python package quantization-workbench, which has to be imported first: `import workbench`")
    assert file_name_only.startswith("OSError Error no file named model.safetensors")
    assert no_mark == "loaded", "what the marks are there for"


WITH = """
import sys, torch
{imports}
ids = torch.arange(3, 40)[None]
module = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(torch.equal(module(ids).logits, wb.load(sys.argv[1]).logits(ids)))
"""
ORDERS = {
    "before": "import workbench as wb\nfrom transformers import AutoModelForCausalLM",
    "after": "from transformers import AutoModelForCausalLM\nimport transformers.modeling_utils\nimport workbench as wb",
}


@pytest.mark.parametrize("order", ORDERS)
def test_it_loads_where_workbench_is_imported_before_or_after(saved: dict[str, Path], order: str) -> None:
    assert run(WITH.format(imports=ORDERS[order]), saved["llama"]) == ["True"]


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma3", "builtin", "fused"])
def test_logits_equal_those_of_load(saved: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture) -> None:
    again = wb.load(saved[name])
    module, found = AutoModelForCausalLM.from_pretrained(saved[name], output_loading_info=True)
    assert caplog.text == "", "no report of missing or unexpected tensors, no advice about tied ones"
    assert not any(found.values())
    packed = [part for part in module.modules() if isinstance(part, PackedLinear)]
    assert len(packed) == len(again.layer_names)
    ids = again.encode(PROMPT)
    logits = module(ids).logits
    assert torch.equal(logits, again.logits(ids))
    assert not logits.requires_grad


def test_what_is_tied_stays_tied_and_what_is_not_does_not(saved: dict[str, Path]) -> None:
    tied, fused = (AutoModelForCausalLM.from_pretrained(saved[name]) for name in ("builtin", "fused"))
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert tied.config.tie_word_embeddings
    assert not torch.equal(fused.lm_head.weight, fused.model.embed_tokens.weight)
    assert not fused.config.tie_word_embeddings


def test_a_pipeline_writes_what_load_writes(saved: dict[str, Path]) -> None:
    writer = pipeline("text-generation", model=str(saved["builtin"]))
    written = writer("Once upon a time", max_new_tokens=8, do_sample=False)[0]["generated_text"]
    assert written == wb.load(saved["builtin"]).generate("Once upon a time", 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_dtype_is_that_of_all_but_the_packed_tensors(saved: dict[str, Path], dtype: torch.dtype) -> None:
    again, module = wb.load(saved["builtin"]), AutoModelForCausalLM.from_pretrained(saved["builtin"], dtype=dtype)
    ids = again.encode(PROMPT)
    expected, logits = again.logits(ids), module(ids).logits
    assert logits.dtype == dtype
    assert (logits.float() - expected).norm() < 0.02 * expected.norm()
    name = again.layer_names[0]
    assert torch.equal(decode(module.get_submodule(name).packed), again.weight(name))


def test_without_a_head_and_with_another(saved: dict[str, Path]) -> None:
    again = wb.load(saved["llama"])
    ids = again.encode(PROMPT)
    base = AutoModel.from_pretrained(saved["llama"])
    assert torch.equal(base(ids).last_hidden_state, again.module.model(ids).last_hidden_state)
    other, found = AutoModelForSequenceClassification.from_pretrained(saved["llama"], output_loading_info=True)
    assert found["missing_keys"] == {"score.weight"}
    assert torch.equal(other.model(ids).last_hidden_state, base(ids).last_hidden_state)


def test_an_encoder_with_and_without_a_head(saved: dict[str, Path]) -> None:
    ids = torch.arange(3, 20)[None]
    expected = wb.load(saved["bert"]).module(ids).last_hidden_state
    assert torch.equal(AutoModel.from_pretrained(saved["bert"])(ids).last_hidden_state, expected)
    assert torch.equal(AutoModelForSequenceClassification.from_pretrained(saved["bert"]).bert(ids).last_hidden_state, expected)


def test_the_configuration_says_what_it_is(saved: dict[str, Path]) -> None:
    again = wb.load(saved["fused"])
    module = AutoModelForCausalLM.from_pretrained(saved["fused"])
    facts = json.loads((saved["fused"] / "config.json").read_text())["quantization_config"]
    assert facts == {
        "quant_method": "quantization-workbench",
        "version": 2,
        "bits_per_weight": again.bits_per_weight,
        "nominal_bits": 3.0,
        "coverage": again.coverage,
        "layers": 42,
    }
    assert module.config.quantization_config.to_dict() == facts
    assert "import workbench" in module.config.transformers_weights, "a copy of the configuration is refused too"
    assert not hasattr(again.module.config, "quantization_config")


def test_saving_again_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(saved["llama"])
    with pytest.raises(ModelError, match="cannot be saved by save_pretrained; copy its folder .*llama instead"):
        module.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_opening_it_as_a_plain_model_names_load(saved: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"is a quantized model that this workbench saved; load it with wb\.load\('.*llama'\)"):
        open_model(saved["llama"])


def test_damage_is_noticed(copy: Path) -> None:
    path = copy / "packed.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="is damaged in tensor"):
        AutoModelForCausalLM.from_pretrained(copy)


def test_a_folder_with_some_of_the_files_is_refused(copy: Path) -> None:
    (copy / "recipe.json").unlink()
    with pytest.raises(ArtifactError, match="holds only some files of a saved model; download all of them"):
        AutoModelForCausalLM.from_pretrained(copy)


def test_a_folder_of_version_1_still_loads(saved: dict[str, Path], tiny_models: dict[str, Path], copy: Path) -> None:
    (copy / "packed.safetensors").rename(copy / "model.safetensors")
    shutil.copy(tiny_models["llama"] / "config.json", copy / "config.json")
    recipe, ledger = (json.loads((copy / name).read_text()) | {"version": 1} for name in ("recipe.json", "ledger.json"))
    (copy / "recipe.json").write_text(json.dumps(recipe))
    ledger["files"] |= {name: digest.hash_file(copy / name) for name in ("config.json", "recipe.json")}
    (copy / "ledger.json").write_text(json.dumps({**ledger, "sha256": digest.hash_json(ledger)}))
    older, again = wb.load(copy), wb.load(saved["llama"])
    ids = again.encode(PROMPT)
    assert torch.equal(older.logits(ids), again.logits(ids))
    assert older.bytes == again.bytes
