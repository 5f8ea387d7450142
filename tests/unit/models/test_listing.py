"""The stored list of layers: the same as that of an opened model, and only where the folder is as it was."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import write_model
from workbench import models
from workbench.errors import ModelError, WorkbenchWarning
from workbench.models import listing
from workbench.models.listing import list_layers
from workbench.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model("llama", tmp_path / "model")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What has been opened since."""
    sources: list[Any] = []
    real = models.open_model

    def record(source: Any, **options: Any) -> Any:
        sources.append(source)
        return real(source, **options)

    monkeypatch.setattr(models, "open_model", record)
    return sources


def test_listed_again_nothing_is_opened(folder: Path, tmp_path: Path, opened: list[Any]) -> None:
    store = Store(tmp_path / "store")
    first = list_layers(str(folder), store)
    assert opened == [str(folder)]
    assert list_layers(str(folder), store) == first
    assert opened == [str(folder)]
    handle = models.open_model(str(folder))
    assert first["layers"] == handle.layers().to_dict("records")
    assert (first["blocks"], first["optional"]) == (len(handle.block_names), handle.optional_names)
    assert [item.kind for item in store.items()] == ["layers"]


def change_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1, "rope_theta": 1.5}))


def write_weights_again(folder: Path) -> None:
    file = folder / "model.safetensors"
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    before = file.stat()
    with file.open("r+b") as stream:
        stream.truncate(before.st_size - 4)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def rename_in_header(folder: Path) -> None:
    """Another name of the same length, at the same size and time."""
    file = folder / "model.safetensors"
    before, data = file.stat(), file.read_bytes()
    file.write_bytes(data.replace(b"q_proj", b"p_proj", 1))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.filterwarnings("ignore:.*num_hidden_layers")
@pytest.mark.parametrize("change", [change_configuration, write_weights_again, cut_weights, rename_in_header])
def test_a_changed_folder_is_opened(folder: Path, tmp_path: Path, opened: list[Any], change: Any) -> None:
    store = Store(tmp_path / "store")
    list_layers(str(folder), store)
    change(folder)
    if change in (cut_weights, rename_in_header):
        with pytest.raises(ModelError, match="damaged|lacks|no weight"):
            list_layers(str(folder), store)
    else:
        list_layers(str(folder), store)
    assert len(opened) == 2


def test_another_transformers_is_asked(folder: Path, tmp_path: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    list_layers(str(folder), Store(tmp_path / "store"))
    monkeypatch.setattr(listing, "version", lambda library: f"another {library}")
    list_layers(str(folder), Store(tmp_path / "store"))
    assert len(opened) == 2


def test_a_warning_is_said_each_time(folder: Path, tmp_path: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    shutil.copy(folder / "model.safetensors", folder / "adapter_model.safetensors")
    for _ in range(2):
        with pytest.warns(WorkbenchWarning, match="beside the base model"):
            list_layers(str(folder), Store(tmp_path / "store"))


@pytest.mark.parametrize("source", ["a\0b", "~nobody-of-this-name/model", "x" * 5000], ids=["nul", "no-such-user", "long"])
def test_what_is_no_folder_is_left_to_opening(source: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(), pytest.raises(ModelError, match="cannot be opened|there is no folder"):
        list_layers(source, Store(tmp_path / "store"))
