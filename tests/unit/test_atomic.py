"""Files and folders appear complete or not at all, and what killed processes left goes."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from workbench import atomic
from workbench.atomic import remove_abandoned, write_file, write_folder, write_large_file
from workbench.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def anything(folder: Path) -> bool:
    return True


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "plan.json"
    assert write_file(place, "ß−\n") == place
    assert place.read_bytes() == "ß−\n".encode()
    write_file(place, b"two")
    assert place.read_bytes() == b"two"
    assert names(place.parent) == ["plan.json"]


def test_a_file_has_the_rights_of_a_new_one_or_of_the_older_one(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "new", b"")
        with write_folder(tmp_path / "folder", anything):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    (tmp_path / "new").chmod(0o600)
    write_file(tmp_path / "new", b"again")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "card.html").write_text("old")
    (tmp_path / "card.html").symlink_to(tmp_path / "real" / "card.html")
    write_file(tmp_path / "card.html", "new")
    assert (tmp_path / "card.html").is_symlink()
    assert (tmp_path / "real" / "card.html").read_text() == "new"
    (tmp_path / "out").symlink_to("folder")
    (tmp_path / "folder").mkdir()
    with write_folder(tmp_path / "out", anything) as partial:
        (partial / "a").write_text("a")
    assert (tmp_path / "out").is_symlink()
    assert names(tmp_path / "folder") == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_file(tmp_path / "pipe", "through")
    reader.join(20)
    assert seen == ["through"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


LIMITED = """
import resource, sys
from workbench.atomic import write_file
from workbench.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_file(sys.argv[1], b"x" * 10_000)
except OutputError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_leaves_the_older_file(tmp_path: Path) -> None:
    place = tmp_path / "card.html"
    place.write_text("old")
    said = subprocess.run([sys.executable, "-c", LIMITED, str(place)], capture_output=True, text=True, check=False)
    assert said.stderr.startswith(f"{place} cannot be written: no space is left for it")
    assert said.stderr.count("\n") == 1
    assert place.read_text() == "old"
    assert names(tmp_path) == ["card.html"]


def test_a_large_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "model.gguf"
    with write_large_file(place) as partial:
        partial.write_bytes(b"one")
        assert not place.exists()
    with pytest.raises(ZeroDivisionError, match="division"), write_large_file(place) as partial:
        partial.write_bytes(b"%d" % (1 // 0))
    assert names(place.parent) == ["model.gguf"]
    assert place.read_bytes() == b"one"
    with write_large_file(place) as partial:
        partial.write_bytes(b"two")
    assert place.read_bytes() == b"two"
    assert names(place.parent) == ["model.gguf"]
    with pytest.raises(OutputError, match="is a folder; give the name of a file"), write_large_file(tmp_path):
        pass


KILLED = """
import os, sys, time
from pathlib import Path
from workbench.atomic import write_folder
with write_folder(Path(sys.argv[1]), lambda folder: True) as partial:
    (partial / "half").write_bytes(bytes(1000))
    print("writing", flush=True)
    time.sleep(60)
"""


def test_the_next_one_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / name)], stdout=subprocess.PIPE)
        for name in ("dead", "live")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
    (tmp_path / ".film.mp4.partial").mkdir()  # another program's
    writers[0].kill()
    writers[0].wait()
    assert len(atomic.list_partials(tmp_path)) == 2
    with write_folder(tmp_path / "out", anything) as partial:
        (partial / "a").write_text("a")
    left = names(tmp_path)
    writers[1].kill()
    writers[1].wait()
    assert [name.split(".workbench-")[0] for name in left] == [".film.mp4.partial", ".live", "out"]
    assert remove_abandoned(tmp_path) == 1000
    assert names(tmp_path) == [".film.mp4.partial", "out"]
    for writer in writers:
        writer.stdout.close()  # type: ignore[union-attr]


def test_without_locks_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "fcntl", None)
    for name, age in (("young", 60), ("old", 2 * atomic.DAY)):
        path = tmp_path / f".{name}.workbench-0{atomic.PARTIAL}"
        path.write_bytes(bytes(10))
        os.utime(path, (time.time() - age,) * 2)
    write_file(tmp_path / "file", b"")  # works without locks too
    assert remove_abandoned(tmp_path) == 10
    assert names(tmp_path) == [".young.workbench-0.partial", "file"]


def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    old = tmp_path / f".out.workbench-0{atomic.OLD}"
    old.mkdir()
    (old / "a").write_text("older")
    with pytest.raises(RuntimeError, match="interrupted"), write_folder(tmp_path / "out", anything):
        raise RuntimeError("interrupted")
    assert (tmp_path / "out" / "a").read_text() == "older"
    assert names(tmp_path) == ["out"]


def test_nothing_is_written_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with pytest.raises(OutputError, match="is a file"), write_folder(tmp_path / "file" / "below", anything):
        pytest.fail("the block was entered")
    with pytest.raises(OutputError, match="is a file"):
        write_file(tmp_path / "file" / "below", b"")
    assert names(tmp_path) == ["file"]
