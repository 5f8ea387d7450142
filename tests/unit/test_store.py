"""The store: whole entries or none, keys that follow content, a size limit, and many processes at once."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workbench import store
from workbench.errors import WorkbenchError
from workbench.store import Store


def fill(place: Store, key: str, size: int = 1000) -> None:
    place.put(key, {"data": torch.zeros(size, dtype=torch.uint8)})


def test_what_was_put_is_got(tmp_path: Path) -> None:
    place, key = Store(tmp_path), store.key("stats", "abc", 16_384, 0)
    tensors = {"moment": torch.randn(3, 3), "codes": torch.arange(5, dtype=torch.uint8), "scale": torch.ones(2, 3).half().T}
    assert place.get(key) is None
    place.put(key, tensors, {"tokens": 16_384, "text": "calibration"})
    entry = place.get(key)
    assert entry is not None
    assert entry.facts == {"tokens": 16_384, "text": "calibration"}
    assert set(entry.tensors) == set(tensors)
    for name, tensor in tensors.items():
        torch.testing.assert_close(entry.tensors[name], tensor, rtol=0, atol=0)


def test_put_replaces(tmp_path: Path) -> None:
    place = Store(tmp_path)
    place.put("ab", {}, {"turn": 1})
    place.put("ab", {}, {"turn": 2})
    entry = place.get("ab")
    assert entry is not None
    assert entry.facts == {"turn": 2}


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    Store(tmp_path).put("ab", {"x": torch.ones(2)})
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ab.safetensors"]


DIFFERENT = {
    "order": (("a", "b"), ("b", "a")),
    "boundaries": ((b"a", b"b"), (b"abytesb",)),
    "kinds": ((b"1",), (1,)),
    "types": ((torch.zeros(2),), (torch.zeros(2, dtype=torch.int32),)),
    "shapes": ((torch.zeros(2, 3),), (torch.zeros(3, 2),)),
    "values": ((torch.zeros(2),), (torch.tensor([0.0, 1.0]),)),
    "settings": (({"bits": 2},), ({"bits": 3},)),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_keys_differ_where_content_differs(case: str) -> None:
    left, right = DIFFERENT[case]
    assert store.key(*left) != store.key(*right)


def test_keys_are_equal_where_content_is_equal() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    assert store.key({"a": 1, "b": 2}, matrix) == store.key({"b": 2, "a": 1}, matrix.T.contiguous().T)
    assert len(store.key()) == 64


@pytest.mark.parametrize("part", [object(), float("nan"), {1, 2}], ids=["object", "nan", "set"])
def test_parts_without_content_are_refused(part: object) -> None:
    with pytest.raises(WorkbenchError, match="cannot be part of a key; use JSON values, bytes or tensors"):
        store.key(part)


def test_the_oldest_unused_entries_go_first(tmp_path: Path) -> None:
    place = Store(tmp_path, limit_bytes=4200)
    for key in ("aa", "bb", "cc"):
        fill(place, key)
    assert place.get("aa") is not None  # used again, so that bb is the oldest
    fill(place, "dd")
    assert [place.get(key) is not None for key in ("aa", "bb", "cc", "dd")] == [True, False, True, True]


def test_what_was_just_stored_is_never_pruned(tmp_path: Path) -> None:
    place = Store(tmp_path, limit_bytes=10)
    fill(place, "aa")
    assert place.get("aa") is not None


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"\xff" * len(data), lambda data: b""], ids=["truncated", "garbage", "empty"]
)
def test_a_damaged_entry_counts_as_missing(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    place = Store(tmp_path)
    fill(place, "aa")
    place.path("aa").write_bytes(damage(place.path("aa").read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert place.get("aa") is None
    assert "is damaged" in caplog.text
    assert not place.path("aa").exists()


def test_a_failed_write_leaves_the_old_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Store(tmp_path)
    place.put("aa", {}, {"turn": 1})
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
    with pytest.raises(OSError, match="the disk is gone"):
        place.put("aa", {}, {"turn": 2})
    entry = place.get("aa")
    assert entry is not None
    assert entry.facts == {"turn": 1}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["aa.safetensors"]


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "here"))
    assert Store().folder == tmp_path / "here"
    assert Store(tmp_path / "there").folder == tmp_path / "there"


WRITER = """
import sys, torch
from workbench.store import Store
place = Store(sys.argv[1])
for turn in range(60):
    place.put("aa", {"data": torch.full((5000,), float(turn))}, {"turn": turn})
    entry = place.get("aa")
    assert entry is not None, "an entry was seen half written"
    assert bool((entry.tensors["data"] == entry.facts["turn"]).all()), "two writers were mixed"
print(sys.argv[2])
"""


def test_two_processes_share_one_folder(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["aa.safetensors"]


def test_saved_models_are_pruned_like_entries(tmp_path: Path) -> None:
    place = Store(tmp_path, limit_bytes=3500)
    for name in ("old", "new"):
        place.model(name).mkdir(parents=True)
        (place.model(name) / "packed.safetensors").write_bytes(bytes(1000))
    os.utime(place.folder / "models" / "new", ns=(1, 1))
    os.utime(place.folder / "models" / "old", ns=(1, 1))
    assert place.model("old").is_dir(), "asking for it counts as using it"
    fill(place, "ab", 2000)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["old"]
    assert place.get("ab") is not None
