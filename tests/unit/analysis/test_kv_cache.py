"""Measuring a packed cache: the divergence that its text shows, and its bits per value and bytes a token."""

import pytest

import workbench as wb
from workbench.analysis.predictions.kv_cache import make_cached_model, measure_cache, tabulate_caches
from workbench.models import ModelHandle
from workbench.models.text import Text
from workbench.views.predictions.kv_cache import draw_perplexity_by_bytes

TOKENS = 200
STORIES = Text("beginnings", tuple(story[:260] for story in wb.text("evaluation").documents[:3]))


def test_a_whole_cache_costs_what_fp16_does(builtin: ModelHandle) -> None:
    found = measure_cache(builtin, "none", wb.text("evaluation"), tokens=TOKENS, block=32)
    assert found.bits_per_value == 16
    assert found.bytes_per_token == 2 * 6 * 2 * 4 * 32
    assert found.divergence.kl < 1e-5


def test_it_is_the_divergence_of_the_cached_model(builtin: ModelHandle) -> None:
    found = measure_cache(builtin, "kivi:bits=2", STORIES, block=32)
    other = wb.compare(builtin, make_cached_model(builtin, "kivi:bits=2", block=32), STORIES)
    assert found.divergence.kl == pytest.approx(other.kl, rel=1e-6)
    assert found.divergence.kl > 1e-3
    assert found.ratio.ratio == pytest.approx(found.divergence.perplexity / found.divergence.perplexity_original)
    low, high = found.ratio.interval
    assert low < found.ratio.ratio < high
    assert high - low < (found.divergence.perplexity_interval[1] - found.divergence.perplexity_interval[0]) / 2.0  # paired
    assert 2.3 < found.bits_per_value < 3.3
    packed, recent = found.packed_share, 1 - found.packed_share
    assert found.bytes_per_token == pytest.approx((found.bits_per_value * packed + 16 * recent) / 8 * 1536)


def test_the_figure_shows_the_table(builtin: ModelHandle) -> None:
    table = tabulate_caches(measure_cache(builtin, s, STORIES, block=32) for s in ("none", "vidkv"))
    figure = draw_perplexity_by_bytes(table, 7.0)
    (points,) = figure.plot["data"]
    assert points["x"] == table["bytes_per_token"].tolist()
    assert points["y"] == table["perplexity"].tolist()
    assert points["error_y"]["array"] == pytest.approx((7.0 * (table["ratio_high"] - table["ratio"])).tolist())
    assert figure.plot["layout"]["shapes"][0]["y0"] == 7.0


@pytest.mark.parametrize(
    ("original", "says"), [(10.0, "the smallest cache within 2 % of that is b:"), (1.0, "no scheme here comes")]
)
def test_the_sentence_names_the_smallest_good_cache(original: float, says: str) -> None:
    import pandas as pd

    rows = [("a", 16.0, 16.0, 3000.0, 10.0), ("b", 2.0, 1.5, 600.0, 10.1), ("c", 1.0, 1.0, 300.0, 20.0)]
    table = pd.DataFrame(rows, columns=["scheme", "bits_per_value", "nominal_bits", "bytes_per_token", "perplexity"])
    table = table.assign(ratio=table["perplexity"] / original, ratio_low=0.9, ratio_high=1.1, texts=3)
    answer = draw_perplexity_by_bytes(table, original).answer
    assert says in answer
    assert answer.endswith("95 % intervals over 3 texts.")
