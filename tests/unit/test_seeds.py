"""Seeds have one range, and one sentence for what lies outside it, wherever something is drawn."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.analysis.decisions.layer_scores import layer_scores
from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.predictions.ablation import measure_block_errors
from workbench.analysis.predictions.fork import ForkFinder
from workbench.analysis.predictions.fork_study import run_fork_study
from workbench.calibration import calibrate
from workbench.cli import main
from workbench.errors import RecipeError, WorkbenchError
from workbench.models import ModelHandle
from workbench.models.derived_text import derive
from workbench.models.text import Text
from workbench.quantizers.kv.rotated import Rotated
from workbench.seeds import LARGEST_SEED, check_seed

TEXT = Text("a story", ("Once upon a time there was a dog.",))
ONE = "model.layers.0.self_attn.k_proj"
RTN = wb.recipe("rtn", bits=2)
SENTENCE = r"seed .*; use a whole number from 0 to 4,294,967,295\.$"
OUTSIDE = [-1, LARGEST_SEED + 1, 2**63, 2**64, 10**5000, True, 1.0, "0"]
OUTSIDE_IDS = ["negative", "one-more", "2-to-63", "2-to-64", "long", "true", "real", "text"]

DRAWN: dict[str, Callable[[ModelHandle, Any], Any]] = {
    "recipe": lambda _, seed: RTN.replace(seed=seed),
    "calibrate": lambda model, seed: calibrate(model, TEXT, tokens=4, seed=seed),
    "quantize_model": lambda model, seed: wb.quantize_model(model, RTN, layers=ONE, seed=seed),
    "generate": lambda model, seed: model.language_model().generate("A", 2, temperature=1.0, seed=seed),
    "fuse": lambda model, seed: wb.fuse(model, seed=seed),
    "derive": lambda _, seed: derive("shuffled words", TEXT, seed),
    "squeeze": lambda model, seed: Squeeze(model, seed=seed),
    "layer_scores": lambda model, seed: layer_scores(model, TEXT, tokens=8, clusters=2, seed=seed),
    "block_errors": lambda model, seed: measure_block_errors(
        model, wb.quantize_model(model, RTN, layers=ONE), TEXT, tokens=4, seed=seed
    ),
    "fork_study": lambda model, seed: run_fork_study(model, wb.quantize_model(model, RTN, layers=ONE), [], seed=seed),
    "rewind": lambda model, seed: rewound(model, seed),  # noqa: PLW0108  defined below
}


def rewound(model: ModelHandle, seed: Any) -> Any:
    one_bit = wb.recipe("rtn", bits=1, group=0)
    return ForkFinder(model, wb.quantize_model(model, one_bit, layers="*.0.mlp.*"), "Once upon a time", 24).rewind(
        1, 2, seed=seed
    )


@pytest.mark.parametrize("drawn", DRAWN)
def test_the_largest_seed_draws_and_the_next_one_is_refused(builtin: ModelHandle, drawn: str) -> None:
    DRAWN[drawn](builtin, LARGEST_SEED)
    for seed in (-1, LARGEST_SEED + 1):
        with pytest.raises(WorkbenchError, match=SENTENCE):
            DRAWN[drawn](builtin, seed)


@pytest.mark.parametrize("seed", OUTSIDE, ids=OUTSIDE_IDS)
def test_what_is_no_seed_is_said_in_one_short_sentence(seed: Any) -> None:
    with pytest.raises(RecipeError, match=SENTENCE) as refusal:
        check_seed(seed, RecipeError)
    assert len(str(refusal.value)) < 100


def test_a_number_of_numpys_is_one() -> None:
    assert check_seed(np.int64(5)) == 5


def test_the_schemes_of_the_cache_have_the_same_range() -> None:
    with pytest.raises(RecipeError, match=r"seed is 4294967296; it must be from 0 to 4294967295\."):
        Rotated(seed=LARGEST_SEED + 1)


@pytest.mark.parametrize("command", ["generate", "quantize", "allocate", "whatif", "squeeze"])
@pytest.mark.parametrize("seed", ["-1", str(2**64)])
def test_every_command_says_the_sentence_before_it_works(
    command: str, seed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = {
        "generate": ["--prompt", "A"],
        "quantize": ["--recipe", "rtn", "--out", "out"],
        "allocate": ["--bits", "3", "--recipe", "rtn", "--out", "plan.json"],
        "whatif": ["--layer", "x", "--recipe", "rtn"],
        "squeeze": [],
    }
    monkeypatch.setattr(sys, "argv", ["workbench", command, "nowhere", *needed[command], "--seed", seed])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err == f"error: seed {seed}; use a whole number from 0 to 4,294,967,295.\n"
