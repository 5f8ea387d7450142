"""A machine's limits, as `cpu` or `gpu` measures them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What so many threads reach: bytes read from memory in GB/s (10⁹), float32 multiply-adds in GFLOP/s (two each)."""

    threads: int
    read: float
    multiply: float


@dataclass(frozen=True)
class Machine:
    """The processor, what looks bytes up on it (a GPU: its architecture), the compiler of kernels, and its limits.

    `call` is one call of compiled code in microseconds.
    """

    processor: str
    cores: int
    instruction: str
    torch: str
    compiler: str
    call: float
    limits: tuple[Limits, ...]

    def limits_at(self, threads: int) -> Limits:
        """The limits of so many threads."""
        return next(limits for limits in self.limits if limits.threads == threads)
