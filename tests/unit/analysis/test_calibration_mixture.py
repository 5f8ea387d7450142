"""Calibration what-if: mixtures and leave-one-out by adding and subtracting moments equal reading the text again."""

import pytest
import torch

import workbench as wb
from workbench.analysis.method.calibration_mixture import (
    calibrate_documents,
    compute_shares,
    measure_influence,
    mix_stats,
    read_default_texts,
    read_sources,
    select_salient,
    split_text,
    tabulate_mixture_errors,
    tabulate_overlaps,
    tabulate_spectra,
)
from workbench.calibration import calibrate
from workbench.errors import ModelError
from workbench.models import ModelHandle
from workbench.models.derived_text import DERIVED, derive
from workbench.models.text import Text
from workbench.quantizers.distance import compute_output_error
from workbench.views.method import calibration_mixture as views

LAYER = "model.layers.2.self_attn.o_proj"
TOKENS = 300
RECIPE = wb.recipe("gptq", bits=2, group=64)


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    words = wb.text("calibration")
    return [words, derive("random letters", words)]


@pytest.fixture(scope="module")
def sources(builtin: ModelHandle, texts: list[Text]) -> dict:
    return read_sources(builtin, texts, layers=[LAYER], tokens=TOKENS)


def test_a_mixture_is_the_weighted_sum_of_moments(sources: dict) -> None:
    first, second = (source.fit[LAYER] for source in sources.values())
    found = mix_stats(sources, dict(zip(sources, (3, 1), strict=True)), LAYER)
    torch.testing.assert_close(found.moment, 0.75 * first.moment + 0.25 * second.moment)
    torch.testing.assert_close(found.mean, 0.75 * first.mean + 0.25 * second.mean)
    torch.testing.assert_close(found.absmax, torch.maximum(first.absmax, second.absmax))


def test_shares_by_tokens_are_one_text_after_the_other(builtin: ModelHandle, sources: dict, texts: list[Text]) -> None:
    """Mixed half and half, equal numbers of tokens are what calibrating on both gives."""
    both = [calibrate(builtin, split_text(text)[0], tokens=TOKENS, layers=[LAYER]) for text in texts]
    added = both[0] + both[1]
    torch.testing.assert_close(mix_stats(sources, dict.fromkeys(sources, 1.0), LAYER).moment, added[LAYER].moment)


def test_a_source_of_no_weight_changes_nothing(sources: dict) -> None:
    first, second = sources
    only = mix_stats(sources, {first: 1.0, second: 0.0}, LAYER)
    torch.testing.assert_close(only.moment, sources[first].fit[LAYER].moment, rtol=0, atol=0)
    torch.testing.assert_close(only.absmax, sources[first].fit[LAYER].absmax)


def test_halves_share_no_document() -> None:
    for text in read_default_texts():
        fit, held_out = split_text(text)
        assert not set(fit.documents) & set(held_out.documents)
        assert len(fit.documents) + len(held_out.documents) == len(text.documents)
    fit, held_out = split_text(Text("one", ("abcdef",)))
    assert (fit.documents, held_out.documents) == (("abc",), ("def",))


def test_overlap_counts_channels(builtin: ModelHandle, sources: dict) -> None:
    first, second = sources
    table = tabulate_overlaps(builtin, sources, {first: 1.0}, LAYER).set_index("source")
    assert table.loc[first, "jaccard"] == 1.0
    assert 0 <= table.loc[second, "jaccard"] < 1
    assert table["channels"].tolist() == [13, 13]  # 5 % of 256
    assert table["weight"].tolist() == [1.0, 0.0]
    assert select_salient(torch.tensor([1.0, 5, 2, 4]), 0.5) == {1, 3}
    assert str(table.loc[second, "shared"]) in views.draw_channel_overlaps(table.reset_index()).answer


def test_spectra_are_eigenvalues(sources: dict) -> None:
    first, _ = sources
    table = tabulate_spectra(sources, {first: 1.0}, LAYER)
    own = table[table["source"] == "mixture"]
    expected = torch.linalg.eigvalsh(sources[first].fit[LAYER].moment.double()).flip(0)
    torch.testing.assert_close(torch.tensor(own["eigenvalue"].to_numpy()), expected.clamp(min=0))
    assert own["cumulative"].iloc[-1] == pytest.approx(1.0)
    figure = views.draw_input_spectra(table)
    assert [trace["name"] for trace in figure.plot["data"]] == ["mixture", *sources]


def test_errors_are_measured_on_both_halves(builtin: ModelHandle, sources: dict) -> None:
    first, second = sources
    table = tabulate_mixture_errors(builtin, sources, {first: 1.0}, LAYER, RECIPE).set_index("source")
    layer = wb.quantize(builtin, LAYER, RECIPE, stats=sources[first].fit)
    weight = builtin.weight(LAYER).float()
    assert table.loc[first, "calibrated"] == pytest.approx(layer.output_error, rel=1e-4)
    held_out = compute_output_error(weight, layer.weight(), sources[second].held_out[LAYER].moment)
    assert table.loc[second, "held_out_error"] == pytest.approx(held_out, rel=1e-4)
    assert table.loc[first, "held_out_error"] == table.loc[first, "own"]
    assert table.loc[second, "own"] < table.loc[second, "held_out_error"]
    assert table.loc[first, "held_out_error"] > table.loc[first, "calibrated"]
    figure = views.draw_mixture_errors(table.reset_index())
    assert [trace["name"] for trace in figure.plot["data"]][:2] == ["calibrated half", "held-out half"]


def test_a_recipe_that_reads_no_text_is_told(builtin: ModelHandle, sources: dict) -> None:
    first, second = sources
    plain = tabulate_mixture_errors(builtin, sources, {first: 1.0, second: 1.0}, LAYER, wb.recipe("rtn", bits=3, group=64))
    assert "does not use the calibration text" in views.draw_mixture_errors(plain).answer
    table = tabulate_mixture_errors(builtin, sources, {first: 1.0}, LAYER, RECIPE)
    assert f"from calibrating on the mixture instead of the text itself is on {second}" in views.draw_mixture_errors(table).answer


def test_leaving_out_is_reading_the_rest(builtin: ModelHandle) -> None:
    """Subtracting one document's moment equals calibrating on all the others."""
    text = Text("three", wb.text("calibration").documents[:6])
    fit, _ = split_text(text)
    samples = calibrate_documents(builtin, fit, LAYER, 10_000)
    total = sum(stats.tokens for _, stats in samples)
    summed = sum(stats.tokens * stats.moment.double() for _, stats in samples)
    without = ((summed - samples[0][1].tokens * samples[0][1].moment.double()) / (total - samples[0][1].tokens)).float()
    rest = calibrate(builtin, Text("rest", fit.documents[1:]), tokens=10_000, layers=[LAYER])[LAYER]
    torch.testing.assert_close(without, rest.moment, rtol=1e-4, atol=1e-5)


def test_influence_ranks_documents(builtin: ModelHandle) -> None:
    words = wb.text("calibration").documents
    strange = derive("random letters", Text("x", (words[0],))).documents[0]
    # every other document is held out: the strange one is in the half to calibrate on
    text = Text("stories and noise", (words[1], words[2], strange, words[3], words[4], words[5]))
    table = measure_influence(builtin, text, LAYER, RECIPE, tokens=10_000).set_index("sample")
    assert set(table.index) == {0, 1, 2}
    assert table["moment_change"].idxmax() == 1
    assert table["error_change"].abs().is_monotonic_decreasing
    fit, rest = split_text(text)
    held_out = calibrate(builtin, rest, tokens=10_000, layers=[LAYER])[LAYER].moment
    weight, errors = builtin.weight(LAYER).float(), []
    for kept in (fit.documents, fit.documents[::2]):  # all, and without number 1
        stats = calibrate(builtin, Text("kept", kept), tokens=10_000, layers=[LAYER])
        errors.append(compute_output_error(weight, wb.quantize(builtin, LAYER, RECIPE, stats=stats).weight(), held_out))
    whole, without = (
        calibrate(builtin, Text("kept", k), tokens=10_000, layers=[LAYER])[LAYER].moment
        for k in (fit.documents, fit.documents[::2])
    )
    assert table.loc[1, "moment_change"] == pytest.approx(((without - whole).norm() / whole.norm()).item(), rel=1e-3)
    assert table.loc[1, "error_change"] == pytest.approx(errors[1] - errors[0], abs=2e-4)
    assert "documents" in views.draw_document_influence(table.reset_index()).answer


def test_influence_needs_two_documents(builtin: ModelHandle) -> None:
    with pytest.raises(ModelError, match="1 documents of .* were read; influence needs at least 2"):
        measure_influence(builtin, wb.text("calibration"), LAYER, RECIPE, tokens=10)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"calibration": 0.0}, "are not a mixture; give weights of 0 or more, one of them above 0"),
        ({"calibration": -1.0}, "are not a mixture"),
        ({"news": 1.0}, "no source 'news'; there are 'calibration'"),
    ],
)
def test_what_is_no_mixture_is_an_error(sources: dict, weights: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compute_shares(weights, sources)


@pytest.mark.parametrize("kind", list(DERIVED))
def test_derived_texts_say_so_and_follow_the_seed(kind: str) -> None:
    words = wb.text("calibration")
    first, again, other = (derive(kind, words, seed) for seed in (0, 0, 1))
    assert first.name == f"{kind} (derived from calibration)"
    assert len(first.documents) == len(words.documents)
    assert first.documents == again.documents != other.documents


def test_an_unknown_derivation_is_an_error() -> None:
    with pytest.raises(ModelError, match="cannot be derived as 'news'; use 'shuffled words'"):
        derive("news", wb.text("calibration"))
