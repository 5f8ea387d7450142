"""How fast packed layers run on this machine: measured beside torch in one process, with what the machine could do at most."""

from workbench.bench.machine import Machine
from workbench.bench.run import Result, bench_steps, measure_kernels

__all__ = ["Machine", "Result", "bench_steps", "measure_kernels"]
