"""The Text tab without a server: both texts, the marked token in every figure, and speed as it was measured."""

import pytest

import workbench as wb
from workbench.jobs import run_steps
from workbench.session import Session
from workbench.widgets.base.live import Live
from workbench.widgets.predictions.generation import TextComparison

PROMPT = "The <b>small</b> dog"


@pytest.fixture
def text(session: Session) -> TextComparison:
    """Both models at the end of six tokens, one layer at one bit."""
    session.use(wb.recipe("rtn", bits=1, group=32))
    run_steps(session.quantize_model_steps())
    text = TextComparison(Live(session), threaded=False)
    text.prompt.value, text.tokens.value = PROMPT, 6
    text.go.clicks += 1
    return text


def test_both_models_write(text: TextComparison) -> None:
    assert [len(side) for side in text.writing.sides] == [6, 6]
    assert "The &lt;b&gt;small&lt;/b&gt; dog" in text.pages.left.object
    assert "original text" in text.pages.left.object
    assert "quantized text" in text.pages.right.object
    assert text.session.choice.prompt == PROMPT
    assert len(text.divergence.figure.table) == 6


def test_speed_and_memory_of_both_are_measured_and_shown(text: TextComparison) -> None:
    before, after = text.running
    assert 0 < before.speed.low <= before.speed.high
    assert 0 < after.resident_bytes < before.resident_bytes, "one bit takes less memory than the original"
    assert f"{before.speed.tokens_per_second:,.0f} tokens/s" in text.measured.object
    assert f"{after.resident_bytes / 1e3:.1f} kB" in text.measured.object or "MB" in text.measured.object


def test_without_a_mark_the_fork_is_explained(text: TextComparison) -> None:
    at = text.writing.fork
    assert at is not None
    assert text.position.value == at + 1
    assert text.session.selection.tokens == ()
    assert f"At token {at + 1} of the original text" in text.expected.answer.object


@pytest.mark.parametrize("way", ["field", "click", "bar", "bus"])
def test_a_marked_token_is_marked_everywhere(text: TextComparison, way: str) -> None:
    if way == "field":
        text.position.value = 5
    elif way == "click":
        text.pages.right._handle_msg(4)
    elif way == "bar":
        text.divergence.plot.click_data = {"points": [{"curveNumber": 1, "pointNumber": 4}]}
    else:
        text.live.mark(tokens=[4])
    assert text.session.selection.tokens == (4,)
    assert text.position.value == 5
    assert text.pages.left.object.count('class="chosen"') + text.pages.left.object.count('class="fork chosen"') == 1
    assert "At token 5 of the original text" in text.expected.answer.object
    text.side.value = "quantized"
    assert "At token 5 of the quantized text" in text.expected.answer.object


def test_a_mark_beyond_the_text_is_left_alone(text: TextComparison) -> None:
    text.live.mark(tokens=[100])
    assert 'class="chosen"' not in text.pages.left.object
    assert text.position.value == (text.writing.fork or 0) + 1


def test_before_anything_is_written_the_next_step_is_said(session: Session) -> None:
    text = TextComparison(session)
    assert "Press Write" in text.pages.sentence.object
    assert not text.details.visible
