"""Saved folders that were changed and signed again: each is refused in one sentence, or runs and equals the reference."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.resigned import (
    FORMS,
    LAYER,
    SIZE,
    attempt,
    battery,
    contents,
    outcome,
    plain,
    save_forms,
    save_optional,
    sign,
    write_model,
)
from tests.unit.kernels.conftest import Draw
from workbench import registry
from workbench.artifact import load
from workbench.errors import ArtifactError
from workbench.kernels.packing.packed import Packed

FEW = 60
MANY = 1560
OUTCOMES = ("refused", "runs")


def drawn() -> dict[str, Packed]:
    """Every format, alone and in trees, with random contents."""
    return {name: plain(form(Draw(SIZE, SIZE))) for name, form in FORMS.items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A saved model for each form; read only."""
    root = tmp_path_factory.mktemp("resigned")
    return save_forms(write_model(root / "model"), drawn(), root / "saved")


def test_every_format_is_among_the_forms() -> None:
    assert {node.format for tree in drawn().values() for _, node in tree.walk()} == set(registry.list_names("format"))


def test_what_was_not_changed_runs(saved: list[Path]) -> None:
    for folder in saved[::8]:
        assert outcome(folder) == "runs"


def test_a_few_changed_folders_are_refused_or_run(saved: list[Path], tmp_path: Path) -> None:
    results = [attempt(saved[7 * number % len(saved)], tmp_path / "changed", number) for number in range(FEW)]
    check(results, FEW)


@pytest.fixture(scope="module")
def optional(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Saved mixtures of which one matrix outside of the blocks' linear layers is quantized; read only."""
    return save_optional(tmp_path_factory.mktemp("optional"))


def test_changed_embeddings_routers_and_heads_are_refused_or_run(optional: list[Path], tmp_path: Path) -> None:
    assert {outcome(folder) for folder in optional} == {"runs"}
    results = [attempt(optional[number % len(optional)], tmp_path / "changed", number) for number in range(FEW)]
    check(results, FEW)


def cut(source: Path, target: Path) -> Path:
    """A copy whose signs were cut to nothing: compiled loops would read what is not there."""
    shutil.copytree(source, target)
    tensors, recipe = contents(source)  # of the target they would be read from the file that is written
    name = f"{LAYER}||signs"
    sign(target, {**tensors, name: tensors[name][:0]}, recipe)
    return target


CUT = (
    rf"layer '{LAYER}' of format 'planes' has a tensor 'signs' that is uint8 \[0\] and must be uint8 \[288\] \(48 × 48, planes=1"
)


def test_signs_that_were_cut_to_nothing_are_named(saved: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=CUT):
        load(cut(saved[0], tmp_path / "cut"))


def test_transformers_gets_the_same_sentence(saved: list[Path], tmp_path: Path) -> None:
    import transformers

    with pytest.raises(ArtifactError, match=CUT):
        transformers.AutoModelForCausalLM.from_pretrained(cut(saved[0], tmp_path / "cut"))
    transformers.AutoModelForCausalLM.from_pretrained(saved[0])


def check(results: list[dict[str, Any]], count: int) -> None:
    """Every result is one of the two that are allowed, and both occur."""
    bad = [result for result in results if result["outcome"].partition(":")[0] not in OUTCOMES]
    assert not bad, "\n".join(map(str, bad[:20]))
    kinds = Counter(result["outcome"].partition(":")[0] for result in results)
    assert sum(kinds.values()) == count
    assert kinds["refused"] > count // 2
    assert kinds["runs"] > count // 50


@pytest.mark.complete
@pytest.mark.slow
def test_every_changed_folder_is_refused_or_runs(tmp_path: Path) -> None:
    trees = {**drawn(), **{name: plain(tree) for name, tree in battery()}}
    save_forms(write_model(tmp_path / "model"), trees, tmp_path / "saved")
    for folder in save_optional(tmp_path / "mixtures"):
        folder.rename(tmp_path / "saved" / folder.name)
    results: list[dict[str, Any]] = []
    first = 0
    while first < MANY:
        command = [sys.executable, "-m", "tests.resigned", str(tmp_path / "saved"), str(first), str(MANY)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        results += [line for line in lines if "outcome" in line]
        if done.returncode == 0:
            break
        first = lines[-1]["begins"] if lines else first
        results.append({"number": first, "outcome": f"crashed: {done.returncode}, {done.stderr[-500:]}"})
        first += 1
    check(results, MANY)
