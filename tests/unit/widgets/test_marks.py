"""Marks by number go to the selection and come back, and what is no number is a sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.session import Session
from workbench.widgets.base.live import Live
from workbench.widgets.base.marks import ChannelInput, RowInput, format_numbers, list_brushed_points, parse_numbers


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 5000)))
def test_numbers_come_back_as_they_were_spelled(marks: set[int]) -> None:
    assert parse_numbers(format_numbers(marks)) == sorted(marks)


def test_ranges_and_blanks() -> None:
    assert parse_numbers(" 17, 40-43 ,, 5 – 6; 2") == [17, 40, 41, 42, 43, 5, 6, 2]
    assert format_numbers([43, 41, 40, 42, 17]) == "17, 40-43"
    assert format_numbers([]) == ""


@pytest.mark.parametrize("text", ["many", "3-", "-3", "4.5", "9-3", "0-99999"])
def test_what_is_no_number_is_explained(text: str) -> None:
    with pytest.raises(WorkbenchError, match="write numbers and ranges|is empty or longer"):
        parse_numbers(text)


def test_typed_marks_reach_the_selection_and_every_field(session: Session) -> None:
    live = Live(session)
    first, second, rows = ChannelInput(live), ChannelInput(live), RowInput(live)
    first.field.value = "3, 5-7"
    assert session.selection.channels == (3, 5, 6, 7)
    assert second.field.value == "3, 5-7"
    assert rows.field.value == ""
    second.field.value = ""
    assert session.selection.channels == ()
    assert first.field.value == ""


@pytest.mark.parametrize(("text", "said"), [("x", "is not a number"), ("64", "has 64 channels, 0 to 63")])
def test_a_mistake_is_a_notice_and_the_field_says_what_holds(session: Session, text: str, said: str) -> None:
    view = ChannelInput(session)
    view.field.value = "3"
    view.field.value = text
    assert said in view.notices.messages[0]
    assert (view.field.value, session.selection.channels) == ("3", (3,))


def test_fields_wait_for_no_preview(session: Session) -> None:
    view = ChannelInput(session)
    view.live.waiting = True
    view.live.mark(channels=[3])
    view.live.announce("choice")
    assert view.field.value == "3"
    assert view.view.styles.get("opacity", "1") == "1"


@pytest.mark.parametrize("event", [None, {}, {"points": []}], ids=str)
def test_an_empty_box_holds_nothing(event: object) -> None:
    class Event:
        new = event

    assert list_brushed_points(Event()) == []
