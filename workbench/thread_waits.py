"""How long threads of compiled loops wait for work before they sleep.

GNU OpenMP lets them spin for milliseconds, on the guess that nobody else wants the cores. Two such runtimes are in this process
(torch brings its own, numba takes the system's), so that the waiting threads of one hold up those of the other, and any other
program on the machine holds up both: a loop that waits for a thread which is not running takes a hundred times as long. After a
short spin they sleep, and a small loop takes up to 0.1 ms more where the machine is idle.
"""

import os

SPINS = 1000  # some twenty microseconds: longer than from one loop of a layer to the next, shorter than a turn of the scheduler
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by which a user decides it


def shorten_spins() -> None:
    """Let waiting threads of this process and of those that it starts sleep soon, unless the environment says how long they wait.

    It has an effect only before torch and numba are imported, and on GNU's OpenMP, which they use on Linux.
    """
    if not any(name in os.environ for name in SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
