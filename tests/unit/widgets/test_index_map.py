"""The map of a codebook's index: windows, clicks and marks."""

import numpy as np
import pytest

import workbench as wb
from workbench.session import Session
from workbench.widgets.method.codebook_microscope import CodebookMicroscope
from workbench.widgets.method.index_map import MapSection


@pytest.fixture
def view(session: Session) -> MapSection:
    """The map of a codebook of signs."""
    session.use(wb.recipe("btc", transform="none"))
    for _ in session.quantize_steps():
        pass
    microscope = CodebookMicroscope(session, threaded=False)
    microscope.section.value = "Index map"
    return microscope["Index map"]


def test_the_map_shows_the_index(view: MapSection) -> None:
    index = view.reading.book.index.numpy()
    np.testing.assert_array_equal(view.pane.content.raster.codes, index)
    counts = np.bincount(index.ravel())
    assert view.frames[0].figure.table["count"][0] == counts.max()
    view.zoom((1, 3, 0, 1))
    np.testing.assert_array_equal(view.pane.content.raster.codes, index[1:4, :2])
    assert "3 × 2 vectors, single vectors" in view.frames[0].answer.object
    view.pane._hear_ranges((-0.4, 1.2), (4.6, 9.2))
    assert view.window.window == (5, 9, 0, 1)
    assert view.pane.content.y == (4.6, 9.2)


def test_a_click_marks_the_code_everywhere(view: MapSection) -> None:
    index = view.reading.book.index
    code = int(index[4, 2])
    view.pane._hear_tap(2.2, 3.9)
    assert view.session.selection.codes == (code,)
    assert view.marks == (code,)
    np.testing.assert_array_equal(view.pane.content.raster.chosen, (index == code).numpy())
    assert f"{int((index == code).sum())} cell" in view.frames[0].answer.object
