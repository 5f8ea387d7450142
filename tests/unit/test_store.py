"""The store: whole entries or none, keys that follow content, a size limit, and many processes at once."""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from workbench import atomic, store
from workbench.errors import WorkbenchError
from workbench.store import Store, StoreWarning


def fill(place: Store, key: str, size: int = 1000) -> None:
    place.put(key, {"data": torch.zeros(size, dtype=torch.uint8)})


def test_what_was_put_is_got(tmp_path: Path) -> None:
    place, key = Store(tmp_path), store.compute_key("stats", "abc", 16_384, 0)
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
    assert store.compute_key(*left) != store.compute_key(*right)


def test_keys_are_equal_where_content_is_equal() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    assert store.compute_key({"a": 1, "b": 2}, matrix) == store.compute_key({"b": 2, "a": 1}, matrix.T.contiguous().T)
    assert len(store.compute_key()) == 64


@pytest.mark.parametrize("part", [object(), float("nan"), {1, 2}], ids=["object", "nan", "set"])
def test_parts_without_content_are_refused(part: object) -> None:
    with pytest.raises(WorkbenchError, match="cannot be part of a key; use JSON values, bytes or tensors"):
        store.compute_key(part)


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
    with pytest.warns(StoreWarning, match="cannot be written .the disk is gone"):
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


def test_no_changed_bit_gives_another_entry(tmp_path: Path) -> None:
    place, tensor = Store(tmp_path), torch.arange(40, dtype=torch.float32)
    place.put("aa", {"x": tensor, "y": tensor[:3].half()}, {"turn": 1}, kind="layer", what="the first")
    path = place.path("aa")
    data, harmless = path.read_bytes(), 0
    for number in range(len(data)):
        changed = bytearray(data)
        changed[number] ^= 1 << number % 8
        path.write_bytes(changed)
        if (entry := place.get("aa")) is not None:  # a space in the header that no reader looks at
            harmless += 1
            assert entry.facts == {"turn": 1}
            assert torch.equal(entry.tensors["x"], tensor)
    assert harmless < len(data) / 10


def test_a_changed_bit_would_be_seen_by_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the test above: without digests a changed bit is another tensor."""
    monkeypatch.setattr(store, "compute_digest", lambda *_: "same")
    place = Store(tmp_path)
    place.put("aa", {"x": torch.zeros(40)})
    data = bytearray(place.path("aa").read_bytes())
    data[-1] ^= 1
    place.path("aa").write_bytes(data)
    entry = place.get("aa")
    assert entry is not None
    assert not torch.equal(entry.tensors["x"], torch.zeros(40))


def test_an_entry_under_another_key_is_none(tmp_path: Path) -> None:
    place = Store(tmp_path)
    fill(place, "aa")
    place.path("bb").parent.mkdir()
    place.path("aa").rename(place.path("bb"))
    assert place.get("bb") is None


def test_what_cannot_be_kept_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = Store(tmp_path / "file" / "cache")
    with pytest.warns(StoreWarning, match="cache cannot be written .*results are not cached; set WORKBENCH_CACHE"):
        fill(place, "aa")
    for turn in range(1000):  # one warning is enough
        assert place.get(f"{turn:04}") is None
        fill(place, f"{turn:04}", size=1)
    assert list(place.items()) == []
    assert place.prune() == 0
    assert not place.model("aa").exists()


FULL = """
import resource, sys, torch, warnings
from workbench.store import Store
place = Store(sys.argv[1])
place.put("aa", {"data": torch.zeros(100, dtype=torch.uint8)})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for key in ("bb", "cc", "aa"):
    place.put(key, {"data": torch.ones(10_000, dtype=torch.uint8)})
assert place.get("bb") is None
assert len(place.get("aa").tensors["data"]) == 100, "the older entry was lost"
"""


@pytest.mark.skipif(os.name != "posix", reason="this system has no limit on the size of files")
def test_a_full_disk_is_one_warning_and_loses_nothing(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-W", "always", "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("StoreWarning") == 1
    assert "no space is left for it" in said.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["aa.safetensors"]


READ_ONLY = """
import os, sys, torch, warnings
from pathlib import Path
from workbench.store import Store, StoreWarning
place = Store(sys.argv[1])
place.put("aa", {"data": torch.ones(3)})
for path in (*Path(sys.argv[1]).rglob("*"), Path(sys.argv[1])):
    path.chmod(0o555 if path.is_dir() else 0o444)
if os.getuid() == 0:
    os.setuid(65534)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    assert place.get("aa") is not None, "a folder that is only read is still read"
    assert not seen
    place.put("ab", {"data": torch.ones(3)})
    place.put("aa", {"data": torch.ones(3)})
assert [one.category for one in seen] == [StoreWarning], seen
assert "writing is not permitted there" in str(seen[0].message)
"""


@pytest.mark.skipif(os.name != "posix", reason="this system knows no folder that is only read")
def test_a_folder_that_is_only_read_is_read(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        cache = Path(folder) / "cache"
        said = subprocess.run([sys.executable, "-c", READ_ONLY, str(cache)], capture_output=True, text=True, check=False)
        for path in (cache, *cache.rglob("*")):
            path.chmod(0o755)
    assert said.returncode == 0, said.stderr


def test_everything_is_listed_by_kind(tmp_path: Path) -> None:
    place = Store(tmp_path)
    place.put("aa", {}, {}, kind="calibration", what="builtin on 64 tokens")
    place.put("ab", {"data": torch.zeros(3)})
    place.path("ab").write_bytes(b"damaged")
    place.model("mm").mkdir(parents=True)
    (place.model("mm") / "packed.safetensors").write_bytes(bytes(1000))
    (place.path("aa").parent / ".aa.workbench-0.partial").write_bytes(bytes(10))
    items = {item.path.name: item for item in place.items()}
    assert {name: item.kind for name, item in items.items()} == {
        "aa.safetensors": "calibration",
        "ab.safetensors": "damaged",
        "mm": "model",
        ".aa.workbench-0.partial": "partial",
    }
    assert items["aa.safetensors"].what == "builtin on 64 tokens"
    assert (items["mm"].size, items[".aa.workbench-0.partial"].size) == (1000, 10)
    assert place.damage(items["aa.safetensors"]) is None
    assert place.damage(items["ab.safetensors"]) is not None


def test_abandoned_partials_are_pruned_and_those_at_work_stay(tmp_path: Path) -> None:
    place = Store(tmp_path)
    fill(place, "aa")
    (place.path("aa").parent / ".aa.workbench-0.partial").write_bytes(bytes(10))
    (tmp_path / "models" / ".mm.workbench-0.partial").mkdir(parents=True)
    at_work, handle = atomic.create(place.path("aa"))
    try:
        assert place.prune() == 10
        assert {item.path for item in place.items()} == {place.path("aa"), at_work}
    finally:
        os.close(handle)


def test_what_was_not_used_for_long_is_pruned(tmp_path: Path) -> None:
    place = Store(tmp_path)
    for key in ("aa", "ab"):
        fill(place, key)
    os.utime(place.path("aa"), (1, 1))
    size = place.path("aa").stat().st_size
    assert place.prune(unused_for=3600) == size
    assert [item.path.stem for item in place.items()] == ["ab"]
    assert place.prune(limit_bytes=0) == size
    assert list(place.items()) == []
