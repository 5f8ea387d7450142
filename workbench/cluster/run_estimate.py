"""Time, memory and price of quantizing a model of any size on several machines, extrapolated from costs measured on this one.

The run: a text is read once and second moments are summed, then every layer is quantized by itself under its moment, layers being
spread over all cores of all machines, the longest first. Reading the text is divided among machines only for a model that fits
into memory (see `cluster.calibration`); a larger one is read on one machine, with all its cores.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.cluster.calibration import PARTS
from workbench.cluster.cost_model import CostModel
from workbench.errors import WorkbenchError
from workbench.models.config_shapes import LayerShape, ModelShapes
from workbench.models.streaming import STREAM_BYTES

STORED_BYTES = 2  # of a parameter in the checkpoint
PROCESS_BYTES = 600e6  # of a worker with torch and transformers, before it has read anything
MOMENT_BYTES = 4 + 4 + 8 + 8  # a second moment, its shrunk form, its factor, and what works on these
WEIGHT_COPIES = 4  # float32 matrices of the size of a layer while it is quantized


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes on so many machines: seconds with the least and the most that the fits allow, and bytes of memory.

    `calibration` and `quantizing` are its two parts, seconds; `worker_memory` is that of one of its `cores` workers on each
    machine, `memory` that of a machine.
    """

    machines: int
    cores: int
    calibration: float
    quantizing: float
    low: float
    high: float
    worker_memory: float
    price: float | None = None

    @property
    def seconds(self) -> float:
        """From start to end."""
        return self.calibration + self.quantizing

    @property
    def memory(self) -> float:
        """Bytes that one machine needs."""
        return self.cores * self.worker_memory

    @property
    def machine_hours(self) -> float:
        """Hours of all machines together, from start to end."""
        return self.machines * self.seconds / 3600

    @property
    def cost(self) -> float | None:
        """What the machine-hours cost, where their price is known."""
        return None if self.price is None else self.machine_hours * self.price


def estimate_run(
    shapes: ModelShapes, costs: CostModel, machines: int, *, cores: int, tokens: int, price: float | None = None
) -> RunEstimate:
    """Estimate a run on so many machines like this one.

    Args:
        shapes: The model's layers, from `read_model_shapes`.
        costs: Measured costs of the recipe, from `measure_costs`.
        machines: How many machines.
        cores: Workers on each, one for each core.
        tokens: Of the calibration text; 0 for a recipe that reads none.
        price: Of a machine-hour, in any currency.

    Returns:
        The estimate. Its range follows from the fits of the quantizing alone, and holds for machines like this one.

    Raises:
        WorkbenchError: For fewer machines or cores than 1.
    """
    if machines < 1 or cores < 1:
        raise WorkbenchError(f"{machines} machines with {cores} cores; use 1 or more of each.")
    reads = costs.uses_moment and tokens > 0
    calibration = _estimate_calibration(shapes, costs, tokens) if reads else 0.0
    streams = STORED_BYTES * (shapes.weights + shapes.other_parameters) > STREAM_BYTES
    calibration /= cores if streams else min(machines * cores, PARTS)
    sizes = [(layer.rows, layer.cols) for layer in shapes.layers]
    one_by_one = [costs.predict(*size) for size in sizes]
    quantizing = schedule_longest_first(one_by_one, machines * cores)
    low, high = (bound / sum(one_by_one) for bound in costs.predict_range(sizes))
    memory = max(map(_estimate_layer_memory, shapes.layers)) + PROCESS_BYTES
    bounds = calibration + low * quantizing, calibration + high * quantizing
    return RunEstimate(machines, cores, calibration, quantizing, *bounds, memory, price)


def _estimate_calibration(shapes: ModelShapes, costs: CostModel, tokens: int) -> float:
    """Seconds on one core to read the text once and to sum the second moments; each layer counts as if it shared no input."""
    reading = costs.read_seconds * tokens * shapes.weights
    return reading + costs.moment_seconds * tokens * sum(layer.cols**2 for layer in shapes.layers)


def _estimate_layer_memory(layer: LayerShape) -> float:
    """Bytes of a worker while it quantizes a layer, beside those of its process."""
    return 4 * WEIGHT_COPIES * layer.weights + MOMENT_BYTES * layer.cols**2


def schedule_longest_first(seconds: Sequence[float], workers: int) -> float:
    """When the last of these tasks ends where every worker takes the longest that is left."""
    ends = [0.0] * workers
    for task in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + task)
    return max(ends)
