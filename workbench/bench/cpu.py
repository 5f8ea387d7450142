"""Limits of the processor: memory bandwidth, arithmetic and call overhead, each the best of several tries."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from workbench.bench.machine import Limits, Machine
from workbench.interrupts import defer_interrupts

CPU_READ_BYTES = 256 << 20  # more than caches hold
MAX_LOOP_TURNS = 200_000


def measure(threads: tuple[int, ...]) -> Machine:
    """The processor's limits with so many threads each; takes a second or two."""
    with defer_interrupts():
        from workbench.kernels.jit.simd import INSTRUCTION
        from workbench.kernels.matmul.numba import machine_limits

    data = np.ones(CPU_READ_BYTES, np.uint8)
    x, y = np.zeros((1, 8), np.float32), np.zeros((1, 8), np.float32)
    call = measure_best_time(lambda: [machine_limits.do_nothing(x, y) for _ in range(1000)]) / 1000
    limits = tuple(_measure_limits(data, count) for count in threads)
    return Machine(
        read_processor_name(),
        torch.get_num_threads(),
        INSTRUCTION,
        torch.__version__,
        f"numba {version('numba')}",
        1e6 * call,
        limits,
    )


def _measure_limits(data: np.ndarray, count: int) -> Limits:
    """The limits of so many threads."""
    with defer_interrupts():
        from workbench.kernels.jit.threads import use_threads
        from workbench.kernels.matmul.numba import machine_limits

    def timed(loop: Callable[..., None], buffer: object, out: np.ndarray) -> float:
        def run() -> None:
            with use_threads():
                loop(buffer, out)

        return measure_best_time(run)

    with set_thread_count(count):
        read = len(data) / timed(machine_limits.read, data, np.ones((count, 64), np.uint8))
        multiply = (
            2
            * 256
            * MAX_LOOP_TURNS
            * count
            / timed(machine_limits.run_multiply_adds, MAX_LOOP_TURNS, np.ones((count, 32), np.float32))
        )
    return Limits(count, read / 1e9, multiply / 1e9)


@contextmanager
def set_thread_count(count: int) -> Iterator[None]:
    """Within the block, torch and compiled loops use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_best_time(run: Callable[[], object], tries: int = 5) -> float:
    """The shortest of several times, in seconds, after one that does not count."""
    run()
    times = []
    for _ in range(tries):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def read_processor_name() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
