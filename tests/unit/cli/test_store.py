"""`store` lists, verifies and prunes what is kept."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.unit.cli.conftest import Said
from workbench.models import ModelHandle
from workbench.store import Store


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builtin: ModelHandle) -> Store:
    """A cache with two entries, a saved model and what a killed process left."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    place = Store()
    place.put("aa", {"data": torch.zeros(1000)}, kind="calibration", what="builtin: 42 layers")
    place.put("bb", {"data": torch.zeros(10)}, kind="sketch", what="a matrix")
    wb.save(wb.quantize_model(builtin, wb.recipe("rtn", bits=2), layers="*.0.*q_proj"), place.model("mm"), builtin)
    (place.path("aa").parent / ".aa.workbench-0.partial").write_bytes(bytes(10))
    return place


def test_the_list(command: Callable[..., Said], place: Store) -> None:
    facts = json.loads(command("store", "--json").out)
    assert set(facts) == {"folder", "bytes", "limit_bytes", "removed_bytes", "damaged", "items"}
    assert sorted(item["kind"] for item in facts["items"]) == ["calibration", "model", "partial", "sketch"]
    assert all(set(item) == {"kind", "bytes", "days", "what", "name"} for item in facts["items"])
    assert facts["bytes"] == sum(path.stat().st_size for path in place.folder.rglob("*") if path.is_file())
    said = command("store")
    assert said.status == 0
    assert "builtin: 42 layers" in said.out
    assert f"{facts['bytes']:,} bytes of at most 4,294,967,296 in {place.folder}: " in said.out


def test_an_empty_folder(command: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "nothing"))
    for words in ([], ["--verify"], ["--prune"]):
        said = command("store", *words)
        assert said.status == 0
        assert "0 bytes of at most 4,294,967,296" in said.out
    assert not (tmp_path / "nothing").exists()


def test_damage_is_found_and_removed(command: Callable[..., Said], place: Store) -> None:
    assert "no damage found" in command("store", "--verify").out
    for path in (place.path("aa"), place.model("mm") / "packed.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    said = command("store", "--verify")
    assert said.status == 1
    assert "damaged: calibration aa.safetensors: its content does not match its digest" in said.out
    assert "damaged: model mm: " in said.out
    assert command("store", "--verify", "--prune").status == 0
    left = json.loads(command("store", "--verify", "--json").out)
    assert [item["kind"] for item in left["items"]] == ["sketch"]
    assert left["damaged"] == []


def test_pruning_by_age_and_by_size(command: Callable[..., Said], place: Store) -> None:
    os.utime(place.path("aa"), (1, 1))
    facts = json.loads(command("store", "--prune", "--older-than", 30, "--json").out)
    assert sorted(item["kind"] for item in facts["items"]) == ["model", "sketch"]
    assert facts["removed_bytes"] > 4000
    assert json.loads(command("store", "--prune", "--limit", 0, "--json").out)["items"] == []


def test_limits_need_prune(command: Callable[..., Said]) -> None:
    said = command("store", "--older-than", 3)
    assert said.status == 2
    assert "need --prune; add it" in said.err
