"""The door for JSON that others wrote: limits of the text, typed fields, and sentences that name the place."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import RecipeError, WorkbenchError
from workbench.json_value import LEVELS, MAX_NUMBER_DIGITS, JsonValue, parse, read, wrap_value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", r"the plan is not UTF-8 text \(byte 0\); save it as UTF-8\."),
        (b"\xef\xbb\xbf{}", "the plan begins with a byte order mark; save it as UTF-8 without one"),
        ("\ufeff{}", "the plan begins with a byte order mark"),
        ("", "the plan is not JSON: Expecting value"),
        ("[" * (LEVELS + 1), "the plan is 101 levels deep; at most 100 are read"),
        ('{"a":' * 5000, "the plan is 5,000 levels deep"),
        ("9" * 5000, "the plan holds a number of 5,000 digits; at most 100 are read"),
        ("0." + "1" * 5000, "the plan holds a number of 5,002 digits"),
        ("1e999", "the plan holds the number 1e999, which is out of range for a float"),
        ("[NaN]", "the plan holds NaN, which is not valid JSON; write a number or null"),
        ("[-Infinity]", "the plan holds -Infinity, which is not valid JSON"),
        ('[{"a": 1, "a": 2}]', "the plan has 'a' twice in one object; write it once"),
        (r'["\ud800"]', r"the plan holds \\ud800, half of a surrogate pair"),
        (r'{"\udc00": 1}', r"the plan holds \\udc00, half of a surrogate pair"),
        ("[1" + ",1" * 100, "the plan has more than 100 bytes; only smaller ones are read"),
    ],
    ids=[
        *(
            "not-utf-8",
            "mark",
            "mark-in-text",
            "empty",
            "deep",
            "deep-objects",
            "digits",
            "decimals",
            "beyond",
            "nan",
            "infinity",
        ),
        *("twice", "surrogate", "surrogate-name", "large"),
    ],
)
def test_a_text_that_is_not_read_is_one_sentence(content: bytes | str, said: str) -> None:
    limit = 100 if "more than" in said else 1 << 20
    with pytest.raises(RecipeError, match=said):
        parse(content, "the plan", RecipeError, limit=limit)


def test_what_is_within_the_limits_is_read() -> None:
    assert parse("[" * LEVELS + "]" * LEVELS, "the plan").as_list()
    assert parse('"[[[["', "the plan").as_text() == "[[[["
    assert parse(r'"\"[\\"', "the plan").as_text() == '"[\\'
    assert parse("9" * MAX_NUMBER_DIGITS, "the plan").value == 10**MAX_NUMBER_DIGITS - 1
    assert parse(r'"\ud83d\ude00"', "the plan").as_text() == "😀"


def test_what_other_libraries_write_is_read_where_it_is_asked_for() -> None:
    value = parse('{"a": 1, "a": Infinity, "b": -1e999}', "config.json", foreign=True).value
    assert value == {"a": float("inf"), "b": float("-inf")}


@pytest.mark.parametrize("text", ['"\\"' * 300_000, '"' + '\\"' * 300_000, "[{" * 300_000, "\\" * 600_000, '"a",' * 200_000])
def test_no_text_takes_long_to_refuse(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(WorkbenchError, match="the text"):
        parse(text, "the text")
    assert time.process_time() - begin < 5


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the plan cannot be read \(No such file or directory\); check the path"):
        read(tmp_path / "none.json", "the plan", RecipeError)
    with pytest.raises(WorkbenchError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path)


PLAN = "the plan", RecipeError
VALUE = parse(
    '{"rules": [{"layers": 5, "seed": -1, "share": "much", "on": 1, "list": {}, "none": null}]}', "the plan", RecipeError
)


@pytest.mark.parametrize(
    ("read_field", "said"),
    [
        (lambda v: v.get("layers").as_text(), r"the plan: rules\[0\]\.layers is 5; it must be text\."),
        (lambda v: v.get("seed").as_whole(), r"rules\[0\]\.seed is -1; it must be a whole number from 0\."),
        (lambda v: v.get("seed").as_whole(0, 3), r"seed is -1; it must be a whole number from 0 to 3\."),
        (lambda v: v.get("on").as_truth(), r"rules\[0\]\.on is 1; it must be true or false\."),
        (lambda v: v.get("share").as_number(), r"rules\[0\]\.share is 'much'; it must be a number\."),
        (lambda v: v.get("seed").as_number(0, 1), r"seed is -1; it must be a number from 0 to 1\."),
        (lambda v: v.get("share").as_choice(["all", "none"]), r"share is 'much'; it must be one of all, none\."),
        (lambda v: v.get("list").elements(), r"rules\[0\]\.list is \{\}; it must be a list\."),
        (lambda v: v.get("none").as_scalar(), r"none is null; it must be text, a number, true or false\."),
        (lambda v: v.get("share").get("x"), r"rules\[0\]\.share is 'much'; it must be an object\."),
        (lambda v: v.get("recipe", "a rule needs it"), r"the plan: rules\[0\] has no 'recipe'; a rule needs it\."),
        (lambda v: v.check_names("layers"), r"rules\[0\] has the unknown field 'seed'; its fields are layers\."),
        (lambda v: v.check_version("plan", 1, 2), r"plan without a version is not known here; .* reads version 1 and 2\."),
    ],
    ids=[
        *("text", "whole", "range", "truth", "number", "number-range", "choice", "list", "scalar", "object"),
        *("missing", "unknown", "version"),
    ],
)
def test_a_field_of_another_type_is_named_by_its_place(read_field: Callable[[JsonValue], Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_field(VALUE.get("rules").elements()[0])


def test_a_boolean_is_no_number() -> None:
    for wrong in (JsonValue.as_whole, JsonValue.as_number):
        with pytest.raises(WorkbenchError, match="the value is true; it must be a"):
            wrong(wrap_value(True, "the value"))


def test_null_is_allowed_where_it_is_optional() -> None:
    assert wrap_value(None, "the value").as_optional(JsonValue.as_number) is None
    assert wrap_value(2, "the value").as_optional(JsonValue.as_number) == 2


def test_a_sentence_stays_short() -> None:
    for value in ("x" * 10**6, ["x" * 1000] * 1000, {"a" * 1000: {"b": ["c"] * 1000}}, 10**90):
        with pytest.raises(WorkbenchError) as caught:
            wrap_value(value, "the value").as_truth()
        assert len(str(caught.value)) < 500
