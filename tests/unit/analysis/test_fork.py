"""The fork finder: where greedy texts part, which layer restored helps, and what a forced token brings."""

import pytest

import workbench as wb
from workbench.analysis.fork import ForkFinder, lead
from workbench.errors import ModelError
from workbench.models import ModelHandle

PROMPT = "Lily found a small"


@pytest.fixture(scope="module")
def finder(builtin: ModelHandle) -> ForkFinder:
    layers = wb.quantize_model(builtin, wb.recipe("rtn", bits=2, group=64), layers="*.[345].*").layers
    return ForkFinder(builtin, layers, PROMPT, tokens=40)


def greedy(model: ModelHandle, swaps: dict, tokens: int) -> list[int]:
    with model.swapped(swaps):
        return list(model.language_model().new_tokens(model.encode(PROMPT), tokens))


def test_the_fork_is_where_greedy_texts_part(builtin: ModelHandle, finder: ForkFinder) -> None:
    first, second = greedy(builtin, {}, 40), greedy(builtin, finder.swaps, 40)
    expected = next(i for i, (a, b) in enumerate(zip(first, second, strict=False), 1) if a != b)
    assert finder.fork == expected
    assert not finder.table["agrees"][expected - 1]
    assert finder.table["agrees"][: expected - 1].all()
    assert (finder.table["kl"] > 0).all()
    text = builtin.language_model().decode([*finder.ids[0, : finder.prompt].tolist(), *second[:expected]])
    assert text == f"{PROMPT}{''.join(finder.table['token'][: expected - 1])}{finder.table['chosen'][expected - 1]}"


def test_blame_is_what_restoring_a_layer_gives(builtin: ModelHandle, finder: ForkFinder) -> None:
    blame = finder.blame()
    assert set(blame["name"]) == set(finder.layers)
    for _, rows in blame.groupby("holds"):
        assert rows["lead_gain"].is_monotonic_decreasing
    assert blame["holds"].is_monotonic_decreasing
    at, lm = finder.prompt + (finder.fork or 0) - 1, builtin.language_model()
    row = blame.iloc[0]
    with builtin.swapped({name: swap for name, swap in finder.swaps.items() if name != row["name"]}):
        logits = lm.logits(finder.ids[:, :at])[0, -1]
    assert row["lead_restored"] == pytest.approx(lead(logits, int(finder.ids[0, at])), abs=1e-3)
    top = logits.topk(2).values
    assert abs(row["lead_restored"]) == pytest.approx(float(top[0] - top[1]), abs=1e-3) or row["lead_restored"] < 0
    # the fork is gone from here, or it is not
    moved = finder.restored([row["name"]])
    assert row["holds"] == (moved is None or moved > (finder.fork or 0))
    assert row["lead_restored"] > 0 or not row["holds"]


def test_everything_restored_has_no_fork(finder: ForkFinder) -> None:
    assert finder.restored(list(finder.layers)) is None
    assert finder.restored([]) == finder.fork


def test_rewind(finder: ForkFinder) -> None:
    found = finder.rewind(4, 12)
    assert 0 <= found.left <= 1
    assert 0 <= found.forced <= 1
    assert found == finder.rewind(4, 12)


def test_an_unchanged_model_always_recovers_and_never_parts(builtin: ModelHandle) -> None:
    name = builtin.layer_names[0]
    finder = ForkFinder(builtin, {name: wb.quantize(builtin, name, wb.recipe("none"))}, PROMPT, tokens=12)
    assert finder.fork is None
    assert (finder.table["kl"] == 0).all()
    with pytest.raises(ModelError, match="both models write the same 12 tokens; there is no fork to blame"):
        finder.blame()
    with pytest.raises(ModelError, match="there is no fork to rewind"):
        finder.rewind()


def test_nothing_quantized(builtin: ModelHandle) -> None:
    with pytest.raises(ModelError, match="no quantized layers, so nothing can part"):
        ForkFinder(builtin, {}, PROMPT)
