"""Training of the whole model that is really interrupted, in a process of its own, and then goes on to the same file."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import workbench as wb
from tests.tiny_models import write_model
from workbench import registry
from workbench.models.text import Text
from workbench.quantizers.runs.progress import LayerProgress, TrainingState
from workbench.store import Store

STORY = Text("story", ("Tom had a red ball. He threw it high. A small bird sat on the roof and sang. " * 4,) * 6)
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from tests.integration.test_resumed_training import find_step, write_refined
from workbench.store import Store
signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever started this may have ignored
folder, number = Path(sys.argv[1]), int(sys.argv[2])
def watch(step):
    if find_step(step) == 27:
        os.kill(os.getpid(), number)
write_refined(folder, folder / "interrupted", Store(folder / "store"), watch)
"""


def find_step(progress: LayerProgress) -> int | None:
    """The step of the training that a run is at."""
    return progress.stage.step if isinstance(progress.stage, TrainingState) else None


def write_refined(folder: Path, out: Path, store: Store | None, watch=None) -> str:
    """Quantize the model of `folder` in sequence, train it as a whole, and save it; returns the hash of the file."""
    model, part = (
        wb.open_model(folder),
        registry.make("refinement", "model", steps=4, model_steps=45, model_tokens=64, written=400),
    )
    recipe = wb.recipe("gptq", bits=2, group=32).replace(refinement=part)
    result = wb.quantize_model(model, recipe, text=STORY, tokens=300, store=store, on_progress=watch)
    return hashlib.sha256((wb.save(result, out, model) / "packed.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_training_that_was_interrupted_goes_on_to_the_same_file(tmp_path: Path, number: signal.Signals) -> None:
    folder = write_model("llama", tmp_path / "model")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    words = [sys.executable, "-c", INTERRUPTED, str(folder), str(int(number))]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == -number, ended.stderr[-2000:]

    seen: list[int | None] = []
    resumed = write_refined(folder, tmp_path / "resumed", Store(folder / "store"), lambda step: seen.append(find_step(step)))
    assert [step for step in seen if step is not None] == list(range(21, 46)), "training goes on from its last look"
    assert resumed == write_refined(folder, tmp_path / "whole", None)
