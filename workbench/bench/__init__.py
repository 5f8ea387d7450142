"""How fast packed layers run on this machine: measured beside torch in one process, with what the machine could do at most."""

from workbench.bench.machine import Machine
from workbench.bench.run import Result, bench, bench_steps

__all__ = ["Machine", "Result", "bench", "bench_steps"]
