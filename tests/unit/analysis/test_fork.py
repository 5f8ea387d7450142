"""The fork finder: where greedy texts part, which layers restored help, and what a forced token brings."""

import pytest
from scipy.stats import binom

import workbench as wb
from workbench.analysis.predictions.fork import ForkFinder
from workbench.analysis.predictions.fork_study import extract_prompts, run_fork_study, tabulate_shares
from workbench.errors import ModelError
from workbench.intervals import compute_binomial_interval
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
    assert blame["lead_gain"].is_monotonic_decreasing
    at, lm = finder.prompt + (finder.fork or 0) - 1, builtin.language_model()
    row, wanted = blame.iloc[0], finder.ids[0, finder.prompt : at + 1]
    with builtin.swapped({name: swap for name, swap in finder.swaps.items() if name != row["name"]}):
        logits = lm.logits(finder.ids[:, :at])[0, finder.prompt - 1 :]
    way = []
    for token, one in zip(wanted.tolist(), logits, strict=True):
        others = [float(value) for index, value in enumerate(one) if index != token]
        way.append(float(one[token]) - max(others))
    assert row["lead_restored"] == pytest.approx(min(way), abs=1e-3)
    moved = finder.restored([row["name"]])
    assert row["holds"] == (moved is None or moved > (finder.fork or 0))
    assert row["lead_restored"] - row["lead_gain"] < 0, "before, the original's token was behind"


@pytest.mark.parametrize("prompt", ["Lily found a small", "The sun was warm", "Tom had a red"])
def test_guilty_layers_take_the_fork_away_and_none_is_there_for_nothing(finder: ForkFinder, prompt: str) -> None:
    finder = ForkFinder(finder.model, finder.layers, prompt, tokens=40)
    assert finder.fork is not None
    guilt = finder.guilty()
    assert guilt.moved is None or guilt.moved > finder.fork
    assert guilt.moved == finder.restored(guilt.layers)
    assert guilt.leads[-1] > 0
    for name in guilt.layers:
        kept = finder.restored([other for other in guilt.layers if other != name])
        assert kept is not None
        assert kept <= finder.fork, "without it the fork is where it was, or before"
    if finder.blame()["holds"].any():
        assert guilt.layers == (finder.blame()["name"][0],)


def test_a_layer_that_others_make_needless_is_let_go(finder: ForkFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best one first, with which two more are needed; those two would have been enough."""
    a, b, c, *_ = finder.layers
    known = {(): -9.0, (a,): -1.0, (b,): -2.0, (c,): -3.0, (a, b): -0.5, (a, c): -0.6, (b, c): 0.5, (a, b, c): 1.0}
    monkeypatch.setattr(finder, "_narrowest", lambda names: known.get(tuple(sorted(names, key=[a, b, c].index)), -8.0))
    monkeypatch.setattr(finder, "swaps", {name: finder.swaps[name] for name in (a, b, c)})
    guilt = finder.guilty()
    assert set(guilt.layers) == {b, c}
    assert guilt.leads == (-1.0, -0.5, 1.0)


def test_study_of_prompts(builtin: ModelHandle, finder: ForkFinder) -> None:
    prompts = extract_prompts(wb.text("evaluation"), 2, words=4)
    assert prompts[0] == " ".join(wb.text("evaluation").documents[0].split()[:4])
    layers = dict(list(finder.layers.items())[-6:])
    study = run_fork_study(builtin, layers, prompts, tokens=20, seed=1)
    assert study.equals(run_fork_study(builtin, layers, prompts, tokens=20, seed=1))
    for row in study.to_dict("records"):
        own = ForkFinder(builtin, layers, row["prompt"], tokens=20)
        assert row["fork"] == own.fork
        assert row["needed"] == len(own.guilty().layers)
        assert row["delay"] > 0
        assert 1 <= row["random"] <= 6
    table = tabulate_shares(study, (1, 6))
    assert table["share"].iloc[1] == table["chance"].iloc[1] == 1.0, "with all layers restored there is no fork"
    assert (table["share_low"] <= table["share"]).all()


def test_a_share_of_nothing_may_be_anything() -> None:
    assert compute_binomial_interval(0, 0) == (0.0, 1.0)
    low, high = compute_binomial_interval(5, 20)
    assert binom.sf(4, 20, low) == pytest.approx(0.025)
    assert binom.cdf(5, 20, high) == pytest.approx(0.025)


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
    with pytest.raises(ModelError, match="no layer is quantized, so the texts cannot diverge"):
        ForkFinder(builtin, {}, PROMPT)
