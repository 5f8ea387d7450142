"""A raster tells of zooms, but not of what the browser says again about a picture that was just exchanged."""

from typing import Any

import pytest

from workbench.widgets.base import raster_frame
from workbench.widgets.base.raster_frame import ECHO_SECONDS, RasterPane

WHOLE, ZOOMED = (0.0, 100.0), (20.0, 40.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(raster_frame.time, "monotonic", lambda: now[0])
    return now


class Pipe:
    """What a stream takes."""

    data: Any = None

    def send(self, data: Any) -> None:
        self.data = data


def test_what_a_picture_said_before_it_was_exchanged_is_no_zoom(clock: list[float]) -> None:
    zooms: list[Any] = []
    pane = RasterPane(lambda _: None, lambda _: None, zoomed=lambda x, y: zooms.append((x, y)), tapped=lambda *_: None)
    pane.pane = type("Shown", (), {"object": 1})()
    pane._pipe, pane._marks = Pipe(), Pipe()
    pane._hear_ranges(WHOLE, WHOLE)
    assert zooms == [(WHOLE, WHOLE)]
    pane.draw("another picture", None)
    clock[0] += 0.5 * ECHO_SECONDS
    pane._hear_ranges(WHOLE, WHOLE)
    assert zooms == [(WHOLE, WHOLE)], "it was drawn for another place meanwhile"
    pane._hear_ranges(ZOOMED, WHOLE[::-1])
    assert zooms[1:] == [(ZOOMED, WHOLE)], "a new range is a zoom at any time"
    clock[0] += ECHO_SECONDS
    pane._hear_ranges(ZOOMED, WHOLE)
    assert len(zooms) == 3, "and so is the same one later"
