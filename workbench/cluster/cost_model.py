"""What quantizing a layer costs on this machine, measured on small matrices and fitted, to be extrapolated to large ones.

seconds(rows, cols) = a · cols + b · rows·cols + c · rows·cols² + d · cols³, none of them negative: the calls for every column,
the work for every weight, the feedback of errors from column to column, and the factorization of the second moment. Measurements
run on one thread, and are the least processor time of several: on a busy machine they are what an idle one would take.
"""

import itertools
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from workbench import registry
from workbench.jobs import Counted, run_steps
from workbench.moment_sums import add_product
from workbench.quantizers.pipeline import can_use_moment, needs_moment, quantize_layer
from workbench.recipe import Recipe

# rows and columns, from the cheapest on
SHAPES = ((64, 256), (256, 256), (128, 512), (64, 1024), (256, 1024), (64, 2048), (256, 2048))
MEASURING_SECONDS = 60.0  # of processor time, after which no further shape is begun
LEAST_SHAPES = 5
MEASURING_ERROR = 0.1  # of a measurement, at least, in the range of an estimate
TRIES, TRY_SECONDS = 3, 2.0  # of a matrix, unless it takes longer
WINDOW_TOKENS, WINDOW_COLS = 512, 1024  # of the matrix products that are timed

Terms = tuple[float, float, float, float]


@dataclass(frozen=True)
class MeasuredShape:
    """The time that one matrix took, and the bits that were stored for each of its weights."""

    rows: int
    cols: int
    seconds: float
    bits_per_weight: float


@dataclass(frozen=True)
class CostModel:
    """Measured costs of one recipe on one thread, and what was fitted to them.

    `terms` are seconds for each unit of cols, rows·cols, rows·cols² and cols³; `misfit` is the largest relative difference
    between a measurement and the fit. `alternatives` are the terms that are fitted where each measurement is off by the misfit or
    a tenth, whichever is more, in any combination. `read_seconds` are those of one multiply-add in a product of matrices,
    `moment_seconds` those for each token and entry of a second moment.
    """

    measured: tuple[MeasuredShape, ...]
    terms: Terms
    alternatives: tuple[Terms, ...]
    misfit: float
    read_seconds: float
    moment_seconds: float
    uses_moment: bool
    learns: bool

    @property
    def bits_per_weight(self) -> float:
        """Stored bits of each weight, of the largest matrix that was tried."""
        return self.measured[-1].bits_per_weight

    def predict(self, rows: int, cols: int) -> float:
        """Seconds that a matrix takes."""
        return _apply_terms(self.terms, rows, cols)

    def predict_range(self, shapes: Sequence[tuple[int, int]]) -> tuple[float, float]:
        """The least and the most seconds that all these matrices take where every measurement may be off: no confidence interval,
        but how far errors of the measurements carry in the extrapolation."""
        totals = [sum(_apply_terms(terms, *shape) for shape in shapes) for terms in (self.terms, *self.alternatives)]
        return min(totals), max(totals)


def _apply_terms(terms: Terms, rows: int, cols: int) -> float:
    return sum(term * size for term, size in zip(terms, _compute_sizes(rows, cols), strict=True))


def _compute_sizes(rows: int, cols: int) -> Terms:
    """What the terms are multiplied with."""
    return float(cols), float(rows * cols), float(rows) * cols**2, float(cols) ** 3


def measure_costs(recipe: Recipe, seed: int = 0) -> CostModel:
    """Measure a recipe on a few small random matrices, on one thread; takes up to a minute or so.

    Args:
        recipe: The recipe; a transform that is learned is left out, and so is refinement.
        seed: Draws the matrices.

    Returns:
        The measurements with what was fitted to them.
    """
    return run_steps(measure_costs_steps(recipe, seed))


def measure_costs_steps(recipe: Recipe, seed: int = 0) -> Generator[Counted, None, CostModel]:
    """The same as a generator that yields a step for each matrix."""
    learns = recipe.refines or recipe.transform.learns
    plain = recipe.replace(transform=registry.make("transform", "identity")) if recipe.transform.learns else recipe
    generator, measured, begin = torch.Generator().manual_seed(seed), list[MeasuredShape](), time.process_time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _measure_shape(plain, *SHAPES[0], generator)  # compiles what is compiled
        for number, (rows, cols) in enumerate(SHAPES):
            if len(measured) < LEAST_SHAPES or time.process_time() - begin < MEASURING_SECONDS:
                measured.append(_measure_shape(plain, rows, cols, generator))
            yield Counted(number + 1, len(SHAPES))
        read, moment = _measure_products(generator)
    finally:
        torch.set_num_threads(threads)
    return fit_costs(measured, read, moment, uses_moment=can_use_moment(recipe), learns=learns)


def fit_costs(
    measured: Sequence[MeasuredShape], read_seconds: float, moment_seconds: float, *, uses_moment: bool, learns: bool
) -> CostModel:
    """Fit the terms to measurements."""
    terms = _fit_terms(measured)
    misfit = max(abs(_apply_terms(terms, one.rows, one.cols) / one.seconds - 1) for one in measured)
    error = max(misfit, MEASURING_ERROR)
    factors = itertools.product((1 - error / (1 + error), 1 + error), repeat=len(measured))
    alternatives = tuple(
        _fit_terms([replace(one, seconds=one.seconds * factor) for one, factor in zip(measured, chosen, strict=True)])
        for chosen in factors
    )
    return CostModel(tuple(measured), terms, alternatives, misfit, read_seconds, moment_seconds, uses_moment, learns)


def _fit_terms(measured: Sequence[MeasuredShape]) -> Terms:
    """Non-negative least squares of relative errors."""
    from scipy.optimize import nnls

    sizes = np.array([_compute_sizes(one.rows, one.cols) for one in measured])
    relative = sizes / np.array([[one.seconds] for one in measured])
    scale = relative.max(0)  # the terms differ by many orders of magnitude
    solution, _ = nnls(relative / scale, np.ones(len(measured)))
    a, b, c, d = solution / scale
    return float(a), float(b), float(c), float(d)


def _measure_shape(recipe: Recipe, rows: int, cols: int, generator: torch.Generator) -> MeasuredShape:
    """The time of a random matrix under the second moment of random inputs."""
    weight, moment = torch.randn(rows, cols, generator=generator), None
    if needs_moment(recipe):
        inputs = torch.randn(2 * cols, cols, generator=generator)
        moment = inputs.T @ inputs / len(inputs)
    times = list[float]()
    while len(times) < TRIES and sum(times) < TRY_SECONDS:
        begin = time.process_time()
        result = run_steps(quantize_layer(weight, moment, recipe))
        times.append(max(time.process_time() - begin, 1e-6))
    return MeasuredShape(rows, cols, min(times), result.bits_per_weight)


def _measure_products(generator: torch.Generator) -> tuple[float, float]:
    """Seconds of a multiply-add in a product of matrices, and of a token and entry in the sum of second moments."""
    inputs = torch.randn(WINDOW_TOKENS, WINDOW_COLS, generator=generator)
    weight = torch.randn(WINDOW_COLS, WINDOW_COLS, generator=generator)
    total = torch.zeros(WINDOW_COLS, WINDOW_COLS, dtype=torch.float64)
    times = []
    for work in (lambda: inputs @ weight, lambda: add_product(total, inputs, inputs)):
        seconds = list[float]()
        for _ in range(TRIES + 1):
            begin = time.process_time()
            work()
            seconds.append(time.process_time() - begin)
        times.append(max(min(seconds), 1e-6) / (WINDOW_TOKENS * WINDOW_COLS**2))
    return times[0], times[1]
