"""Figures of budgets, plans, forks and tinted text: sentences with numbers, twins, what is not significant is grey."""

import numpy as np
import pandas as pd

from workbench.analysis.decisions.error_budget import ErrorBudget
from workbench.analysis.glossary import COLUMNS
from workbench.analysis.predictions.divergence import Tokens, summarise
from workbench.analysis.predictions.fork import Guilt, Recovery
from workbench.analysis.predictions.fork_study import tabulate_shares
from workbench.views import theme as themes
from workbench.views.decisions import error_budget as views
from workbench.views.predictions import fork as fork_views
from workbench.views.predictions import kl_tint
from workbench.views.predictions.token_kl import build_tinted_text
from workbench.views.theme import DARK, LIGHT

DOCUMENT = np.array([0, 0, 1, 1])
KL = np.array([0.4, 0.0, 0.1, 0.3])
EFFECT = summarise(
    Tokens(DOCUMENT, np.arange(4), KL, np.arange(4), np.array([0, 1, 2, 9]), np.ones(4), np.ones(4) * 1.2, DOCUMENT),
    "text",
)
LAYERS = pd.DataFrame(
    {
        "name": ["a.0.q", "a.0.k", "a.1.q"],
        "block": [0, 0, 1],
        "matrix": ["self.q", "self.k", "self.q"],
        "recipe": "rtn",
        "bits_per_weight": 2.5,
        "kl": [0.1, 1e-6, 0.3],
        "kl_low": [0.05, 0.0, 0.2],
        "kl_high": [0.2, 1e-5, 0.4],
        "accumulated": [0.1, 0.1, 0.2],
        "floor": 1e-5,
        "significant": [True, False, True],
    }
)
PAIRS = pd.DataFrame(
    [
        ("a.0.q", "a.1.q", 0.5, 0.4, 0.1, 0.02, 0.2),
        ("a.0.q", "a.0.k", 0.1, 0.1, 0.0, -0.1, 0.1),
        ("a.0.k", "a.1.q", 0.3, 0.3, 0.0, -1.0, 1.0),
    ],
    columns=["earlier", "later", "together", "apart", "interaction", "interaction_low", "interaction_high"],
)
BUDGET = ErrorBudget(LAYERS, PAIRS, EFFECT, 0.4, (0.3, 0.5), 0.5, (0.4, 0.6), 1e-5)


def test_waterfall() -> None:
    for theme in (LIGHT, DARK):
        figure = views.draw_error_waterfall(BUDGET, theme=theme)
        clear, silent, line, floor = figure.plot["data"]
        assert (clear["marker"]["color"], silent["marker"]["color"]) == (theme.quantized, theme.border)
        assert (clear["x"], silent["x"]) == ([0, 2], [1])
        assert clear["customdata"] == ["a.0.q", "a.1.q"]
        assert figure.plot["layout"]["xaxis"]["ticktext"] == ["0", "1"]
        assert np.allclose(clear["error_y"]["array"], [0.1, 0.1])
        assert line["y"] == [0.1, 0.1, 0.2]
        assert floor["y"] == [1e-5, 1e-5]
    assert "0.50 (95 %: 0.40 to 0.60) times the sum of single layers (0.4)" in figure.answer
    assert "The worst, a.1.q, accounts for 75 % of that sum; 1 layer within half-precision noise. 95 % intervals" in figure.answer
    assert figure.answer.endswith("over 2 texts.")
    assert figure.table is LAYERS


def test_interactions() -> None:
    figure = views.draw_interactions(BUDGET)
    (heat,) = figure.plot["data"]
    assert heat["z"] == [[0.0, None], [0.1, 0.0]]
    assert (heat["zmin"], heat["zmax"]) == (-0.1, 0.1)
    assert "Of 3 pairs, 1 differ" in figure.answer
    assert "a.0.q and a.1.q together cost 0.1 nats more than their sum (95 %: 0.02 to 0.2)" in figure.answer


def test_plan_and_pareto() -> None:
    table = LAYERS[["name", "block", "matrix", "kl"]].assign(recipe=["two", "two", "four"], parameters=100, bits=[250, 250, 450])
    table["bits_per_weight"] = table["bits"] / 100
    figure = views.draw_bit_plan(table, {"a.1.q"})
    assert figure.answer == "2 layers at two, 1 layer at four: 3.17 stored bits per weight overall. 1 set by hand."
    heat = figure.plot["data"][0]
    assert heat["z"][0] == [2.5, 2.5]
    assert heat["z"][1][heat["x"].index("q")] == 4.5
    assert heat["customdata"][1][heat["x"].index("q")][2].startswith("<br>four<br>KL alone")
    (corner,) = figure.plot["layout"]["shapes"]
    assert corner["fillcolor"] == LIGHT.quantized
    curve = pd.DataFrame({"bits_per_weight": [2.5, 4.5], "predicted": [0.4, 0.02]})
    uniform = curve.assign(recipe=["two", "four"])
    none = pd.DataFrame(columns=["bits_per_weight", "predicted", "kl", "kl_low", "kl_high"])
    assert "Measure a plan" in views.draw_pareto_front(curve, uniform, none).answer
    measured = pd.DataFrame([{"bits_per_weight": 3.0, "predicted": 0.2, "kl": 0.3, "kl_low": 0.25, "kl_high": 0.4}])
    figure = views.draw_pareto_front(curve, uniform, measured)
    assert "costs 0.3 (95 %: 0.25 to 0.4): 1.50 times its prediction" in figure.answer
    assert len(figure.plot["data"]) == 3


def test_tinted_text_escapes_and_marks() -> None:
    text = build_tinted_text(EFFECT.table(lambda ids: "".join(f"<{i}>" for i in ids)), EFFECT, 1e-9)
    assert "&lt;0&gt;" in text.text
    assert kl_tint.render_tint_legend(LIGHT) in text.text
    assert kl_tint.compute_kl_tint(0.3, LIGHT) in text.text, "the tint is that of all texts, not of the largest KL in this one"
    assert text.text.count("border-bottom") == 1
    assert text.table["top1_changed"].tolist() == [0, 0, 0, 1]
    assert "changed at 1 of 4 tokens (25 %)" in text.answer
    assert text.answer.endswith("95 % intervals over 2 texts.")
    assert themes.describe_interval_basis(1) == "No interval: it needs two texts, or two segments of at least 256 tokens."
    assert "Smaller than the rounding noise of half precision" in build_tinted_text(EFFECT.table(str), EFFECT, 1.0).answer


def test_a_ratio_that_the_text_cannot_tell_from_one_is_no_gain() -> None:
    """Perplexity 2.718 → 2.651 on two documents, one better and one worse."""
    lost = np.array([0.5, 0.9, 1.2, 1.3])
    ids = np.arange(4)
    near = summarise(Tokens(DOCUMENT, ids, KL, ids, ids, np.ones(4), lost, DOCUMENT), "text")
    answer = build_tinted_text(near.table(str), near, 1e-9).answer
    assert "perplexity 2.718 → 2.651, 0.9753 times the original's (95 %: 0.0" in answer
    assert "): no significant difference on 4 tokens; the top-1 token" in answer
    assert "no difference" not in build_tinted_text(EFFECT.table(str), EFFECT, 1e-9).answer


def test_fork_and_blame() -> None:
    tokens = pd.DataFrame(
        {"position": [1, 2], "token": ["a", "b\n"], "kl": [0.1, 0.5], "chosen": ["a", "c"], "agrees": [True, False]}
    )
    figure = fork_views.draw_text_fork(tokens, 2)
    assert figure.answer == (
        "At token 2: the original writes “b↵”, the quantized model “c”, at a KL of 0.5 nats (median of all tokens: 0.3)."
    )
    assert figure.plot["data"][0]["marker"]["color"] == LIGHT.quantized
    assert len(figure.plot["layout"]["shapes"]) == 1, "a line at the fork"
    chosen = fork_views.draw_text_fork(tokens, 2, 0).plot["data"][0]["marker"]["line"]["color"]
    assert chosen == [LIGHT.accent, "rgba(0,0,0,0)"]
    assert fork_views.draw_text_fork(tokens, None).answer == "They do not diverge: both models write the same 2 tokens."
    table = pd.DataFrame(
        {
            "name": ["a", "b"],
            "kl_restored": [0.1, 0.4],
            "lead_restored": [0.2, -0.3],
            "kl_alone": [0.3, 0.1],
            "lead_gain": [0.6, 0.1],
            "holds": [True, False],
        }
    )
    alone = fork_views.draw_fork_blame(table, 2, Guilt(("a",), None, (0.2,)))
    assert alone.answer == (
        "a: restored to full precision, it recovers 0.6 nats and the fork is gone. "
        "Restoring this one layer is enough to remove the fork."
    )
    assert alone.plot["data"][0]["marker"]["color"] == [LIGHT.border, LIGHT.quantized]
    assert alone.table["guilty"].tolist() == [True, False]
    table["lead_restored"] -= 0.5
    together = fork_views.draw_fork_blame(table, 2, Guilt(("a", "b"), 9, (-0.3, 0.1)))
    assert together.answer == (
        "No single layer: restoring the worst, a, recovers 0.6 of the 0.9 nats that the original's token is behind. With 2 "
        "restored (orange) the fork moves from token 2 to 9, and none of them can be left out: a, b."
    )
    said = fork_views.describe_fork_recovery(Recovery(0.75, 0.25, 4, 16, 0))
    assert "75 % (19.4 % to 99.4 %) of 4 continuations of 16 tokens" in said
    assert "expected for further continuations by the original: 80 %" in said


def test_shares_of_forks() -> None:
    study = pd.DataFrame({"needed": [1, 1, 2, 9], "random": [1, 20, 30, 40]})
    figure = fork_views.draw_fork_shares(tabulate_shares(study, (1, 2, 5)))
    assert figure.table["share"].tolist() == [0.5, 0.75, 0.75]
    assert figure.table["chance"].tolist() == [0.25, 0.25, 0.25]
    assert (
        "2 restored layers remove most forks. Restoring the blamed layer alone removes 50 % (6.76 % to 93.2 %) of 4"
        in figure.answer
    )
    assert set(figure.table) <= set(COLUMNS)
