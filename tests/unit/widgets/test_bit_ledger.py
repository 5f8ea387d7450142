"""The ledger tab: bars, the way from nominal to stored, the tree, and bytes counted on disk."""

import pytest

from workbench.session import Session
from workbench.widgets.decisions.bit_ledger import MODEL, LedgerView


def test_nothing_stored_is_a_sentence(session: Session) -> None:
    view = LedgerView(session, threaded=False)
    assert view.check.disabled
    for frame in (view.frame, view.bridge, view.tree):
        assert "press Quantize this layer" in frame.answer.object
    view.scope.value = MODEL
    assert "press Quantize the whole model" in view.tree.answer.object


@pytest.mark.parametrize("scope", ["this layer", MODEL])
def test_what_is_stored_is_explained_and_counted(session: Session, scope: str) -> None:
    for _ in session.quantize_model_steps() if scope == MODEL else session.quantize_steps():
        pass
    view = LedgerView(session, threaded=False)
    view.scope.value = scope
    found = session.quantized_model if scope == MODEL else session.result
    assert view.bridge.figure.table["bits_per_weight"].iloc[-1] == pytest.approx(found.bits_per_weight)
    assert view.tree.figure.table["bits"].iloc[0] == pytest.approx(found.ledger.total_bits)
    assert view.disk.object == ""
    view.check.clicks += 1
    assert view.notices.messages == []
    assert "the ledger adds up to the same" in view.disk.object
    session.use(session.recipe.__class__.from_dict({**session.recipe.to_dict(), "name": "another"}))
    view.live.announce("choice")
    assert (view.disk.object == "") == (scope == "this layer"), "what was counted belongs to its result"
