"""A transformers model in memory opens as a folder would; and every model here becomes a transformers model again."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

import workbench as wb
from tests.tiny_models import CAUSAL
from tests.zoo.checkpoints import write_checkpoint
from workbench.errors import ArtifactError, ModelError
from workbench.kernels.forced_backend import VARIABLE
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.models import ModelHandle
from workbench.models.in_memory import ModelInMemory

IDS = torch.arange(3, 43)[None]
PROMPT = "Once upon a time there was a little dog."
RECIPE = wb.recipe("rtn", bits=3, group=32)
MIXTURES = ["mixtral", "gpt_oss", "dbrx"]


SMALL = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)


def add_adapter(module: nn.Module) -> nn.Module:
    module.get_submodule("model.layers.0.mlp.down_proj").register_parameter("lora", nn.Parameter(torch.zeros(2)))
    return module


@pytest.fixture(autouse=True)
def compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are those of the reference: nothing here is about kernels."""
    monkeypatch.setenv(VARIABLE, "reference")


@pytest.fixture(scope="module")
def folders(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mixtures")
    return tiny_models | {family: write_checkpoint(family, root / family) for family in MIXTURES}


def plain(folder: Path, kind: Any = AutoModelForCausalLM, dtype: torch.dtype = torch.float32) -> Any:
    """The model as plain transformers loads it."""
    return kind.from_pretrained(folder, dtype=dtype).eval()


def logits_of(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(IDS, use_cache=False).logits


@pytest.fixture
def module(folders: dict[str, Path]) -> Any:
    return plain(folders["llama"])


@pytest.fixture
def tokenizer(folders: dict[str, Path]) -> Any:
    return AutoTokenizer.from_pretrained(folders["llama"])


@pytest.mark.parametrize("family", [*CAUSAL, *MIXTURES])
def test_it_computes_what_the_module_and_its_folder_compute(family: str, folders: dict[str, Path]) -> None:
    module = plain(folders[family])
    model, stored = (
        wb.open_model(module, tokenizer=AutoTokenizer.from_pretrained(folders["llama"])),
        wb.open_model(folders[family]),
    )
    torch.testing.assert_close(model.language_model().logits(IDS), logits_of(module), rtol=1e-5, atol=1e-5)
    assert model.layer_names == stored.layer_names
    assert model.optional_names == stored.optional_names
    for name in model.layer_names:
        torch.testing.assert_close(model.weight(name), stored.weight(name).float(), rtol=0, atol=0)


def test_it_keeps_the_types_of_the_module(folders: dict[str, Path]) -> None:
    model = wb.open_model(plain(folders["llama"], dtype=torch.bfloat16))
    assert set(model.layers()["dtype"]) == {"bfloat16"}
    assert model.stored_bytes == sum(t.nbytes for t in plain(folders["llama"], dtype=torch.bfloat16).state_dict().values())


def test_everything_works_on_it(module: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = wb.open_model(module, tokenizer=tokenizer)
    text, layer = wb.text("calibration"), model.layer_names[0]
    stats = wb.calibrate(model, text, tokens=512)
    assert wb.quantize(model, layer, wb.recipe("gptq", bits=3, group=32), stats=stats).error > 0
    assert wb.what_if(model, layer, RECIPE, wb.text("evaluation"), tokens=60).kl > 0
    assert model.generate(PROMPT, tokens=5)
    small = wb.quantize_model(wb.fuse(model), wb.recipe("gptq", bits=4, group=32), text=text, tokens=512)
    loaded = wb.load(wb.save(small, tmp_path / "out"))
    assert loaded.fingerprint == model.fingerprint
    torch.testing.assert_close(wb.to_transformers(small)(IDS).logits, loaded.logits(IDS), rtol=1e-4, atol=1e-4)


def test_it_streams_from_memory(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_STREAM", "always")
    module = plain(folders["mixtral"])
    model = wb.open_model(module)
    assert model.streams
    torch.testing.assert_close(model.run(IDS).logits, logits_of(module), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["no_grad", "data", "new parameter"])
def test_a_later_change_of_the_module_is_another_model(way: str, module: Any, tokenizer: Any) -> None:
    model = wb.open_model(module, tokenizer=tokenizer)
    name = model.layer_names[0]
    before, logits, fingerprint = model.weight(name), model.language_model().logits(IDS), model.fingerprint
    kept = wb.what_if(model, name, RECIPE, wb.text("evaluation"), tokens=60)
    layer = module.get_submodule(name)
    if way == "no_grad":
        with torch.no_grad():
            layer.weight.mul_(2)
    elif way == "data":
        layer.weight.data *= 2
    else:
        layer.weight = nn.Parameter(2 * layer.weight.detach())

    assert torch.equal(model.weight(name), before)  # the handle has a copy
    assert torch.equal(wb.open_model(model.source).language_model().logits(IDS), logits)
    changed = wb.open_model(module, tokenizer=tokenizer)
    assert torch.equal(changed.weight(name), 2 * before)
    assert changed.fingerprint != fingerprint == model.fingerprint
    torch.testing.assert_close(changed.language_model().logits(IDS), logits_of(module), rtol=1e-5, atol=1e-5)
    assert wb.what_if(changed, name, RECIPE, wb.text("evaluation"), tokens=60).kl != kept.kl


def test_what_is_read_from_it_can_be_changed(module: Any) -> None:
    model = wb.open_model(module)
    name = model.layer_names[0]
    before = model.weight(name).clone()
    model.weight(name).zero_()
    model.to_transformers().get_submodule(name).weight.data.zero_()
    assert torch.equal(model.weight(name), before)
    assert torch.equal(model.module.get_submodule(name).weight, before)


def test_the_fingerprint_is_of_weights_and_tokenizer(module: Any, tokenizer: Any, folders: dict[str, Path]) -> None:
    first = wb.open_model(module, tokenizer=tokenizer)
    assert wb.open_model(plain(folders["llama"]), tokenizer=tokenizer).fingerprint == first.fingerprint
    assert wb.open_model(module).fingerprint != first.fingerprint
    tokenizer.add_tokens(["<new>"])
    assert wb.open_model(module, tokenizer=tokenizer).fingerprint != first.fingerprint


def test_it_leaves_nothing_behind(module: Any, tokenizer: Any) -> None:
    model = wb.open_model(module, tokenizer=tokenizer)
    folder, source = model.folder, model.source
    assert not list(folder.glob("*.safetensors"))
    del model
    gc.collect()
    assert not folder.exists()
    with pytest.raises(ModelError, match="was opened from a module in memory that no longer exists"):
        wb.open_model(source)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda _: nn.Linear(2, 2), "must be a transformers model, not a Linear; give a transformers model"),
        (nn.DataParallel, "not a DataParallel; give its .module"),
        (lambda module: module.to("meta"), "tensors of the LlamaForCausalLM in memory have no values"),
        (add_adapter, "differs from what its configuration describes in 1 tensors, first"),
        (lambda _: LlamaForSequenceClassification(SMALL), "builds a LlamaModel; give a causal language model"),
        (lambda _: 3, "open_model takes 'builtin', a folder, a hub id or a transformers model in memory, not a int"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(spoil: Any, sentence: str, module: Any) -> None:
    with pytest.raises(ModelError, match=sentence) as failure:
        wb.open_model(spoil(module))
    assert "\n" not in str(failure.value)


def test_text_needs_a_tokenizer_and_a_folder_has_its_own(module: Any, tokenizer: Any, folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer; give one: wb.open_model\(module, tokenizer=tokenizer\)"):
        wb.open_model(module).generate(PROMPT)
    with pytest.raises(ModelError, match="tokenizer must be a transformers tokenizer, not a int"):
        wb.open_model(module, tokenizer=3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="a tokenizer goes with a model in memory"):
        wb.open_model(folders["llama"], tokenizer=tokenizer)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bert", *MIXTURES])
def test_an_original_comes_back_as_plain_transformers(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    kind = AutoModel if family == "bert" else AutoModelForCausalLM
    expected, module = plain(folders[family], kind), wb.open_model(folders[family]).to_transformers()
    assert type(module) is type(expected)
    assert module.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], tensor, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in module.parameters())
    module.save_pretrained(tmp_path / "again")
    wb.open_model(tmp_path / "again").layers()


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_quantized_model_becomes_a_transformers_model(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = wb.open_model(folders[family])
    small = wb.quantize_model(model, RECIPE)
    module, loaded = wb.to_transformers(small, model), wb.load(wb.save(small, tmp_path / "out", model))
    assert isinstance(module.get_submodule(model.layer_names[0]), PackedLinear)
    torch.testing.assert_close(logits_of(module), loaded.logits(IDS), rtol=1e-4, atol=1e-4)
    assert loaded.to_transformers() is loaded.module
    with model.swapped({name: layer.weight() for name, layer in small.layers.items()}):
        torch.testing.assert_close(logits_of(module), logits_of(model.module), rtol=1e-3, atol=1e-3)


def test_it_generates_what_the_handle_generates(folders: dict[str, Path], tmp_path: Path) -> None:
    model = wb.open_model(folders["llama"])
    loaded = wb.load(wb.save(wb.quantize_model(model, RECIPE), tmp_path / "out", model))
    for handle in (model, loaded):
        ids, lm = handle.encode(PROMPT), handle.language_model()
        written = wb.to_transformers(handle).generate(ids, max_new_tokens=8, do_sample=False)
        assert written[0, ids.shape[1] :].tolist()[:8] == list(lm.new_tokens(ids, 8))


def test_what_becomes_no_transformers_model_is_one_sentence(builtin: ModelHandle, folders: dict[str, Path]) -> None:
    with pytest.raises(ArtifactError, match="takes a model from wb.open_model, wb.quantize_model or wb.load, not a str"):
        wb.to_transformers("builtin")  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="were quantized from"):
        wb.to_transformers(wb.quantize_model(builtin, RECIPE), wb.open_model(folders["llama"]))


def test_a_module_is_a_model_in_memory(module: Any) -> None:
    model = wb.open_model(module)
    assert isinstance(model, ModelInMemory)
    assert model.in_memory
    assert not wb.open_model("builtin").in_memory
    assert model.code() == "wb.open_model(module, tokenizer=tokenizer)"
