"""The built-in stories, and text from files."""

from pathlib import Path

import pytest

from workbench.errors import ModelError
from workbench.models import ModelHandle, open_model
from workbench.models.text import SHIPPED_TEXTS, Text, text
from workbench.models.written_text import write_text


@pytest.mark.parametrize(("name", "least"), [("calibration", 36), ("evaluation", 28)])
def test_the_built_in_stories_are_plain_short_and_many(name: str, least: int) -> None:
    stories = text(name)
    assert stories.name == name
    assert len(set(stories.documents)) == len(stories.documents) >= least
    for story in stories.documents:
        assert story.isascii()
        assert 80 <= len(story.split()) <= 200


def test_calibration_and_evaluation_share_no_sentence() -> None:
    lines = [{line for story in text(name).documents for line in story.split("\n")} for name in ("calibration", "evaluation")]
    assert not lines[0] & lines[1]


def test_the_calibration_stories_are_enough_for_the_default(builtin: ModelHandle) -> None:
    assert sum(builtin.encode(story).shape[1] for story in text("calibration").documents) >= 16_384


@pytest.mark.shared
def test_no_built_in_story_comes_from_the_data_folder(data_folder: Path) -> None:
    known = (data_folder / "tinystories" / "stories.txt").read_text() + (
        data_folder / "tinystories" / "train_sample.txt"
    ).read_text()
    sentences = [line for name in ("calibration", "evaluation") for story in text(name).documents for line in story.split("\n")]
    assert [line for line in sentences if line in known] == []


def test_a_file_is_split_at_its_separators(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("One.\n<|endoftext|>\n\n<|endoftext|>\nTwo ☃.\n", encoding="utf-8")
    assert text(path) == Text("mine.txt", ("One.", "Two ☃."))
    assert text(str(path)).documents == ("One.", "Two ☃.")


def test_texts_add_up_and_fingerprints_tell_them_apart() -> None:
    one, two = Text("one", ("a", "b")), Text("two", ("c",))
    assert one + two == Text("one + two", ("a", "b", "c"))
    assert Text("renamed", ("a", "b")).fingerprint == one.fingerprint
    assert len({t.fingerprint for t in (one, two, one + two, Text("one", ("a", "B")))}) == 4
    assert Text("one", ("a<|endoftext|>b",)).fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(None, "no text file .*; use 'calibration', 'evaluation', 'written', 'prose' or the path", id="missing"),
        pytest.param(b"", "text 'mine.txt' is empty", id="empty"),
        pytest.param(b" \n<|endoftext|>\n", "text 'mine.txt' is empty", id="only-separators"),
        pytest.param(b"abc\xff", r"is not UTF-8 text \(byte 3\)", id="not-utf-8"),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        text(path)


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    """Windows begins UTF-8 files with one."""
    story = "Once upon a time.\n<|endoftext|>\nThe end."
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / f"{encoding}.txt").write_text(story, encoding=encoding)
    with_mark, without = text(tmp_path / "utf-8-sig.txt"), text(tmp_path / "utf-8.txt")
    assert with_mark.documents == without.documents
    assert with_mark.fingerprint == without.fingerprint


def test_shipped_texts_have_documents_of_their_own() -> None:
    texts = {name: text(name) for name in SHIPPED_TEXTS}
    assert [len(one.documents) for one in texts.values()] == [45, 30, 25, 16]
    documents = [document for one in texts.values() for document in one.documents]
    assert len(set(documents)) == len(documents)


@pytest.mark.complete
def test_the_written_text_is_what_the_model_writes() -> None:
    written = write_text(open_model("builtin"), 8000, seed=20_000)
    assert [document.strip() for document in written.documents] == list(text("written").documents)
