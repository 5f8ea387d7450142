"""Linked components in documents of their own change each other without handing over what belongs to one of them."""

import panel as pn
import pytest
from bokeh.document import Document
from panel.io.state import set_curdoc

import workbench as wb
from workbench.session import SharedModel
from workbench.widgets.panel_patches.linked_documents import leave_cell_document


def test_a_cells_document_is_left_and_taken_up_again() -> None:
    document = Document()
    with set_curdoc(document):
        with leave_cell_document():
            assert pn.state.curdoc is None
        assert pn.state.curdoc is document


def test_a_served_page_stays_in_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document()
    monkeypatch.setattr(Document, "session_context", object())
    with set_curdoc(document), leave_cell_document():
        assert pn.state.curdoc is document


def test_a_linked_component_is_redrawn_outside_of_the_cell_that_changed_it(
    shared: SharedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = wb.LayerBench(shared, threaded=False)
    ledger, documents = wb.LedgerView(bench, threaded=False), []
    monkeypatch.setattr(ledger, "refresh", lambda: documents.append(pn.state.curdoc))
    with set_curdoc(Document()):  # as while an event of the bench's cell is handled
        bench.one.param.trigger("clicks")
    assert documents
    assert set(documents) == {None}
