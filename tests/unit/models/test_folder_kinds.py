"""Folders and files that people have and that are no plain model folder: each opens, or is named in one sentence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_models import write_model
from workbench.errors import ModelError
from workbench.models import open_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 9\n"
GGUF = b"GGUF\x03\0\0\0" + bytes(16)
ONNX = b"\x08\x07\x3a\x00"
HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x05\x06" + bytes(18)
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "owner/base", "r": 4}
WEIGHTS = "model.safetensors"
Build = Callable[[Path], object]


@pytest.fixture
def folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may change."""
    return Path(shutil.copytree(tiny_models["llama"], tmp_path / "llama"))


def remove_all_but(folder: Path, *names: str) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def write(folder: Path, **files: bytes | str | dict | list) -> None:
    """Files by their names, with "__" for a dot and "_in_" for a slash."""
    for name, content in files.items():
        path = folder / name.replace("_in_", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


def rename_weights(folder: Path, name: str) -> None:
    (folder / WEIGHTS).rename(folder / name)


def adapter_alone(folder: Path) -> None:
    remove_all_but(folder, "tokenizer.json")
    add_adapter(folder)


def add_adapter(folder: Path) -> None:
    write(folder, adapter_config__json=ADAPTER)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file({name.format("A"): torch.ones(4, 64), name.format("B"): torch.ones(64, 4)}, folder / "adapter_model.safetensors")


def adapter_of_nobody(folder: Path) -> None:
    adapter_alone(folder)
    write(folder, adapter_config__json="{")


def gguf(folder: Path) -> None:
    remove_all_but(folder, "config.json", "tokenizer.json")
    write(folder, a__gguf=GGUF, b__gguf=GGUF)


def onnx(folder: Path) -> None:
    remove_all_but(folder, "config.json", "tokenizer.json")
    write(folder, onnx_in_model__onnx=ONNX)


def other_framework(name: str) -> Build:
    def build(folder: Path) -> None:
        remove_all_but(folder, "config.json", "tokenizer.json")
        (folder / name).write_bytes(HDF5)

    return build


def original_layout(folder: Path) -> None:
    rename_weights(folder, "consolidated.safetensors")
    (folder / "config.json").unlink()
    write(folder, params__json={"dim": 64})


def meta_layout(folder: Path) -> None:
    remove_all_but(folder)
    torch.save({}, folder / "consolidated.00.pth")
    write(folder, params__json={"dim": 64})


def fp16_shards(folder: Path) -> None:
    shutil.rmtree(folder)
    write_model("llama", folder, shard_size="100KB")
    index = json.loads((folder / f"{WEIGHTS}.index.json").read_text())
    for shard in folder.glob("*.safetensors"):
        shard.rename(folder / shard.name.replace("model-", "model.fp16-"))
    table = {name: shard.replace("model-", "model.fp16-") for name, shard in index["weight_map"].items()}
    (folder / f"{WEIGHTS}.index.json").unlink()
    (folder / f"{WEIGHTS}.index.fp16.json").write_text(json.dumps(index | {"weight_map": table}))


def shards_without_index(folder: Path) -> None:
    shutil.rmtree(folder)
    write_model("llama", folder, shard_size="100KB")
    (folder / f"{WEIGHTS}.index.json").unlink()


def diffusers(folder: Path) -> None:
    shutil.move(folder, folder.parent / "model")
    folder.mkdir()
    shutil.move(folder.parent / "model", folder / "text_encoder")
    write(folder, model_index__json={"_class_name": "FluxPipeline"})


def sentence_transformers(folder: Path) -> None:
    shutil.move(folder, folder.parent / "model")
    folder.mkdir()
    shutil.move(folder.parent / "model", folder / "0_Transformer")
    write(folder, modules__json=[{"idx": 0, "name": "0", "path": "0_Transformer", "type": "…Transformer"}, {"path": "1_Pooling"}])


def trainer_output(folder: Path) -> None:
    model = folder.parent / "model"
    shutil.move(folder, model)
    folder.mkdir()
    for step in (100, 200):
        shutil.copytree(model, folder / f"checkpoint-{step}")


def pointers(*names: str) -> Build:
    return lambda folder: [(folder / name).write_text(POINTER) for name in names]


def hub_cache(folder: Path) -> None:
    write(folder, **{"models--owner--name_in_snapshots_in_1_in_config__json": "{}"})
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in files:
        path.unlink()


def trainer_state(folder: Path) -> None:
    remove_all_but(folder, "config.json")
    torch.save({}, folder / "training_args.bin")


def artifact(folder: Path) -> None:
    write(folder, recipe__json={"version": 1}, ledger__json={"version": 1})


def dead_link(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../../blobs/0123abcd")


KINDS: dict[str, tuple[Build, str]] = {
    "adapter": (adapter_alone, r"is a LoRA adapter of the base model 'owner/base', not a model of its own; open the base model"),
    "adapter-damaged": (adapter_of_nobody, r"is an adapter of the base model that its adapter_config.json does not name"),
    "gguf": (gguf, r"only as GGUF, in 2 files, first a.gguf; give one of them: '.*a.gguf'"),
    "onnx": (onnx, r"is an ONNX export \(onnx/model.onnx\) without safetensors weights"),
    "tensorflow": (other_framework("tf_model.h5"), r"only for TensorFlow or Flax \(tf_model.h5\).*from_tf=True"),
    "flax": (other_framework("flax_model.msgpack"), r"only for TensorFlow or Flax \(flax_model.msgpack\).*from_flax=True"),
    "mistral-layout": (original_layout, r"original layout of Mistral or Meta \(consolidated.safetensors\)"),
    "meta-layout": (meta_layout, r"original layout of Mistral or Meta \(consolidated.00.pth\)"),
    "variant": (
        lambda f: rename_weights(f, "model.fp16.safetensors"),
        r"variant \(model.fp16.safetensors\).*to model.safetensors",
    ),
    "variant-shards": (fp16_shards, r"\(model.safetensors.index.fp16.json\).*to model.safetensors.index.json"),
    "other-name": (lambda f: rename_weights(f, "weights.safetensors"), r"holds its weights as weights.safetensors; rename"),
    "no-index": (shards_without_index, r"holds \d+ safetensors files, first model-00001-of-.*download the index too"),
    "pointer-weights": (pointers(WEIGHTS), r"Git LFS pointers in place of 1 of its files, first model.safetensors; run `git lfs"),
    "pointers": (
        pointers("config.json", WEIGHTS, "tokenizer.json"),
        r"Git LFS pointers in place of 3 of its files, first config",
    ),
    "pointer-tokenizer": (pointers("tokenizer.json"), r"in place of 1 of its files, first tokenizer.json; run `git lfs pull`"),
    "diffusers": (diffusers, r"is a diffusers pipeline \(FluxPipeline\) of several models.*llama/text_encoder"),
    "sentence-transformers": (sentence_transformers, r"is a sentence-transformers folder.*open .*llama/0_Transformer"),
    "trainer": (trainer_output, r"has no config.json, but its subfolder does: open .*checkpoint-200, 1 of 2"),
    "tokenizer-only": (lambda f: remove_all_but(f, "tokenizer.json"), r"holds only a tokenizer \(tokenizer.json\)"),
    "trainer-state": (trainer_state, r"has neither model.safetensors nor"),
    "hub-cache": (hub_cache, r"is the hub's cache of many models; give a hub id"),
    "artifact": (artifact, r"is a quantized model that this workbench saved; load it with wb.load\("),
    "dead-link": (dead_link, r"model.safetensors is a broken link; download the model again"),
    "empty-weights": (lambda f: (f / WEIGHTS).write_bytes(b""), r"model.safetensors is damaged or incomplete"),
    "no-tensors": (lambda f: save_file({}, f / WEIGHTS), r"model.safetensors holds no tensors"),
}
FILES: dict[str, tuple[bytes | str, str]] = {
    "a.gguf": ("GGML", r"is no GGUF file: it does not begin with 'GGUF'; download it again"),
    "sha256-1234": (GGUF, r"names no architecture|needs the library gguf"),
    "a.onnx": (ONNX, r"is an ONNX file"),
    "tf_model.h5": (HDF5, r"is a file of TensorFlow weights"),
    "flax_model.msgpack": (b"\x80", r"is a file of Flax weights"),
    "pytorch_model.bin": (ZIP, r"is a pickle, which is never loaded"),
    "model.zip": (ZIP, r"is an archive; unpack it"),
    "lfs.safetensors": (POINTER, r"is a Git LFS pointer, not the file itself; run `git lfs pull`"),
    "adapter_model.safetensors": (b"", r"is an adapter's file of weights"),
    "notes.txt": ("hello", r"is a file; give the folder that holds config.json"),
}


@pytest.mark.parametrize(("build", "sentence"), KINDS.values(), ids=KINDS.keys())
def test_a_folder_of_another_kind_is_named_in_one_sentence(folder: Path, build: Build, sentence: str) -> None:
    open_model(folder)
    build(folder)
    with pytest.raises(ModelError, match=sentence) as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content", "sentence"), [(name, *rest) for name, rest in FILES.items()], ids=FILES.keys())
def test_a_file_is_named_in_one_sentence(folder: Path, name: str, content: bytes | str, sentence: str) -> None:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=sentence):
        open_model(path)


def test_weights_without_a_configuration_are_weights_alone(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="holds only weights; give a folder"):
        open_model(folder / WEIGHTS)


@pytest.mark.parametrize(
    "name",
    ["a.gguf", "tf_model.h5", "consolidated.safetensors", "model.fp16.safetensors", "training_args.bin", "onnx/model.onnx"],
)
def test_other_formats_beside_the_weights_do_no_harm(folder: Path, name: str) -> None:
    write(folder, **{name.replace("/", "_in_").replace(".", "__"): POINTER})
    assert len(open_model(folder).layer_names) == 14


@pytest.mark.parametrize("build", [KINDS["variant"][0], fp16_shards], ids=["one-file", "shards"])
def test_the_advice_for_a_variant_opens_it(folder: Path, build: Build) -> None:
    build(folder)
    found = next(folder.glob("model.*fp16*.json"), folder / "model.fp16.safetensors")
    found.rename(folder / found.name.replace(".fp16", ""))
    assert open_model(folder).generate("Once", tokens=1)


def test_subfolders_that_were_named_open(folder: Path) -> None:
    sentence_transformers(folder)
    assert len(open_model(folder / "0_Transformer").layer_names) == 14


def test_a_saved_quantized_model_says_how_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    import workbench as wb

    model = open_model(folder)
    wb.save(wb.quantize_model(model, wb.recipe("rtn", bits=2, group=32), layers="*0.mlp*"), tmp_path / "saved", model)
    with pytest.raises(ModelError, match=r"saved; load it with wb.load\('.*saved'\), or give the original model"):
        open_model(tmp_path / "saved")


def test_an_adapter_beside_the_base_is_not_lost_in_silence(folder: Path) -> None:
    text = open_model(folder).generate("Once", tokens=5)
    add_adapter(folder)
    with pytest.warns(
        UserWarning, match=r"holds a LoRA adapter \(adapter_model.safetensors\) beside the base model; only the base"
    ):
        model = open_model(folder)
    assert model.generate("Once", tokens=5) == text


def as_hub_cache(model: Path, cache: Path, name: str = "models--tiny--llama", *, main: bool = True) -> Path:
    """The hub's layout: files are links into blobs."""
    snapshot = cache / name / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (cache / name / "blobs").mkdir()
    for number, path in enumerate(sorted(model.iterdir())):
        shutil.copy(path, cache / name / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    if main:
        write(cache / name, refs_in_main="0123abcd")
    return cache / name


def test_a_folder_of_the_hub_cache_opens_the_snapshot_of_main(folder: Path, tmp_path: Path) -> None:
    place = as_hub_cache(folder, tmp_path / "hub")
    shutil.copytree(place / "snapshots" / "0123abcd", place / "snapshots" / "old", symlinks=True)
    assert open_model(place).folder == place / "snapshots" / "0123abcd"
    assert open_model(place / "snapshots" / "old").generate("Once", tokens=1)
    (place / "refs" / "main").write_text("gone")
    with pytest.raises(ModelError, match="has no snapshot gone, which its refs/main names"):
        open_model(place)
    (place / "refs" / "main").unlink()
    with pytest.raises(ModelError, match="has 2 snapshots and no refs/main"):
        open_model(place)
    shutil.rmtree(place / "snapshots" / "old")
    assert open_model(place).folder == place / "snapshots" / "0123abcd"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a user runs it."""
    code = "from workbench.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=False,
    )


def test_a_hub_id_without_an_owner_is_found_in_the_cache(folder: Path, tmp_path: Path) -> None:
    as_hub_cache(folder, tmp_path / "hub", "models--gpt2")
    process = run("layers", "gpt2", HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    assert (process.returncode, process.stderr) == (0, "")
    assert "model.layers.1\n" in process.stdout
    assert "mlp.up_proj" in process.stdout


@pytest.mark.parametrize("name", ["gpt2-of-nobody", "bert-base-of-nobody", "owner/nothing"])
def test_a_hub_id_that_is_not_in_the_cache(name: str) -> None:
    with pytest.raises(ModelError, match=f"no folder '{name}'; use 'builtin' or .* neither in the local cache nor reachable"):
        open_model(name)


@pytest.mark.parametrize("name", ["nowhere.gguf", "model.safetensors", "config.json", "bultin"])
def test_a_missing_file_or_a_misspelling_is_no_hub_id(name: str) -> None:
    with pytest.raises(ModelError, match=f"no folder '{name}'; use 'builtin', a folder"):
        open_model(name)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/model", "a\0b"], ids=["long", "no-such-user", "nul"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be opened|there is no folder"):
        open_model(name)


@pytest.mark.parametrize("kind", ["adapter", "gguf", "pointers", "artifact", "tokenizer-only"])
def test_the_command_line_says_it_in_one_line(folder: Path, kind: str) -> None:
    build, _ = KINDS[kind]
    build(folder)
    process = run("layers", str(folder))
    assert process.returncode == 1
    assert process.stdout == ""
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1


def test_the_command_line_shows_a_warning_in_one_line(folder: Path) -> None:
    add_adapter(folder)
    process = run("layers", str(folder))
    assert process.returncode == 0
    assert process.stderr.startswith(f"warning: {folder} holds a LoRA adapter")
    assert process.stderr.count("\n") == 1
