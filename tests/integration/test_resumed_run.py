"""A run block by block that is really interrupted, in a process of its own, in the middle of a layer, and then goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import workbench as wb
from tests.same_layers import assert_same_layers
from tests.tiny_models import write_model
from workbench.models.text import Text
from workbench.quantized import QuantizedModel
from workbench.quantizers.runs.progress import LayerProgress
from workbench.store import Store

STORY = Text("story", ("Tom had a red ball. He threw it high. A small bird sat on the roof and sang. " * 4,) * 3)
CASES = [
    ("gptq:bits=3,group=32", signal.SIGINT),
    ("gptq:bits=2,group=32,repair=yes", signal.SIGKILL),
    ("btc:bits=1,transform=signs", signal.SIGKILL),  # with a first pass, in which transforms are learned
]
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from tests.integration.test_resumed_run import quantized
from workbench.store import Store
signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever started this may have ignored
folder, recipe, number, block = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
def watch(step):
    if step.layer.startswith(block) and step.event == "layer":
        os.kill(os.getpid(), number)
quantized(folder, recipe, Store(folder / "store"), watch)
"""


def quantized(folder: Path, recipe: str, store: Store | None, watch=None) -> QuantizedModel:
    """What the recipe makes of all blocks in sequence."""
    return wb.quantize_model(wb.open_model(folder), wb.recipe(recipe), text=STORY, tokens=128, store=store, on_progress=watch)


@pytest.mark.parametrize(("recipe", "number"), CASES)
def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path: Path, recipe: str, number: signal.Signals) -> None:
    folder = write_model("llama", tmp_path / "model")
    last = wb.open_model(folder).layer_names[-1].rpartition(".")[0]  # in the last block: the ones before are done
    words = [sys.executable, "-c", INTERRUPTED, str(folder), recipe, str(int(number)), last]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == -number, ended.stderr[-2000:]

    worked_on: set[str] = set()

    def watch(step: LayerProgress) -> None:
        if step.event == "layer":
            worked_on.add(step.layer)

    resumed = quantized(folder, recipe, Store(folder / "store"), watch)
    assert worked_on
    assert worked_on < set(resumed.layers), "finished layers are not quantized again"
    whole = quantized(folder, recipe, None)
    assert_same_layers(resumed, whole)
    assert resumed.changed_tensors.keys() == whole.changed_tensors.keys()
