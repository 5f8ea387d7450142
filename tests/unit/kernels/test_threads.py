"""Compiled products under threads, threading layers and forks, each in a process of its own: numba starts its threads once."""

import os
import subprocess
import sys

import pytest

COMMON = """
import os, sys, threading
import torch
from tests.unit.kernels.conftest import Draw
from workbench.kernels import formats as reference
from workbench.kernels.kernel_mode import Mode
from workbench.kernels.jit import threads
from workbench.kernels.matmul.numba import backend

torch.set_num_threads(2)
tree = Draw(rows=1024, cols=1024).planes(1, 1024, extras=False)
run = backend.prepare(tree, Mode())
x = torch.randn(6, 1024, generator=torch.Generator().manual_seed(0))
expected = [reference.linear(row[None], tree) for row in x]

def right(i):
    y = run(x[i : i + 1])
    return bool((y - expected[i]).norm() < 2e-4 * expected[i].norm())
"""

TOGETHER = """
import numba
wrong = []
def work(i):
    wrong.extend(i for _ in range(40) if not right(i))
workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(numba.threading_layer(), wrong)
"""

FORKED = """
assert right(0)
child = os.fork()
if child == 0:
    os._exit(0 if right(1) and not threads.needs_threads(1 << 30) else 1)
print(os.waitpid(child, 0)[1], right(2))
"""


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter with two threads prints."""
    environment = {
        **os.environ,
        "NUMBA_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **environment,
    }
    said = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, env=environment, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


LARGEST = """
from dataclasses import replace
from workbench.kernels.jit.simd import INSTRUCTION

def largest(tree, name):
    '''Whether no sum overflows where all signs are those of their inputs.'''
    full = replace(tree, tensors={**tree.tensors, name: torch.full_like(tree.tensors[name], 255)})
    ones = torch.ones(1, 1024)
    y, expected = backend.prepare(full, Mode())(ones), reference.linear(ones, full)
    return bool((y - expected).norm() < 2e-4 * expected.norm())

draw = Draw(rows=1024, cols=1024)

def near(tree, most, **mode):
    expected = reference.linear(x, tree)
    return bool((backend.prepare(tree, Mode(**mode))(x) - expected).norm() < most * expected.norm())

others = near(tree, 2e-2, precision="fast"), near(draw.codebook(11, 600, 1024, extras=False), 2e-4, cache="none")
codes = [largest(draw.uniform(bits, 1024, zero=False), "codes") for bits in (2, 3, 4, 8)]
print(INSTRUCTION, all(map(right, range(6))), largest(tree, "signs"), *others, *codes)
"""


def available(layer: str) -> bool:
    """Whether numba has this threading layer here."""
    code = "import numba, numpy\n@numba.vectorize(['f8(f8)'], target='parallel')\ndef f(x): return x\nf(numpy.ones(2))"
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False).returncode == 0


@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_two_threads_may_call_at_once(layer: str) -> None:
    if layer != "workqueue" and not available(layer):
        pytest.skip(f"numba has no threading layer {layer!r} here")
    assert run(COMMON + TOGETHER, NUMBA_THREADING_LAYER=layer) == f"{layer} []"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_runs_on_one_thread() -> None:
    assert run(COMMON + FORKED, NUMBA_THREADING_LAYER="workqueue") == "0 True"
    if available("omp"):
        assert run(COMMON + FORKED, NUMBA_THREADING_LAYER="omp") == "0 True"


@pytest.mark.parametrize(
    ("instruction", "environment"),
    [
        pytest.param("portable", {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, id="portable"),
        pytest.param("avx2", {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}, id="avx2"),
    ],
)
def test_other_processors_give_the_same(instruction: str, environment: dict[str, str]) -> None:
    from workbench.kernels.jit import simd

    if instruction != "portable" and instruction not in simd.list_cpu_features():
        pytest.skip(f"this processor has no {instruction}")
    assert run(COMMON + LARGEST, **environment) == f"{instruction}{8 * ' True'}"
