"""Pictures of a block over the tokens of a text: what they show is what was read, and of nothing else."""

import numpy as np
import pytest

import workbench as wb
from workbench.models import ModelHandle
from workbench.session import Session
from workbench.views.token_text import quote_token
from workbench.widgets.predictions.attention_raster import AttentionRaster
from workbench.widgets.predictions.cache_raster import CacheRaster
from workbench.widgets.predictions.token_raster import TokenRaster

QUERY = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def model() -> ModelHandle:
    return wb.open_model("builtin")


@pytest.fixture
def session(model: ModelHandle) -> Session:
    session = Session(model)
    session.select(QUERY)
    return session


def open_view(kind: type[TokenRaster], session: Session) -> TokenRaster:
    view = kind(session, threaded=False)
    view.tokens.value = 24
    view.read()
    assert view.notices.messages == []
    return view


def test_a_head_is_shown_with_its_tokens(session: Session) -> None:
    view = open_view(AttentionRaster, session)
    view.head.value = 5
    picture = view.pane.content
    np.testing.assert_array_equal(picture.raster.values, view.readings.original.attention[5].numpy())
    assert picture.names.row_labels == tuple(map(quote_token, view.readings.original.tokens))
    assert view.frame.figure.question == "Which tokens does each token attend to?"
    assert view.frame.figure.answer.startswith("Head 5 of 8 in block 1: over 23 tokens after the first, ")
    assert {"query_token", "key_token", "attention"} <= set(view.frame.figure.table)
    view.head.value = 99
    assert view.head.value == 7, "the last head"
    view.what.value = "difference"
    assert "Nothing is quantized yet" in view.frame.answer.object
    assert not view.pane.box.visible


def test_the_quantized_model_reads_the_same_tokens(session: Session) -> None:
    session.take(wb.quantize_model(session.model, wb.recipe("rtn", bits=2), layers="*.0.*"))
    view = open_view(AttentionRaster, session)
    before, after = view.readings.original, view.readings.quantized
    assert after.tokens == before.tokens
    view.what.value = "difference"
    change = (after.attention[0] - before.attention[0]).numpy()
    assert np.abs(change).max() > 0.01, "block 0 is quantized, so block 1 sees something else"
    np.testing.assert_array_equal(view.pane.content.raster.values, change)
    assert view.pane.content.signed
    moved = np.abs(change).sum(1).mean() / 2
    assert f"on average {100 * moved:.3g} % of a token's attention goes elsewhere" in view.frame.figure.answer
    assert view.frame.figure.table["attention_change"].abs().is_monotonic_decreasing


def test_readings_of_another_block_are_not_shown(session: Session) -> None:
    view = open_view(AttentionRaster, session)
    view.live.choose(lambda: session.select("model.layers.2.mlp.down_proj"))
    assert "Press Read the text to read the prompt in block 2" in view.frame.answer.object
    view.live.choose(lambda: session.select(QUERY))
    assert view.frame.figure is not None
    session.take(wb.quantize_model(session.model, wb.recipe("rtn", bits=4), layers="*.0.self_attn.*"))
    view.live.announce("results")
    assert view.frame.figure is None, "a quantized model has not read it yet"


def test_the_cache_and_its_error_are_shown(session: Session) -> None:
    view = open_view(CacheRaster, session)
    reading = view.readings.original
    assert view.frame.figure.answer.startswith("Keys of block 1: 24 tokens × 128 channels; channel ")
    view.side.value = "values"
    np.testing.assert_array_equal(view.pane.content.raster.values, reading.values.numpy())
    view.what.value, view.packed_together.value = "difference", 8
    assert view.frame.figure.question == "Which channels of the cache lose most?"
    assert "over 24 packed tokens (0 newest in fp16)" in view.frame.figure.answer
    assert np.abs(view.pane.content.raster.values).max() > 0
    view.zoom((0, 3, 8, 11))
    assert view.pane.content.raster.values.shape == (4, 4)
    view.scheme.value = "kivy"
    assert "Did you mean 'kivi'" in view.notices.messages[0]
    view.notices.dismiss()


def test_a_layer_outside_the_blocks_has_neither(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    view = AttentionRaster(session, threaded=False)
    monkeypatch.setattr(AttentionRaster, "block", None)
    view.read()
    assert "is in no block" in view.frame.answer.object


@pytest.mark.parametrize("kind", [AttentionRaster, CacheRaster])
def test_a_message_stays_small(session: Session, kind: type[TokenRaster]) -> None:
    view = kind(session, threaded=False)
    view.tokens.value = 256
    view.read()
    cells = view.pane.content.raster
    assert sum(part.nbytes for part in (cells.values, cells.rows, cells.cols)) < 1_000_000
