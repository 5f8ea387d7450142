"""Every causal model type of the installed transformers, as a tiny checkpoint: each step equals plain transformers.

Runs with `-m complete`. A type that transformers adds appears here by itself.
"""

import re
from functools import partial
from pathlib import Path

import pytest

import workbench as wb
from tests.zoo.checkpoints import TYPES, write_checkpoint
from tests.zoo.exceptions import NOT_BUILT, REFUSED
from tests.zoo.steps import ROUNDED, STEPS, Mismatch, Outcome, Trial, attempt, lost_tensors, quiet, run_steps


def problems(kind: str, outcomes: dict[str, Outcome]) -> list[str]:
    """What is not as it should be: a failing step, or an exception that no longer holds."""
    build = outcomes["build"]
    if kind in NOT_BUILT:
        reason = NOT_BUILT[kind]
        return [] if re.search(reason, build.detail) and build.status != "right" else [f"build is no longer {reason!r}: {build}"]
    if build.status != "right":
        return [f"build: {build}"]
    expected = REFUSED.get(kind, {})
    return [message for step in STEPS if (message := problem(step, outcomes[step], expected.get(step)))]


def problem(step: str, outcome: Outcome, reason: str | None) -> str:
    """What is wrong with one step, or nothing; `reason` is the sentence with which it is expected to be refused."""
    if reason is None:
        return "" if outcome.status in ("right", "missed") else f"{step}: {outcome}"
    refused = outcome.status == "refused" and re.search(reason, outcome.detail)
    return "" if refused else f"{step}, expected to be refused by {reason!r}: {outcome}"


@pytest.mark.complete
@pytest.mark.parametrize("kind", TYPES)
def test_every_step_equals_transformers(kind: str, tmp_path: Path) -> None:
    found = problems(kind, run_steps(kind, tmp_path))
    assert not found, "\n".join([kind, *found])


def test_exceptions_name_types_that_exist() -> None:
    assert sorted({*NOT_BUILT, *REFUSED} - set(TYPES)) == []
    assert sorted({step for steps in REFUSED.values() for step in steps} - set(STEPS)) == []


def test_an_exception_that_no_longer_holds_is_found() -> None:
    right, refused = Outcome("right", "8 tokens", 0.1), Outcome("refused", "ModelError: it reads both ways.", 0.1)
    assert problem("generate", right, None) == ""
    assert problem("generate", refused, "reads both ways") == ""
    assert "expected to be refused" in problem("generate", right, "reads both ways")
    assert "expected to be refused" in problem("generate", refused, "another sentence")
    assert "it reads both ways" in problem("generate", refused, None)


def test_steps_find_a_model_that_differs(tmp_path: Path) -> None:
    with quiet():
        trial = Trial(write_checkpoint("llama", tmp_path / "llama"), tmp_path)
        for parameter in trial.reference.module.parameters():
            parameter.mul_(1.5)
        statuses = {name: attempt(partial(step, trial)).status for name, step in STEPS.items()}
    blind = {name for name, status in statuses.items() if status != "wrong"}
    assert blind == {"open", "layers", "block run"}  # they compare no figures with transformers'


def test_layers_and_tensors_that_are_missing_are_found(tmp_path: Path) -> None:
    with quiet():
        trial = Trial(write_checkpoint("llama", tmp_path / "llama"), tmp_path)
        name = "model.layers.1.mlp.up_proj"
        quantized = wb.quantize_model(trial.model, ROUNDED)
        folder = wb.save(quantized, tmp_path / "saved", trial.model)
        assert lost_tensors(trial, folder, set(quantized.layers)) == []
        assert lost_tensors(trial, folder, set(quantized.layers) - {name}) == [f"{name}.weight"]
        trial.slots.pop(name)
        with pytest.raises(Mismatch, match=rf"^9\d\.\d% of the block weights are layers; missed, 1: {name}\.weight$"):
            STEPS["layers"](trial)
