"""Places for output: what cannot be written is one sentence before any work."""

import os
from pathlib import Path

import pytest

from workbench.errors import OutputError
from workbench.outputs import check_file, check_folder, explain_os_error


def never(folder: Path) -> bool:
    return False


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each obstacle, the current one."""
    (tmp_path / "file").write_text("content")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    return tmp_path


BOTH = {
    "below-a-file": ("file/below", "file is a file; give a path in a folder"),
    "far-below-a-file": ("file/far/below", "file is a file; give a path in a folder"),
    "below-a-dangling-link": ("dangling/below", "dangling is a link to nowhere, which does not exist"),
    "dangling-link": ("dangling", "dangling is a link to nowhere, which does not exist"),
    "circle-of-links": ("circle", "circle is a link to circle, which does not exist"),
    "long-name": ("n" * 256, r"the name n+… has 256 bytes, but at most 255 are allowed"),
    "long-name-in-signs": ("日" * 100, "has 300 bytes, but at most 255 are allowed"),
    "long-name-above": ("n" * 256 + "/out", "has 256 bytes, but at most 255 are allowed"),
    "long-path": ("/".join(["n" * 200] * 30), "cannot be written: File name too long"),
    "zero-byte": ("a\0b", "contains a zero byte"),
    "unwritable": ("/proc/out", "/proc/out cannot be written: "),
}


@pytest.mark.parametrize("case", BOTH)
def test_a_place_for_neither_file_nor_folder(here: Path, case: str) -> None:
    place, message = BOTH[case]
    if case == "unwritable" and not Path("/proc").is_dir():
        place, message = "dangling", "does not exist"
    before = sorted(here.rglob("*"))
    for check in (check_file, lambda path: check_folder(path, never)):
        with pytest.raises(OutputError, match=message):
            check(place)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("place", "message"),
    [
        pytest.param("file", "file is a file; give a folder", id="file"),
        pytest.param("full", "holds other files; give a new or empty folder", id="full"),
        pytest.param(".", "is the current folder, or contains it", id="current"),
        pytest.param("", "is the current folder, or contains it", id="empty"),
        pytest.param("..", "is the current folder, or contains it", id="above"),
        pytest.param("/", "is the current folder, or contains it", id="root"),
        pytest.param("/dev/null", "is a file; give a folder", id="device"),
    ],
)
def test_a_place_for_no_folder(here: Path, place: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        check_folder(place, never)


def test_a_place_for_no_file(here: Path) -> None:
    with pytest.raises(OutputError, match="full is a folder; give the name of a file"):
        check_file("full")


def test_a_protected_file_is_not_replaced(here: Path) -> None:
    (here / "file").chmod(0o444)
    if os.access(here / "file", os.W_OK):  # root may write anything
        assert check_file("file") == here / "file"
        return
    with pytest.raises(OutputError, match="file is write-protected"):
        check_file("file")


def test_good_places_leave_no_trace(here: Path) -> None:
    (here / "link").symlink_to("full")
    before = sorted(here.rglob("*"))
    assert check_file("new/deep/card.html") == here / "new" / "deep" / "card.html"
    assert check_file("file") == here / "file"
    assert check_folder("n" * 255, never) == here / ("n" * 255)
    assert check_folder("link", lambda folder: True) == here / "full"
    assert check_file("/dev/null") == Path("/dev/null")
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "no space is left for it"),
        (OSError(27, "File too large"), "no space is left for it"),
        (OSError(13, "Permission denied"), "writing is not permitted there"),
        (OSError(30, "Read-only file system"), "writing is not permitted there"),
        (OSError(5, "Input/output error"), "Input/output error; give another path"),
        (OSError("the disk is gone"), "the disk is gone; give another path"),
        (OSError(), "OSError; give another path"),
    ],
)
def test_reasons_say_what_to_do(error: OSError, message: str) -> None:
    assert message in explain_os_error(error)
