"""How fast packed layers run on this machine: measured beside torch in one process, with what the machine could do at most."""

from workbench.bench.machine import Machine
from workbench.bench.run import Result, measure_kernels, measure_kernels_steps

__all__ = ["Machine", "Result", "measure_kernels", "measure_kernels_steps"]
