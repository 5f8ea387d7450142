"""The benchmark: contestants take turns, so that disturbances affect all of them; ratios are paired by round.

Cold: between two turns of a matrix more bytes of others are read than caches hold. Hot: the same matrix again and again.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from workbench.bench import cpu, gpu
from workbench.bench.contestants import BASELINE, LAYER, TORCH, Ready, check_name, list_contestants, make, prepare_layer
from workbench.bench.machine import Machine
from workbench.errors import KernelError
from workbench.jobs import run_steps
from workbench.kernels.packing.packed import Packed

if TYPE_CHECKING:
    import pandas as pd

COLD_BYTES = 192 << 20  # read between two turns of one matrix
TURN = 2e-3  # seconds of a turn at least; fast products run several times in one
OUTLIERS = 8  # inputs a hundred times as large as the others, as language models have them


@dataclass(frozen=True)
class Measured:
    """One contestant in one setting.

    Times in microseconds: the median and the quartiles around it. `ratio` is the median over turns of the baseline's time over
    this one. `bytes` is what a product reads of the matrix, `error` the distance to float64 over the norm, for inputs with
    outliers. `best_torch` is the fastest of torch's contestants in this setting, and `best_ratio` the ratio over that one.
    """

    format: str
    state: str
    threads: int
    batch: int
    microseconds: float
    low: float
    high: float
    ratio: float
    bytes: int
    bits_per_weight: float
    read: float
    operations: float
    error: float
    best_torch: str = ""
    best_ratio: float = 0.0


@dataclass(frozen=True)
class Result:
    """The machine, the shape and a row for each contestant and setting. `read` is in GB/s, `operations` in GFLOP/s.

    `ratio` is over the contestant `baseline`.
    """

    machine: Machine
    rows: int
    cols: int
    turns: int
    baseline: str
    measured: tuple[Measured, ...]

    def table(self) -> "pd.DataFrame":
        """One row a contestant and setting; columns as in `Measured`."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.measured])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "machine": asdict(self.machine),
            "rows": self.rows,
            "cols": self.cols,
            "turns": self.turns,
            "baseline": self.baseline,
            "results": [asdict(row) for row in self.measured],
        }


@dataclass(frozen=True)
class Measuring:
    """How far a bench is."""

    fraction: float


def measure_kernels(
    shape: tuple[int, int] = (4096, 4096),
    formats: Sequence[str] | None = None,
    *,
    on_progress: Callable[[float, float], None] = lambda *_: None,
    **settings: Any,
) -> Result:
    """Time products `[batch, cols]` × `[rows, cols]`ᵀ from packed weights beside torch in float32, with cold and with hot caches.

    Args:
        shape: Rows and columns of the matrix.
        formats: Names of the formats to time, all when absent; an unknown one lists those that there are.
        on_progress: Called with (share done, 1) after every measurement.
        settings: `batches` (inputs at a time, 1 when absent), `threads` (1 and all that torch uses), `turns` (15), `cold_bytes`
            (bytes of other matrices that are read between two cold turns), `device` ("cpu" or "cuda"), and `layer`, a stored
            matrix of this shape that takes part.

    Returns:
        The machine and a row for each contestant and setting: microseconds (median and quartiles), the ratio to torch in
        float32 and to the fastest of torch's types that takes part, GB/s read, GFLOP/s, and the error against float64.

    Raises:
        KernelError: For a format or setting that does not exist.

    Example:
        >>> import workbench as wb
        >>> result = wb.measure_kernels((64, 128), ["signs"], threads=[1], turns=3)
        >>> table = result.table()
        >>> table["format"].tolist(), table["state"].tolist()
        (['torch-fp32', 'signs', 'torch-fp32', 'signs'], ['cold', 'cold', 'hot', 'hot'])
    """
    result = run_steps(measure_kernels_steps(shape, formats, **settings), lambda step: on_progress(step.fraction, 1))
    on_progress(1, 1)
    return result


def measure_kernels_steps(
    shape: tuple[int, int],
    formats: Sequence[str] | None = None,
    *,
    layer: Packed | None = None,
    batches: Sequence[int] = (1,),
    threads: Sequence[int] | None = None,
    turns: int = 15,
    cold_bytes: int = COLD_BYTES,
    device: str = "cpu",
) -> Generator[Measuring, None, Result]:
    """The bench as a generator that yields after every matrix made and every setting measured, for a job that can be stopped.

    `formats` are names of `contestants`, by default all; `layer`, a stored matrix of this shape, takes part as "this layer".
    Between two cold turns of a matrix `cold_bytes` of others are read. `threads` are numbers of threads, by default 1 and all
    that torch uses. On `device` "cuda" there are none, inputs are bf16, and torch's bf16 is what others are compared with.
    Kernels are compiled and matrices made before anything is timed. KernelError for an unknown format and for a setting that
    cannot be.
    """
    rows, cols = shape
    counts = (1,) if device == "cuda" else tuple(threads or sorted({1, torch.get_num_threads()}))
    check(rows, cols, batches, counts, turns)
    gpu.check(device)
    baseline = BASELINE[device]
    chosen = [baseline, *(name for name in (list_contestants(device, shape) if formats is None else formats) if name != baseline)]
    for name in chosen:  # before any matrix is made
        check_name(name, device)
    settings = list(itertools.product(counts, batches, ("cold", "hot")))
    total = len(chosen) + 1 + len(settings)
    ready: dict[str, list[Ready]] = {} if layer is None else {LAYER: [prepare_layer(layer)]}
    for done, name in enumerate(chosen):
        ready[name] = [make(name, rows, cols, device)]
        yield Measuring((done + 1) / total)
    between = sum(group[0].bytes for group in ready.values())
    for name, group in ready.items():
        copies = -(-cold_bytes // (group[0].bytes if device == "cuda" else between)) + 1  # there, own copies follow each other
        again = group[0].copy if name == LAYER else partial(make, name, rows, cols, device)
        group.extend(again() for _ in range(copies - 1))
    machine = gpu.measure() if device == "cuda" else cpu.measure(counts)
    errors = {name: _measure_error(group[0], cols, device) for name, group in ready.items()}
    yield Measuring((len(chosen) + 1) / total)
    measurements: list[Measured] = []
    for done, (count, batch, state) in enumerate(settings, len(chosen) + 2):
        with cpu.set_thread_count(count):
            turn = gpu.take_turns if device == "cuda" else take_turns
            seconds = turn(ready, _generate_inputs(batch, cols, device), turns, cold=state == "cold")
        best = min((name for name in seconds if name in TORCH), key=lambda name: statistics.median(seconds[name]))
        for name, durations in seconds.items():
            times = Times(durations, seconds[baseline], best, seconds[best])
            measurements.append(
                _summarise_times(name, state, count, batch, times, ready[name][0].bytes, rows * cols, errors[name])
            )
        yield Measuring(done / total)
    return Result(machine, rows, cols, turns, baseline, tuple(measurements))


class Times(NamedTuple):
    """Seconds of a product, turn by turn, and those of the baseline and of torch's fastest, by name, in the same turns."""

    durations: list[float]
    baseline: list[float]
    best_torch: str
    best: list[float]

    def ratio(self, others: list[float]) -> float:
        """The median over turns of the others' time over this one's."""
        return statistics.median(other / duration for other, duration in zip(others, self.durations, strict=True))


def _summarise_times(
    name: str, state: str, threads: int, batch: int, times: Times, size: int, weights: int, distance: float
) -> Measured:
    """What the times of one contestant come to."""
    low, median, high = statistics.quantiles(times.durations, n=4)
    return Measured(
        format=name,
        state=state,
        threads=threads,
        batch=batch,
        microseconds=1e6 * median,
        low=1e6 * low,
        high=1e6 * high,
        ratio=times.ratio(times.baseline),
        bytes=size,
        bits_per_weight=8 * size / weights,
        read=size / median / 1e9,
        operations=2 * weights * batch / median / 1e9,
        error=distance,
        best_torch=times.best_torch,
        best_ratio=times.ratio(times.best),
    )


def check(rows: int, cols: int, batches: Sequence[int], threads: Sequence[int], turns: int) -> None:
    """KernelError for numbers that cannot be."""
    if min(rows, cols) < 8:
        raise KernelError(f"a matrix of {rows} × {cols}; use at least 8 rows and 8 columns.")
    if min(batches, default=0) < 1 or min(threads, default=0) < 1:
        raise KernelError(f"batches {list(batches)} and threads {list(threads)}; use numbers of at least 1.")
    if turns < 3:
        raise KernelError(f"{turns} turns; use at least 3, for a median and quartiles.")


def take_turns(ready: dict[str, list[Ready]], x: Tensor, turns: int, *, cold: bool) -> dict[str, list[float]]:
    """Seconds a product of each contestant, turn by turn; cold turns go through all copies of a matrix, as a model through its
    layers: what sleeps between turns, as threads do, is woken once."""
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    with torch.inference_mode():
        runs = {name: group if cold else group[:1] * _count_repeats(group[0], x) for name, group in ready.items()}
        for turn in range(turns):
            # another order each turn: who follows a large matrix finds colder caches than the others
            for name in Random(turn).sample(list(ready), len(ready)):
                begin = time.perf_counter()
                for one in runs[name]:
                    one.run(x)
                seconds[name].append((time.perf_counter() - begin) / len(runs[name]))
    return seconds


def _count_repeats(one: Ready, x: Tensor) -> int:
    """How often a product runs in one turn."""
    one.run(x)
    begin = time.perf_counter()
    one.run(x)
    return max(1, int(TURN / (time.perf_counter() - begin)))


def _generate_inputs(batch: int, cols: int, device: str) -> Tensor:
    """Random inputs in the type that is common on the device."""
    return torch.randn(batch, cols, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)


def _measure_error(one: Ready, cols: int, device: str) -> float:
    """‖y − y₆₄‖ / ‖y₆₄‖ for two inputs, one of them with outliers."""
    x = _generate_inputs(2, cols, device)
    x[1, :OUTLIERS] *= 100
    expected = x.double() @ one.decode().mT
    return float((one.run(x) - expected).norm() / expected.norm())
