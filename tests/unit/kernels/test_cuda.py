"""The Triton kernels: right in the interpreter, compiled for a GPU that need not be there, and right on one where there is."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from tests.unit.kernels.conftest import Draw
from tests.unit.kernels.interpret_cuda import FORMS
from workbench.kernels import forced_backend
from workbench.kernels.matmul import dispatch
from workbench.kernels.matmul.cuda import backend
from workbench.kernels.packing.packed import Packed

EXACT = {"float32": 2e-4, "float16": 2e-3}
with_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed; it comes with the extra 'test' on Linux"
)


def run(*words: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    said = subprocess.run([sys.executable, *words], text=True, capture_output=True, env=environment, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


def check(found: dict[str, float]) -> None:
    """Every form, cache, number of inputs and type is within its bound."""
    assert {name.split("/")[0] for name in found} == set(FORMS)
    wrong = {name: distance for name, distance in found.items() if not distance < EXACT[name.rsplit("/", 1)[1]]}
    assert not wrong


@with_triton
def test_every_form_is_right_in_the_interpreter() -> None:
    check(json.loads(run("-m", "tests.unit.kernels.interpret_cuda", TRITON_INTERPRET="1")))


def test_every_form_is_right_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine; its kernels ran in the interpreter")
    check(json.loads(run("-m", "tests.unit.kernels.interpret_cuda", TRITON_INTERPRET="0")))


COMPILED = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from workbench.kernels.matmul.cuda import triton_kernels as kernels

def ptx(kernel, constants, kinds):
    names = [name for name in kernel.arg_names if name not in constants]
    signature = {name: kinds.get(name, "i32") for name in names} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
    return {"shared": compiled.metadata.shared, "tensor cores": "mma" in compiled.asm["ptx"]}

tables = {"table": "*fp32", "index": "*u8", "scale": "*fp16", "y": "*fp32"}
given = {"x": "*bf16", "codes": "*u8", "words": "*i32", "scale": "*fp16", "zero": "*u8", "y": "*fp32"}
tile = {"INPUTS": 16, "ROWS": 64, "COLS": 64}
print(json.dumps({
    "look_up": ptx(kernels.look_up, {"ENTRIES": 512, "ROWS": 128, "TOGETHER": 2}, tables),
    "signs": ptx(kernels.multiply, {"FORM": 0, "LENGTH": 8, "BITS": 1, **tile}, given),
    "indices": ptx(kernels.multiply, {"FORM": 1, "LENGTH": 10, "BITS": 1, **tile}, given | {"codes": "*i16"}),
    "codes": ptx(kernels.multiply, {"FORM": 2, "LENGTH": 2, "BITS": 4, **tile}, given),
}))
"""


@with_triton
def test_kernels_compile_for_a_gpu_that_is_not_here() -> None:
    found = json.loads(run("-c", COMPILED, TRITON_INTERPRET="0"))
    assert found["look_up"]["shared"] >= 512 * 4, "the table goes through shared memory"
    assert [found[name]["tensor cores"] for name in ("look_up", "signs", "indices", "codes")] == [False, True, True, True]


REFUSED = {
    "device": (lambda draw: draw.planes(1, 48, extras=False), "it runs on a CUDA device, and the stored tensors are on cpu"),
    "nothing": (lambda draw: Packed("zero", draw.rows, draw.cols), "it runs on a CUDA device, and nothing is stored on one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, sentence = REFUSED[case]
    monkeypatch.delenv(forced_backend.VARIABLE, raising=False)
    assert dispatch.explain(make(Draw(rows=8, cols=48))).refused["cuda"] == sentence


UNFIT = {
    "format": (lambda draw: draw.hadamard(draw.dense()), "it has no kernel for format 'dense'"),
    "bits": (lambda draw: draw.uniform(5, 48, zero=True), "codes of 5 bits are too wide; it runs 1 to 4"),
    "groups": (lambda draw: draw.planes(1, 8, extras=False), "groups of 8 columns are not a multiple of the 16"),
    "vectors": (lambda draw: draw.codebook(10, 16, 16, extras=False), "groups of 16 columns do not consist of vectors of 10"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_it_cannot_run(case: str) -> None:
    make, sentence = UNFIT[case]
    assert sentence in str(backend.describe_misfit(make(Draw(rows=8, cols=48))))


def test_triton_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.describe_refusal(Draw(rows=8, cols=48).planes(1, 48, extras=False), 1) == (
        "Triton is not installed; it comes with the extra 'gpu'"
    )
