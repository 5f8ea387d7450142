"""Paths that are not a model in Hugging Face layout: what each is and what to do, in one sentence.

Recognised by names and first bytes alone; nothing here opens weights.
"""

from pathlib import Path
from typing import Any

from workbench.errors import ModelError
from workbench.exchange.reading.gguf_parts import find_first_part
from workbench.json_value import is_file_name, read
from workbench.models.checkpoint import INDEX, SINGLE_FILE, find_pickles

POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_BYTES = 1024  # a pointer is three short lines
GGUF_MAGIC = b"GGUF"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
ORIGINAL_LAYOUT = ("consolidated*.safetensors", "consolidated*.pth", "consolidated*.pt")
OTHER_FRAMEWORKS = ("tf_model*.h5", "flax_model*.msgpack", "model.ckpt*.index")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
HINTS = {
    ".gguf": "no GGUF file: it does not begin with 'GGUF'; download it again",
    ".onnx": "an ONNX file; give the folder of the model that it was exported from",
    ".h5": "a file of TensorFlow weights; give a folder with safetensors weights",
    ".msgpack": "a file of Flax weights; give a folder with safetensors weights",
}
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".zst")
FILE_SUFFIXES = (*HINTS, *PICKLE_SUFFIXES, *ARCHIVE_SUFFIXES, ".safetensors", ".json")


def is_gguf(file: Path) -> bool:
    """Whether a path is a GGUF file, by its first bytes."""
    return file.is_file() and _read_first_bytes(file).startswith(GGUF_MAGIC)


def find_gguf(folder: Path) -> Path | None:
    """The GGUF file that a path is, or that is all the weights of a folder, of several parts the first; None where there is none,
    or several models."""
    if folder.is_file():
        return folder
    files = [file for file in sorted(folder.glob("*.gguf")) if is_gguf(file)]
    if _find_matching_files(folder, "*.safetensors"):
        return None
    return files[0] if len(files) == 1 else find_first_part(files)


def describe_file(file: Path) -> ModelError:
    """What to say about a file where a folder is needed."""
    start, suffix, folder = _read_first_bytes(file), file.suffix.lower(), file.absolute().parent
    if start.startswith(POINTER):
        return ModelError(f"{str(file)!r} is a Git LFS pointer, not the file itself; run `git lfs pull` in {folder}.")
    if suffix in HINTS:
        return ModelError(f"{str(file)!r} is {HINTS[suffix]}.")
    if suffix == ".safetensors" and file.name.startswith("adapter_"):
        return ModelError(f"{str(file)!r} is an adapter's file of weights; give the folder of its base model.")
    if suffix in (".safetensors", ".json") and (folder / "config.json").is_file():
        return ModelError(f"{str(file)!r} is one file of a model; give its folder, {str(folder)!r}.")
    if suffix == ".safetensors":
        return ModelError(
            f"{str(file)!r} holds only weights; give a folder that holds them as {SINGLE_FILE} beside their config.json."
        )
    if suffix in PICKLE_SUFFIXES:
        return ModelError(f"{str(file)!r} is a pickle, which is never loaded because it can run code; give a safetensors folder.")
    if suffix in ARCHIVE_SUFFIXES:
        return ModelError(f"{str(file)!r} is an archive; unpack it and give the folder with config.json and {SINGLE_FILE}.")
    return ModelError(f"{str(file)!r} is a file; give the folder that holds config.json and model.safetensors.")


def check_folder(folder: Path) -> None:
    """ModelError that names what `folder` is, where it is something people have that is no model in Hugging Face layout.

    Says nothing about an ordinary folder, nor about one that merely lacks a file.
    """
    if has_files(folder, "recipe.json", "ledger.json"):
        raise ModelError(
            f"{folder} is a quantized model that this workbench saved; load it with wb.load({str(folder)!r}), "
            f"or give the original model."
        )
    _check_links(folder)
    _check_pointers(folder)
    if has_files(folder, "model_index.json"):
        raise _describe_diffusers(folder)
    if has_files(folder, "config.json") and (has_files(folder, SINGLE_FILE) or has_files(folder, INDEX)):
        return
    for describe in (
        _describe_adapter,
        _describe_sentence_encoder,
        _describe_other_formats,
        _describe_subfolders,
        _describe_lone_tokenizer,
    ):
        sentence = describe(folder)
        if sentence:
            raise ModelError(sentence)


def _check_links(folder: Path) -> None:
    """ModelError where a link leads nowhere, as in a hub cache whose blobs were deleted or copied without their links."""
    links = [
        name for name in ("config.json", SINGLE_FILE, INDEX) if (folder / name).is_symlink() and not (folder / name).exists()
    ]
    if links:
        raise ModelError(f"{folder / links[0]} is a broken link; download the model again.")


def _check_pointers(folder: Path) -> None:
    """ModelError where Git LFS left pointers in place of files that opening reads."""
    pointers = [file.name for file in _list_model_files(folder) if _is_pointer(file)]
    if pointers:
        raise ModelError(
            f"{folder} holds Git LFS pointers in place of {len(pointers)} of its files, first {pointers[0]}; "
            f"run `git lfs pull` in that folder."
        )


def _list_model_files(folder: Path) -> list[Path]:
    """The files that opening and running a model reads, of those that are there."""
    if has_files(folder, SINGLE_FILE):
        weights = [folder / SINGLE_FILE]
    elif has_files(folder, INDEX):
        table = _read_json(folder / INDEX)
        shards = table.get("weight_map") if isinstance(table, dict) else None
        names = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
        weights = [folder / INDEX, *(folder / name for name in sorted(names) if is_file_name(name))]
    else:
        weights = sorted(folder.glob("*.safetensors"))
    tokenizer = next((name for name in TOKENIZER_FILES[:2] if has_files(folder, name)), TOKENIZER_FILES[0])
    files = [folder / "config.json", *weights, folder / "generation_config.json", folder / tokenizer]
    return [file for file in files if file.is_file()]


def _is_pointer(file: Path) -> bool:
    """Whether a file is what Git LFS leaves where the file itself was not downloaded."""
    return file.stat().st_size < POINTER_BYTES and _read_first_bytes(file).startswith(POINTER)


def _read_first_bytes(file: Path) -> bytes:
    """The beginning of a file, empty where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(64)
    except OSError:
        return b""


def has_files(folder: Path, *names: str) -> bool:
    """Whether all these files are there."""
    return all((folder / name).is_file() for name in names)


def _read_json(file: Path) -> Any:
    """A JSON document, or None where there is none that can be read: this module only describes."""
    try:
        return read(file, error=ModelError, foreign=True).value
    except ModelError:
        return None


def _describe_diffusers(folder: Path) -> ModelError:
    """A pipeline of several models."""
    index = _read_json(folder / "model_index.json")
    name = index.get("_class_name", "unnamed") if isinstance(index, dict) else "unnamed"
    encoder = folder / "text_encoder"
    advice = (
        f"its text encoder is a model of its own, {encoder}" if has_files(encoder, "config.json") else "give a language model"
    )
    return ModelError(f"{folder} is a diffusers pipeline ({name}) of several models, not a language model; {advice}.")


def _describe_adapter(folder: Path) -> str | None:
    """A LoRA or another adapter without its base model."""
    if not has_files(folder, ADAPTER_CONFIG) and not any(has_files(folder, name) for name in ADAPTER_WEIGHTS):
        return None
    kind, base = read_adapter_facts(folder)
    return (
        f"{folder} is {kind} of the base model {base}, not a model of its own; open the base model, or merge the adapter into it "
        f"(peft: merge_and_unload, then save_pretrained) and open the merged folder."
    )


def read_adapter_facts(folder: Path) -> tuple[str, str]:
    """What kind of adapter it is, and its base model."""
    fields = _read_json(folder / ADAPTER_CONFIG)
    fields = fields if isinstance(fields, dict) else {}
    kind = {"LORA": "a LoRA adapter"}.get(str(fields.get("peft_type")), "an adapter")
    base = fields.get("base_model_name_or_path")
    return kind, repr(base) if base else "that its adapter_config.json does not name"


def _describe_sentence_encoder(folder: Path) -> str | None:
    """A sentence-transformers folder whose transformer lies in a subfolder; one with it at the top is an ordinary model."""
    modules = _read_json(folder / "modules.json")
    paths = [str(module.get("path", "")) for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    models = [folder / path for path in paths if path and has_files(folder / path, "config.json")]
    what = f"{folder} is a sentence-transformers folder; its transformer lies in a subfolder"
    return f"{what}: open {models[0]}." if models else None


def _describe_other_formats(folder: Path) -> str | None:
    """Weights that are there, but not as model.safetensors or shards with an index."""
    if has_files(folder, SINGLE_FILE) or has_files(folder, INDEX):
        return None
    for describe in (_describe_original_layout, _describe_gguf, _describe_variant, _describe_unindexed_files):
        sentence = describe(folder)
        if sentence:
            return sentence
    if find_pickles(folder):
        return None  # convertible, and `Checkpoint` says how
    if onnx := _find_matching_files(folder, "*.onnx", "onnx/*.onnx"):
        return f"{folder} is an ONNX export ({onnx[0]}) without safetensors weights; open the model that it was exported from."
    if others := _find_matching_files(folder, *OTHER_FRAMEWORKS):
        return (
            f"{folder} holds its weights only for TensorFlow or Flax ({others[0]}); convert them with transformers 4: "
            f"AutoModel.from_pretrained(folder, {'from_flax' if 'flax' in others[0] else 'from_tf'}=True)"
            f".save_pretrained(new_folder)."
        )
    return None


def _describe_original_layout(folder: Path) -> str | None:
    """Weights as Mistral and Meta publish them beside the converted ones."""
    files = _find_matching_files(folder, *ORIGINAL_LAYOUT)
    if not files:
        return None
    return (
        f"{folder} holds its weights in the original layout of Mistral or Meta ({files[0]}), not in Hugging Face layout; "
        f"give the folder of the same model in Hugging Face layout (config.json, {SINGLE_FILE})."
    )


def _describe_gguf(folder: Path) -> str | None:
    """Files of llama.cpp."""
    files = _find_matching_files(folder, "*.gguf")
    if not files:
        return None
    if len(files) == 1:
        return f"{folder} holds its weights only as GGUF ({files[0]}), which is damaged: it does not begin with 'GGUF'."
    return (
        f"{folder} holds its weights only as GGUF, in {len(files)} files, first {files[0]}; "
        f"give one of them: {str(folder / files[0])!r}."
    )


def _describe_variant(folder: Path) -> str | None:
    """Weights saved with `variant="fp16"`, which are found again only by that name."""
    indices = _find_matching_files(folder, "model.safetensors.index.*.json")
    files = _find_matching_files(folder, "model.*.safetensors")
    file, name = (indices[0], INDEX) if indices else (files[0], SINGLE_FILE) if files else (None, None)
    return file and (f"{folder} holds its weights only as a variant ({file}); to use this variant, rename that file to {name}.")


def _describe_unindexed_files(folder: Path) -> str | None:
    """Safetensors files that no index lists."""
    files = [name for name in _find_matching_files(folder, "*.safetensors") if not name.startswith("adapter_")]
    if not files:
        return None
    if len(files) == 1:
        return f"{folder} holds its weights as {files[0]}; rename that file to {SINGLE_FILE}."
    return (
        f"{folder} holds {len(files)} safetensors files, first {files[0]}, but neither {SINGLE_FILE} nor the index {INDEX}; "
        f"download the index too."
    )


def _describe_subfolders(folder: Path) -> str | None:
    """A folder of model folders, such as a trainer's checkpoints."""
    if has_files(folder, "config.json"):
        return None
    models = sorted(path.parent for path in folder.glob("*/config.json"))
    return f"{folder} has no config.json, but its subfolder does: open {models[-1]}, 1 of {len(models)}." if models else None


def _describe_lone_tokenizer(folder: Path) -> str | None:
    """A tokenizer without a model."""
    if has_files(folder, "config.json") or has_files(folder, SINGLE_FILE) or has_files(folder, INDEX):
        return None
    files = [name for name in TOKENIZER_FILES if has_files(folder, name)]
    return (
        f"{folder} holds only a tokenizer ({files[0]}); give a folder with config.json and {SINGLE_FILE} too." if files else None
    )


def _find_matching_files(folder: Path, *patterns: str) -> list[str]:
    """Names of the files of these patterns, in order."""
    return sorted(str(path.relative_to(folder)) for pattern in patterns for path in folder.glob(pattern) if path.is_file())
