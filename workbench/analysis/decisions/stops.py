"""The sizes that a model is squeezed to, and the preset that is best at each.

Integers rounded to nearest are as good as anything at 8 and 6 bits and cost seconds, with error feedback at 4 and 3 bits they
still run on compiled kernels; from 2 bits down a trellis has the lowest perplexity of all presets that need no
training (README, "Below one bit"; training buys a little more for many times the time).
"""

from dataclasses import dataclass

from workbench import presets
from workbench.analysis.decisions.headline import count_stored
from workbench.models import ModelHandle
from workbench.recipe import Recipe


@dataclass(frozen=True)
class Stop:
    """One position of the slider: nominal `bits`, the preset that is best there, and what building it costs beside the others."""

    bits: float
    preset: str
    cost: float

    @property
    def recipe(self) -> Recipe:
        """The preset's recipe."""
        return presets.parse(self.preset)

    @property
    def is_original(self) -> bool:
        """Whether the stop is the model as it is."""
        return self.preset == "none"


STOPS = (
    Stop(16, "none", 1),
    Stop(8, "rtn:bits=8", 2),
    Stop(6, "rtn:bits=6", 2),
    Stop(4, "gptq:bits=4", 6),
    Stop(3, "gptq:bits=3", 6),
    Stop(2, "qtip:bits=2", 14),
    Stop(1.5, "qtip:bits=1.5", 12),
    Stop(1, "qtip:bits=1", 16),
    Stop(0.8, "qtip:bits=0.8", 12),
    Stop(0.64, "qtip:bits=0.64", 12),
)


def choose_stops(model: ModelHandle) -> tuple[Stop, ...]:
    """The stops below what a model stores: one of 4.5 bits per weight has none at 8 and 6 bits. The first is the model itself."""
    bits = count_stored(model, None).bits_per_weight
    return tuple(stop for stop in STOPS if stop.is_original or stop.bits < bits)
