"""The same measurements on a GPU: matmuls are recorded once and replayed, so that only GPU time is counted.

On a GPU a product takes less time than Python takes to start it. A CUDA graph holds all products of a turn.
"""

from collections.abc import Callable
from importlib.metadata import version
from random import Random

import torch
from torch import Tensor

from workbench.bench.contestants import Ready
from workbench.bench.machine import Limits, Machine
from workbench.errors import KernelError

DEVICES = ("cpu", "cuda")
HOT = 20  # products of a turn where the same matrix is read again and again
GPU_READ_BYTES = 1 << 30
SIDE = 8192  # of the square matrices whose product shows what tensor cores do


def check(device: str) -> None:
    """KernelError for a device that is not known or not there."""
    if device not in DEVICES:
        raise KernelError(f"device {device!r}; use one of {', '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise KernelError("torch sees no CUDA device here; measure on the CPU, or install torch for CUDA and its driver.")


def measure() -> Machine:
    """The GPU's limits: bytes that a copy reads and writes, and bfloat16 products; it counts as one thread."""
    properties = torch.cuda.get_device_properties(0)
    source = torch.ones(GPU_READ_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    square = torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device="cuda")
    one = torch.zeros(1, device="cuda")
    read = 2 * GPU_READ_BYTES / _measure_best_time(lambda: target.copy_(source))
    multiply = 2 * SIDE**3 / _measure_best_time(lambda: square @ square)
    call = _measure_best_time(lambda: [one.add_(1) for _ in range(1000)]) / 1000
    name = f"sm_{properties.major}{properties.minor}"
    compiler = f"triton {version('triton')}"
    limits = (Limits(1, read / 1e9, multiply / 1e9),)
    return Machine(properties.name, properties.multi_processor_count, name, torch.__version__, compiler, 1e6 * call, limits)


def _measure_best_time(run: Callable[[], object], tries: int = 5) -> float:
    """The shortest of several times, in seconds, after one that does not count."""
    run()
    return min(_measure_seconds(run) for _ in range(tries))


def _measure_seconds(run: Callable[[], object]) -> float:
    """Seconds that the GPU takes."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def take_turns(ready: dict[str, list[Ready]], x: Tensor, turns: int, *, cold: bool) -> dict[str, list[float]]:
    """Seconds a product of each contestant, turn by turn; cold turns go through all copies of a matrix."""
    with torch.inference_mode():
        graphs = {name: _record_graph(group if cold else group[:1] * HOT, x) for name, group in ready.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for turn in range(turns):
            for name in Random(turn).sample(list(ready), len(ready)):
                count = len(ready[name]) if cold else HOT
                seconds[name].append(_measure_seconds(graphs[name].replay) / count)
    return seconds


def _record_graph(group: list[Ready], x: Tensor) -> torch.cuda.CUDAGraph:
    """One product with each matrix, ready to be replayed; run once before, so that kernels are compiled."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for one in group:
            one.run(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for one in group:
            one.run(x)
    return graph
