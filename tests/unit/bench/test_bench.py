"""The bench measures what it says: every contestant runs, errors fit its precision, and figures agree with each other."""

import json

import pytest
import torch

from workbench.bench import cpu, measure_kernels
from workbench.bench.contestants import BASELINE, CONTESTANTS, TORCH, list_contestants, make
from workbench.bench.run import Result, take_turns
from workbench.errors import KernelError
from workbench.kernels.packing.packed import Packed

ERRORS = {"torch-fp32": 1e-6, "torch-int4": 1e-2, "torch-bf16": 1e-2, "torch-int8": 0.3, "signs-fast": 3e-2}
EXACT = 2e-4
FEW = 1 << 20  # bytes between cold turns: what is tested is not how cold they are


@pytest.fixture(scope="module")
def result() -> Result:
    return measure_kernels((128, 256), batches=(1, 3), threads=(1,), turns=4, cold_bytes=FEW)


def test_every_contestant_is_measured_in_every_setting(result: Result) -> None:
    table = result.table()
    assert len(table) == len(CONTESTANTS) * 2 * 2
    assert set(table["format"]) == set(CONTESTANTS)
    assert table.groupby("format")[["batch", "state"]].nunique().eq(2).all().all()


def test_errors_are_those_of_the_precision(result: Result) -> None:
    for row in result.measured:
        assert 0 < row.error < ERRORS.get(row.format, EXACT), row


def test_figures_agree(result: Result) -> None:
    for row in result.measured:
        assert row.low <= row.microseconds <= row.high
        assert row.bits_per_weight == pytest.approx(8 * row.bytes / (128 * 256))
        assert row.read == pytest.approx(row.bytes / row.microseconds / 1e3)
        assert row.operations == pytest.approx(2 * 128 * 256 * row.batch / row.microseconds / 1e3)
        assert (row.ratio == 1) == (row.format == result.baseline == BASELINE["cpu"])


def test_the_best_of_torch_is_the_fastest_in_its_setting(result: Result) -> None:
    table = result.table()
    for _, setting in table.groupby(["state", "threads", "batch"]):
        torch_rows = setting[setting["format"].isin(TORCH)]
        assert len(torch_rows) == len(TORCH)
        best = torch_rows.loc[torch_rows["microseconds"].idxmin()]
        assert setting["best_torch"].unique().tolist() == [best["format"]]
        assert setting.loc[setting["format"] == best["format"], "best_ratio"].tolist() == [1.0]
        assert (torch_rows.loc[torch_rows["format"] != best["format"], "best_ratio"] < 1.5).all()


def test_torch_has_no_4_bits_for_some_shapes() -> None:
    assert "torch-int4" in list_contestants("cpu", (64, 96))
    assert "torch-int4" not in list_contestants("cpu", (63, 96))
    assert "torch-int4" not in list_contestants("cuda")
    with pytest.raises(KernelError, match="does not multiply a matrix of 64 × 100 in 4 bits; use rows that are a multiple of 16"):
        make("torch-int4", 64, 100)


def test_the_result_is_json(result: Result) -> None:
    facts = json.loads(json.dumps(result.to_dict()))
    assert len(facts["results"]) == len(result.measured)
    assert facts["machine"]["limits"][0]["read"] > 0.1


def test_a_packed_matrix_is_smaller_than_what_it_stands_for() -> None:
    assert make("signs", 256, 512).bytes < make("torch-fp32", 256, 512).bytes / 25
    assert make("codebook-indices", 256, 512).bytes < make("codebook", 256, 512).bytes + 2 * 4096


def test_cold_turns_use_every_copy_and_hot_ones_the_first() -> None:
    used: list[int] = []

    class Copy:
        def __init__(self, number: int) -> None:
            self.run = lambda x: used.append(number)

    copies = {"x": [Copy(0), Copy(1), Copy(2)]}
    take_turns(copies, torch.ones(1, 8), 2, cold=True)  # type: ignore[arg-type]
    assert used == [0, 1, 2, 0, 1, 2]
    used.clear()
    take_turns(copies, torch.ones(1, 8), 6, cold=False)  # type: ignore[arg-type]
    assert set(used) == {0}


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with cpu.set_thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        pytest.param({"formats": ["signz"]}, r"unknown bench format 'signz'\. Did you mean 'signs'", id="format"),
        pytest.param({"shape": (4, 64)}, "a matrix of 4 × 64; use at least 8 rows", id="shape"),
        pytest.param({"batches": (0,)}, r"batches \[0\] and threads \[1\]; use numbers of at least 1", id="batch"),
        pytest.param({"device": "tpu"}, "device 'tpu'; use one of cpu, cuda", id="device"),
        pytest.param({"turns": 1}, "1 turns; use at least 3", id="turns"),
    ],
)
def test_mistakes(wrong: dict, sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence):
        measure_kernels(**{"shape": (64, 64), "formats": ["signs"], "threads": (1,), **wrong})


def test_the_reference_is_never_measured_as_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    with pytest.raises(KernelError, match="no compiled backend runs format 'planes'"):
        make("signs", 64, 64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here, which the bench can measure")
def test_a_gpu_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(KernelError, match="torch sees no CUDA device here; measure on the CPU"):
        measure_kernels((64, 64), device="cuda")


def test_a_layer_takes_part_beside_random_matrices() -> None:
    tree = Packed("dense", 64, 64, {"weight": torch.randn(64, 64).half()})
    result = measure_kernels((64, 64), ["signs"], layer=tree, threads=(1,), turns=3, cold_bytes=FEW)
    rows = result.table().set_index("format")
    assert set(rows.index) == {"this layer", "torch-fp32", "signs"}
    assert (rows.loc["this layer", "bytes"] == 4 * 64 * 64).all(), "plain torch holds the decoded matrix"
    assert (rows.loc["this layer", "error"] < 1e-5).all()


def test_a_gpu_has_its_own_contestants() -> None:
    with pytest.raises(KernelError, match="unknown bench format 'signs-fast'"):
        make("signs-fast", 64, 64, "cuda")
