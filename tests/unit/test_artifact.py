"""Artifacts: what is saved runs and gives the same logits, adds up to its file, and damage of any kind is named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import workbench as wb
from workbench import atomic
from workbench.artifact import PackedModel, digest, is_artifact, load, save
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ArtifactError, ModelError, OutputError
from workbench.kernels.packing.bitpack import pack
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.models import ModelHandle, open_model
from workbench.quantized import QuantizedLayer, QuantizedModel

PARTS = {
    "transform": wb.part("transform", "identity"),
    "split": wb.part("split", "whole"),
    "coders": (wb.part("coder", "keep"),),
    "assignment": wb.part("assignment", "nearest"),
    "correction": wb.part("correction", "none"),
}
RECIPE = wb.Recipe(**PARTS)
PROMPT = "Once upon a time there was a little dog."


def signs(weight: Tensor) -> Packed:
    """One bit a weight and a row scale."""
    rows, cols = weight.shape
    scale = weight.abs().mean(1).half().view(1, rows, 1)
    return Packed("planes", rows, cols, {"signs": pack(weight >= 0, 1), "scale": scale}, {"planes": 1, "span": cols})


def codebook(weight: Tensor) -> Packed:
    """A tree with a shared codebook under a permutation, and a low-rank correction."""
    rows, cols = weight.shape
    random = torch.Generator().manual_seed(rows * cols)
    tensors = {
        "index": pack(torch.randint(0, 8, (rows, cols // 4), generator=random), 3),
        "codebook": pack(torch.arange(32) % 3 == 0, 1),
        "scale": weight.abs().mean(1, keepdim=True).half(),
    }
    node = Packed("binary-codebook", rows, cols, tensors, {"length": 4, "entries": 8, "span": cols}, shared={"codebook": ("", 1)})
    low = Packed("low-rank", rows, cols, {"left": weight[:, :2].half().clone(), "right": weight[:2].half().clone()})
    order = pack(torch.randperm(cols, generator=random), (cols - 1).bit_length())
    return Packed("permuted", rows, cols, {"order": order}, children=(Packed("sum", rows, cols, children=(node, low)),))


def quantized(model: ModelHandle, form: Callable[[Tensor], Packed], layers: list[str] | None = None) -> QuantizedModel:
    """Every layer (or some) in one stored form; shared tensors are claimed to be paid by 99 layers."""
    made = {}
    for name in layers or model.layer_names:
        weight = model.weight(name).float()
        packed = form(weight).share("all", 99)
        book = build_ledger(packed, 1.0)
        made[name] = QuantizedLayer(name, packed, RECIPE, book, relative_error=0.25, output_error=None, seconds=0.5)
    return QuantizedModel(model.source, made, wb.LayerPlan.uniform(RECIPE), {"text": "calibration", "tokens": 128}, seconds=2.0)


@pytest.fixture(scope="session")
def saved(builtin: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, all layers but the last in signs; read only."""
    return save(quantized(builtin, signs, builtin.layer_names[:-1]), tmp_path_factory.mktemp("artifact") / "signs", builtin)


@pytest.fixture(scope="session")
def packed(saved: Path) -> PackedModel:
    return load(saved)


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def expected_logits(model: ModelHandle, made: QuantizedModel, ids: Tensor) -> Tensor:
    with model.swapped({name: layer.weight() for name, layer in made.layers.items()}):
        return model.language_model().logits(ids)


@pytest.mark.parametrize("cache", ["decoded", "none"])
@pytest.mark.parametrize("form", [signs, codebook], ids=["signs", "codebook-tree"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma", "qwen2"])
def test_logits_equal_those_of_the_dequantized_model(
    tiny_models: dict[str, Path], tmp_path: Path, family: str, form: Callable[[Tensor], Packed], cache: str
) -> None:
    model = open_model(tiny_models[family])
    made = quantized(model, form)
    again = load(save(made, tmp_path / "out", model), cache=cache)
    ids = model.language_model().encode(PROMPT)
    expected = expected_logits(model, made, ids)
    assert (again.logits(ids) - expected).norm() < 1e-3 * expected.norm()  # compiled sums are exact to 2e-4 a layer
    assert not torch.allclose(expected, model.language_model().logits(ids), rtol=0.01), "the quantization changed nothing"


def test_logits_of_the_builtin_model(builtin: ModelHandle, packed: PackedModel) -> None:
    ids = packed.encode(PROMPT)
    expected = expected_logits(builtin, packed.quantized, ids)
    assert (packed.logits(ids) - expected).norm() < 3e-4 * expected.norm()  # compiled sums are exact to 2e-4 a layer


def test_every_tensor_comes_back_as_it_was(builtin: ModelHandle, packed: PackedModel) -> None:
    made = quantized(builtin, signs, builtin.layer_names[:-1])
    assert packed.layer_names == list(made.layers)
    for name, layer in made.layers.items():
        again = packed.layer(name)
        assert (again.recipe, again.relative_error, again.seconds) == (layer.recipe, layer.relative_error, layer.seconds)
        assert torch.equal(packed.weight(name), layer.weight())
    assert packed.quantized.plan == made.plan
    assert packed.quantized.calibration == made.calibration
    assert (packed.source, packed.fingerprint) == (builtin.source, builtin.fingerprint)


def test_it_reads_and_writes_text(builtin: ModelHandle, packed: PackedModel) -> None:
    written = packed.generate(PROMPT, tokens=8)
    assert written.startswith("Once upon a time")
    assert written == packed.language_model().decode(packed.encode(PROMPT)) + "".join(packed.stream(PROMPT, tokens=8))
    text = wb.text("evaluation")
    with builtin.swapped({name: packed.weight(name) for name in packed.layer_names}):
        expected = builtin.perplexity(text, tokens=200).perplexity
    assert packed.perplexity(text, tokens=200).perplexity == pytest.approx(expected, rel=1e-4)


def test_the_end_token_is_remembered(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 77]}')
    model = open_model(folder)
    again = load(save(quantized(model, signs), tmp_path / "out", model))
    assert 77 in again.language_model().stops
    assert again.language_model().stops == model.language_model().stops


@pytest.mark.parametrize("form", [signs, codebook], ids=["signs", "codebook-tree"])
def test_the_ledger_adds_up_to_the_file(builtin: ModelHandle, tmp_path: Path, form: Callable[[Tensor], Packed]) -> None:
    again = load(save(quantized(builtin, form, builtin.layer_names[:5]), tmp_path / "out", builtin))
    size = (tmp_path / "out" / "packed.safetensors").stat().st_size
    assert again.bytes == size
    assert again.file_ledger.total_bits == 8 * size
    with safe_open(tmp_path / "out" / "packed.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if "|" in name]  # noqa: SIM118  not a dict
        stored = sum(file.get_tensor(name).nbytes for name in names)
    assert again.ledger.total_bits == pytest.approx(8 * stored, abs=1e-6)
    assert again.ledger.weights == sum(layer.rows * layer.cols for layer in map(builtin.layer, again.layer_names))
    parameters = sum(parameter.numel() for parameter in builtin.module.parameters())
    assert again.file_ledger.weights == parameters


def test_a_shared_tensor_is_stored_once_and_paid_by_those_who_have_it(builtin: ModelHandle, tmp_path: Path) -> None:
    again = load(save(quantized(builtin, codebook, builtin.layer_names[:5]), tmp_path / "out", builtin))
    entries = [e for name in again.layer_names for e in again.layer(name).ledger.entries if e.item.endswith("codebook")]
    assert [entry.shared_by for entry in entries] == [5] * 5
    assert sum(entry.bits for entry in entries) == pytest.approx(32)
    nodes = [node for name in again.layer_names for _, node in again.layer(name).packed.walk()]
    books = {node.tensors["codebook"].data_ptr() for node in nodes if "codebook" in node.tensors}
    assert len(books) == 1


def test_a_disagreement_about_a_shared_tensor_is_refused(builtin: ModelHandle, tmp_path: Path) -> None:
    made = quantized(builtin, codebook, builtin.layer_names[:2])
    first, second = made.layers.values()
    total = second.packed.children[0]
    node = total.children[0]
    node = replace(node, tensors={**node.tensors, "codebook": ~node.tensors["codebook"]})
    changed = replace(second.packed, children=(replace(total, children=(node, total.children[1])),))
    layers = {first.name: first, second.name: replace(second, packed=changed)}
    with pytest.raises(ArtifactError, match=r"shares 'shared\|all/0\.0\.codebook' with others but holds another tensor"):
        save(replace(made, layers=layers), tmp_path / "out", builtin)


def test_tied_embeddings_are_stored_once(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(tiny_models["gpt2"])
    again = load(save(quantized(model, signs), tmp_path / "out", model))
    module = again.module
    assert module.lm_head.weight is module.transformer.wte.weight
    stored = [name for name in json.loads((tmp_path / "out" / "ledger.json").read_text())["tensors"] if "|" not in name]
    assert "transformer.wte.weight" in stored
    assert "lm_head.weight" not in stored
    assert "transformer.h.0.attn.c_attn.bias" in stored


def test_changed_tensors_are_saved_in_the_place_of_the_models_own(builtin: ModelHandle, tmp_path: Path) -> None:
    norm = "model.layers.1.input_layernorm.weight"
    own = builtin.other_tensors(builtin.layer_names)[norm]
    made = quantized(builtin, signs, builtin.layer_names[:2])
    changed = replace(made, changed_tensors={norm: (own.float() * 1.5).to(own.dtype)})
    plain, again = load(save(made, tmp_path / "plain", builtin)), load(save(changed, tmp_path / "changed", builtin))
    assert torch.equal(again.quantized.changed_tensors[norm], changed.changed_tensors[norm])
    assert torch.equal(again.module.get_parameter(norm), changed.changed_tensors[norm].float())
    assert plain.quantized.changed_tensors == {}
    assert again.bytes == plain.bytes
    assert [entry.why for entry in again.file_ledger.entries if entry.item == norm] == [
        f"new values, {own.dtype} as in the model"
    ]
    ids = again.encode(PROMPT)
    expected = build_packed_copy(builtin, changed.layers, changed.changed_tensors).logits(ids)
    assert (again.logits(ids) - expected).norm() < 1e-3 * expected.norm()  # compiled sums are exact to 2e-4 a layer
    assert not torch.allclose(expected, plain.logits(ids), rtol=0.01)


def test_a_head_that_is_no_longer_tied_is_stored_beside_the_embedding(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(tiny_models["gpt2"])
    embedding = model.other_tensors(model.layer_names)["transformer.wte.weight"]
    made = replace(quantized(model, signs), changed_tensors={"lm_head.weight": 2 * embedding})
    again = load(save(made, tmp_path / "out", model))
    assert torch.equal(again.module.get_parameter("lm_head.weight"), 2 * embedding)
    assert torch.equal(again.module.get_parameter("transformer.wte.weight"), embedding)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        pytest.param("model.norm.gain", torch.clone, "has no tensor 'model.norm.gain' outside its layers", id="name"),
        pytest.param("model.norm.weight", torch.Tensor.double, r"torch.float64 \[256\] as changed", id="type"),
        pytest.param("model.norm.weight", lambda own: own[:9], r"\[256\] in the model, but torch.\w+ \[9\]", id="size"),
    ],
)
def test_a_changed_tensor_that_does_not_fit_is_refused(
    builtin: ModelHandle, tmp_path: Path, name: str, change: Callable[[Tensor], Tensor], said: str
) -> None:
    own = builtin.other_tensors(builtin.layer_names)["model.norm.weight"]
    made = replace(quantized(builtin, signs, builtin.layer_names[:1]), changed_tensors={name: change(own)})
    with pytest.raises(ArtifactError, match=said):
        save(made, tmp_path / "out", builtin)


def test_an_encoder_is_saved_and_loaded_but_writes_no_text(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(tiny_models["bert"])
    made = quantized(model, signs)
    again = load(save(made, tmp_path / "out", model))
    ids = torch.arange(12).view(1, 12)
    with model.swapped({name: layer.weight() for name, layer in made.layers.items()}), torch.inference_mode():
        expected = model.module(ids).last_hidden_state
    torch.testing.assert_close(again.module(ids).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="is not a causal language model"):
        again.generate("Once")


def test_memory_is_what_is_held(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    again = load(saved, cache="none")
    module = again.module
    held = {t.data_ptr(): t.nbytes for t in [*module.parameters(), *module.buffers()]}
    assert again.resident_bytes == sum(held.values())
    again.generate("Once", tokens=2)
    assert again.resident_bytes == sum(held.values())
    decoded = load(saved)
    decoded.generate("Once", tokens=2)
    assert decoded.resident_bytes == sum(held.values()) + 4 * again.ledger.weights


def test_packed_layers_run_without_being_decoded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_KERNELS", raising=False)
    again = load(saved)
    before = again.resident_bytes
    assert again.generate("Once", tokens=4) == load(saved, cache="none").generate("Once", tokens=4)
    weights = again.ledger.weights  # about a bit a weight more, in the order in which kernels read; decoded it would be 32
    assert before < again.resident_bytes < before + 2 * weights / 8


def test_the_model_is_found_by_its_source(builtin: ModelHandle, tmp_path: Path) -> None:
    made = quantized(builtin, signs, builtin.layer_names[:1])
    assert load(wb.save(made, tmp_path / "out")).layer_names == builtin.layer_names[:1]


def test_a_layers_table_and_a_short_description(packed: PackedModel) -> None:
    table = packed.layers()
    assert list(table["name"]) == packed.layer_names
    assert packed.bits_per_weight == pytest.approx(
        table["bits_per_weight"].mul(table["rows"] * table["cols"]).sum() / packed.ledger.weights
    )
    assert f"{packed.bytes:,} bytes" in repr(packed)
    with pytest.raises(ModelError, match="unknown layer 'model.layers.0.mlp.up_prj'; did you mean 'model.layers.0.mlp.up_proj'"):
        packed.layer("model.layers.0.mlp.up_prj")


# what can be wrong on disk


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_names_its_tensor(copy: Path) -> None:
    path = copy / "packed.safetensors"
    header = json.loads(digest.read_header(path)[8:])
    for name in ("model.embed_tokens.weight", "model.layers.3.mlp.down_proj||signs"):
        begin, end = header[name]["data_offsets"]
        place = len(digest.read_header(path)) + (begin + end) // 2
        flip(path, place)
        with pytest.raises(ArtifactError, match=f"is damaged in tensor '{name}'".replace("|", r"\|")):
            load(copy)
        flip(path, place)
    assert load(copy).layer_names


@pytest.mark.parametrize("place", [3, 60], ids=["length", "names"])
def test_a_flipped_byte_in_the_header_is_named(copy: Path, place: int) -> None:
    flip(copy / "packed.safetensors", place)
    with pytest.raises(ArtifactError, match="is damaged in its header"):
        load(copy)


@pytest.mark.parametrize("left", [0, 5, 1000, -1], ids=["nothing", "five-bytes", "header-only", "one-byte-short"])
def test_a_truncated_file_is_named(copy: Path, left: int) -> None:
    path = copy / "packed.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ArtifactError, match=r"packed\.safetensors has [\d,]+ bytes of [\d,]+; it is truncated"):
        load(copy)


@pytest.mark.parametrize("name", ["packed.safetensors", "recipe.json", "ledger.json", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=f"lacks {name}".replace(".", r"\.")):
        load(copy)


@pytest.mark.parametrize("name", ["recipe.json", "config.json", "tokenizer.json"])
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    path = copy / name
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(ArtifactError, match=rf"{name} was changed after it was saved"):
        load(copy)


def test_a_changed_figure_in_the_ledger_is_noticed(copy: Path) -> None:
    path = copy / "ledger.json"
    document = json.loads(path.read_text())
    document["quantized"]["bits_per_weight"] = 0.01
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"ledger\.json was changed after it was saved"):
        load(copy)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is not JSON"), ("{", "is not JSON"), ("[]", "must be an object"), ("{}", "has no 'version'; copy the folder again")],
    ids=["empty", "half", "list", "no-version"],
)
def test_a_damaged_ledger_is_named(copy: Path, text: str, said: str) -> None:
    (copy / "ledger.json").write_text(text)
    with pytest.raises(ArtifactError, match=rf"ledger\.json.*{said}"):
        load(copy)


def rewrite_ledger(copy: Path, change: Callable[[dict], None]) -> None:
    """A consistent ledger after a change, as another version of this workbench might have written it."""
    document = json.loads((copy / "ledger.json").read_text())
    change(document)
    (copy / "ledger.json").write_text(json.dumps({**document, "sha256": digest.hash_json(document)}))


def test_another_version_is_refused(copy: Path) -> None:
    rewrite_ledger(copy, lambda document: document.update(version=7))
    with pytest.raises(ArtifactError, match="has version 7, but this workbench reads versions 1 and 2"):
        load(copy)


def test_a_missing_tensor_is_named(copy: Path) -> None:
    rewrite_ledger(copy, lambda document: document["tensors"].update(forgotten="00"))
    with pytest.raises(ArtifactError, match="lacks tensor 'forgotten'"):
        load(copy)


def test_what_is_no_artifact_is_said(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(
        ArtifactError, match=r"is not a quantized model \(no recipe\.json\); a plain model is opened with wb\.open_model"
    ):
        load(tiny_models["llama"])
    assert not is_artifact(tiny_models["llama"])


# saving


def test_a_folder_with_other_things_is_refused(builtin: ModelHandle, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds other files; give a new or empty folder"):
        save(quantized(builtin, signs, builtin.layer_names[:1]), tmp_path, builtin)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(OutputError, match=r"thesis\.txt is a file; give a folder"):
        save(quantized(builtin, signs, builtin.layer_names[:1]), tmp_path / "thesis.txt", builtin)


def test_layers_of_another_model_are_refused(builtin: ModelHandle, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    made = quantized(builtin, signs, builtin.layer_names[:1])
    other = open_model(tiny_models["llama"])
    with pytest.raises(ArtifactError, match="were quantized from 'builtin', not from"):
        save(made, tmp_path / "out", other)
    with pytest.raises(ArtifactError, match=r"is \[64, 64\] in the model, but \[256, 256\] as quantized"):
        save(replace(made, source=other.source), tmp_path / "out", other)
    with pytest.raises(ArtifactError, match="no layer of 'builtin' was quantized"):
        save(replace(made, layers={}), tmp_path / "out", builtin)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two-renames"])
def test_an_older_artifact_is_replaced(builtin: ModelHandle, copy: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    save(quantized(builtin, signs, builtin.layer_names[:1]), copy, builtin)
    assert load(copy).layer_names == builtin.layer_names[:1]
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


FAULTS = {
    "while-writing": "workbench.artifact.saving.write_tensors",
    "before-the-ledger": "workbench.artifact.saving.build_ledger_document",
    "before-taking-the-place": "workbench.atomic.rename_partial",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_leaves_the_older_artifact(
    builtin: ModelHandle, copy: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    monkeypatch.setattr(FAULTS[fault], full)
    with pytest.raises(OutputError, match="no space left"):
        save(quantized(builtin, signs, builtin.layer_names[:1]), copy, builtin)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_failed_second_rename_brings_the_older_artifact_back(
    builtin: ModelHandle, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError("the network drive is gone")
        return rename(self, target)

    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="the network drive is gone"):
        save(quantized(builtin, signs, builtin.layer_names[:1]), copy, builtin)
    assert len(load(copy).layer_names) == len(builtin.layer_names) - 1


CRASH = """
import os, sys
import workbench.artifact.saving as saving
from workbench.artifact import load, save
from workbench.models import open_model
model = open_model("builtin")
quantized = load(sys.argv[1]).quantized
saving.build_ledger_document = lambda *_: os._exit(9)
save(quantized, sys.argv[1], model)
"""


def test_a_killed_process_leaves_the_older_artifact(copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert subprocess.run([sys.executable, "-c", CRASH, str(copy)], check=False).returncode == 9
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert load(copy).layer_names
