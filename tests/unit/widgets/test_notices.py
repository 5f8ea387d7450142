"""Notices show the newest message, keep the others, and forget only beyond their limit."""

from workbench.errors import WorkbenchError
from workbench.widgets.base.notices import Notices, render_alert


def test_a_mistake_is_its_sentence() -> None:
    notices = Notices()
    assert not notices.view.visible
    notices.report(WorkbenchError("group size 7 does not divide 64 columns; use 8."))
    assert notices.view.visible
    assert ">Group size 7 does not divide 64 columns; use 8.</div>" in notices.view[0][0].object
    assert notices.messages == ["group size 7 does not divide 64 columns; use 8."]


def test_what_a_visitor_typed_is_shown_as_it_is() -> None:
    assert "&lt;script&gt; is not a number</div>" in render_alert("<script> is not a number")


def test_dismissing_hides_the_box_and_keeps_every_message() -> None:
    notices = Notices()
    notices.say("first")
    notices.say("second")
    notices.view[0][1].clicks += 1
    assert not notices.view.visible
    assert notices.messages == ["second", "first"]
    notices.say("third")
    assert notices.view.visible


def test_only_the_latest_are_kept() -> None:
    notices = Notices()
    for number in range(Notices.LIMIT + 5):
        notices.say(str(number))
    assert notices.messages == [str(number) for number in range(Notices.LIMIT + 4, 4, -1)]
