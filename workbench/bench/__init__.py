"""Speed of packed layers on this machine, measured beside torch in one process, with the limits of the machine."""

from workbench.bench.machine import Machine
from workbench.bench.run import Result, measure_kernels, measure_kernels_steps

__all__ = ["Machine", "Result", "measure_kernels", "measure_kernels_steps"]
