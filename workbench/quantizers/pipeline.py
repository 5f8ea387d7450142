"""The order in which a recipe's parts run on one layer.

check → transform (learned, fitted or given) → split → (fit · code · feed the error on)* → refit → correction → activations → pack
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from workbench.bits import FIGURES
from workbench.errors import RecipeError, ShapeError
from workbench.guided_moments import GuidedMoments
from workbench.jobs import map_steps, run_steps
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.memory import release_memory, spill
from workbench.moment_sums import WIDE
from workbench.nonfinite import count_nonfinite
from workbench.quantized import QuantizedLayer
from workbench.quantizers.coding import BlockErrors, CoderRun, ColumnCoder, SplitRun
from workbench.quantizers.coding_trace import CodingTrace, Picture, TraceRecorder, list_codebook_losses
from workbench.quantizers.contract import Codebooks, Coder, QuantizerPart, Snapshot, State
from workbench.quantizers.distance import compute_output_error
from workbench.quantizers.misfits import compute_checked_error
from workbench.quantizers.shrinkage import is_calibrated, shrink_moment
from workbench.recipe import Recipe

LARGE = 1 << 22  # weights of a matrix from which on freed memory is given back in between


def quantize_layer(
    weight: Tensor,
    moment: Tensor | None,
    recipe: Recipe,
    shared: Sequence[Codebooks | None] | None = None,
    name: str = "weight",
    state: State | None = None,
    *,
    tokens: int | None = None,
    measured: bool = True,
    guided: GuidedMoments | None = None,
) -> Generator[Snapshot, None, QuantizedLayer]:
    """Quantize `weight [rows, cols]` under `moment [cols, cols]` of so many `tokens`, yielding a Snapshot at every block.

    The fewer tokens, the more the moment is mixed with its diagonal (see `shrinkage`); without their number its rank says whether
    they are fewer than columns. A moment of zeros is that of no token: the layer counts as not calibrated.

    `shared` are the coders' shared parameters of the layer's scope (see `Coder.prepare`); None prepares them from this
    layer alone. `state` is what the transform has found out already (by block, see `runs.block_sequence`); None lets it find
    out from this layer alone. `guided` are the moments under which columns are coded instead, for recipes with that setting:
    transform, split and output error are those of `moment`. With `measured` false no output error is computed: a wide moment has
    to be read for it once more.
    Raises ShapeError for inputs that cannot be quantized and RecipeError for parts that do not fit together.
    """
    begin = time.perf_counter()
    check_inputs(weight, moment)
    check_recipe(recipe, moment)
    h, guided = prepare_moment(moment, tokens, recipe), prepare_guided(guided, recipe)
    transform, correction = recipe.transform, recipe.correction

    weight = weight.detach()
    w = weight.to(torch.float32)
    if state is None:
        state = yield from _learn_transform(w, h, recipe, shared)
    w = transform.forward(w, state)
    h_inner = None if h is None else transform.moment(h, state)
    if guided is not None:
        guided = guided.map_groups(lambda group: transform.moment(group, state))
    inner, coding_trace, picture, nominal = yield from _code_matrix(w, h_inner, guided, recipe, shared)
    _give_back(w)
    decoded = formats.decode(inner)
    coding_trace = coding_trace.then("refit", picture(decoded))
    yield Snapshot("refit", w.shape[1], w.shape[1], {"coding_trace": coding_trace}, decoded)
    extra = correction.fit(w - decoded, h_inner if guided is None else guided.mean)
    if extra is not None:
        inner = Packed("sum", inner.rows, inner.cols, children=(inner, extra))
        decoded = formats.decode(inner)
        coding_trace = coding_trace.then("correction", picture(decoded))
        yield Snapshot("correction", w.shape[1], w.shape[1], {"coding_trace": coding_trace}, decoded)
    del w, h_inner  # a large matrix takes as much memory as all that is not quantized
    packed = transform.pack(recipe.activations.pack(inner), state)
    if packed is not inner:
        del decoded
        decoded = formats.decode(packed)
    return QuantizedLayer(
        name=name,
        packed=packed,
        recipe=recipe,
        ledger=build_ledger(packed, nominal),
        relative_error=compute_checked_error(name, weight, decoded),
        output_error=compute_output_error(weight, decoded, moment.float()) if measured and is_calibrated(moment) else None,
        seconds=time.perf_counter() - begin,
        tokens=tokens if can_use_moment(recipe) else None,
    )


def _code_matrix(
    w: Tensor,
    moment: Tensor | None,
    guided: GuidedMoments | None,
    recipe: Recipe,
    shared: Sequence[Codebooks | None] | None,
) -> Generator[Snapshot, None, tuple[Packed, CodingTrace, Callable[[Tensor], Picture], float]]:
    """Split and code a matrix in its basis: the stored form, its trace with the recorder's `picture`, and the nominal bits.

    Masks, codes and the coded matrix are let go on return.
    """
    split, coders = recipe.split, recipe.coders
    division = SplitRun(split, w, moment)
    if shared is None:
        shared = [coder.prepare([w]) for coder in coders]
    mean = moment if guided is None else guided.mean
    runs = [CoderRun(i, *args, mean, guided) for i, args in enumerate(zip(coders, division.masks, shared, strict=True))]
    recorder = TraceRecorder(w)
    cost = moment if guided is None else guided.groups
    coded = yield from _code_columns(ColumnCoder(division, runs, recipe.assignment), w, cost, recorder)
    coding_trace = recorder.trace(
        coded, division.masks, tuple(rounds for run in runs for rounds in list_codebook_losses(run.shared))
    )
    del coded
    _refit_all(runs, w)
    children = [run.pack(masked=len(runs) > 1) for run in runs]
    return (
        split.pack(division.masks, children),
        coding_trace,
        recorder.picture,
        _compute_nominal_bits(coders, division.masks, children),
    )


def _refit_all(runs: Sequence[CoderRun[Any, Any]], w: Tensor) -> None:
    """Let each coder improve its parameters for what the others leave of the matrix."""
    for run in runs:
        others = [other.values() for other in runs if other is not run]
        run.refit(w - sum(others) if others else w)


def fit_transform(
    weight: Tensor,
    moment: Tensor | None,
    recipe: Recipe,
    shared: Sequence[Codebooks | None] | None = None,
    *,
    tokens: int | None = None,
) -> Generator[Snapshot, None, State]:
    """What the recipe's transform finds out about one layer, with a Snapshot for every step of a learned one.

    `shared`, `tokens` and errors as in `quantize_layer`.
    """
    check_inputs(weight, moment)
    h = prepare_moment(moment, tokens, recipe)
    return (yield from _learn_transform(weight.detach().to(torch.float32), h, recipe, shared))


def prepare_moment(moment: Tensor | None, tokens: int | None, recipe: Recipe) -> Tensor | None:
    """What the parts of a recipe are given for a second moment: shrunk, float32; where it is of no token as if there was none.

    A wide one is kept on disk: its factor fills the memory.
    """
    if is_calibrated(moment):
        h = shrink_moment(moment.to(torch.float32), tokens, recipe.shrinkage)
        return spill(h) if len(h) > WIDE and h is not moment else h
    return torch.eye(len(moment)) if moment is not None and needs_moment(recipe) else None


def prepare_guided(guided: GuidedMoments | None, recipe: Recipe) -> GuidedMoments | None:
    """Guided moments shrunk as `prepare_moment` shrinks the plain one, each as one of so many tokens as its weights are worth."""
    if guided is None or not bool(guided.weight.any()):
        return None
    counts = iter(guided.effective_tokens)
    shrunk = guided.map_groups(lambda moment: shrink_moment(moment, max(next(counts), 1), recipe.shrinkage))
    return replace(shrunk, groups=spill(shrunk.groups)) if shrunk.groups.numel() > WIDE * WIDE else shrunk


def _learn_transform(
    w: Tensor, h: Tensor | None, recipe: Recipe, shared: Sequence[Codebooks | None] | None
) -> Generator[Snapshot, None, State]:
    """The same for float32 inputs that have been checked: to look through a wide moment once more takes a while."""
    steps = recipe.transform.learn(w, h, recipe.seed, InLoop(recipe, shared))
    return (yield from map_steps(steps, lambda step: Snapshot("learn", 0, w.shape[1], {"step": step})))


class InLoop:
    """The recipe's split, coders and assignment on a matrix that is in its basis already: the quantizer inside a learning loop.

    Coders that alternate do at most three sweeps. `shared` is what they share with other matrices (a codebook), which has to be
    what they are used with afterwards; without it, it is prepared from each matrix anew. Without a second moment errors stay
    where they arise.
    """

    SWEEPS = 3

    def __init__(self, recipe: Recipe, shared: Sequence[Codebooks | None] | None = None) -> None:
        self.split, self.assignment = recipe.split, recipe.assignment
        self.shared = shared
        self.coders = [self.quick(coder) for coder in recipe.coders]
        self.runs: list[CoderRun[Any, Any]] = []

    def quick(self, coder: Coder[Any, Any]) -> Coder[Any, Any]:
        """The coder with few sweeps."""
        return coder.replace(sweeps=self.SWEEPS) if getattr(coder, "sweeps", 0) > self.SWEEPS else coder

    def __call__(self, w: Tensor, moment: Tensor | None) -> Tensor:
        """Values of `w [rows, cols]` under `moment [cols, cols]`."""
        shared = self.shared or [coder.prepare([w]) for coder in self.coders]
        if moment is None and (self.split.needs_moment or self.assignment.needs_moment):
            moment = torch.eye(w.shape[1])
        division = SplitRun(self.split, w, moment)
        runs = [CoderRun(i, *args, moment) for i, args in enumerate(zip(self.coders, division.masks, shared, strict=True))]
        coder = ColumnCoder(division, runs, self.assignment)
        run_steps(coder.fit_first(w))
        for _ in coder.run(w, moment):
            pass
        _refit_all(runs, w)
        self.runs = runs
        return sum((run.values() for run in runs), torch.zeros_like(w))

    def nearest(self, w: Tensor) -> Tensor:
        """The values of the nearest codes, with the masks and parameters of the last call."""
        return sum((run.code(w, 0, w.shape[1]) * run.mask for run in self.runs), torch.zeros_like(w))


def _code_columns(
    coder: ColumnCoder, w: Tensor, moment: Tensor | None, recorder: TraceRecorder
) -> Generator[Snapshot, None, Tensor]:
    """Code every column of the transformed matrix `w` and return the coded matrix; `recorder` sees every tile on the way."""
    cols, blocks = w.shape[1], BlockErrors(w)
    for share in coder.fit_first(w):
        yield Snapshot("fit", int(share * cols), cols, {"sweeps": coder.take_new_sweeps()})

    def quantize(current: Tensor, start: int, stop: int, metric: Tensor | None = None) -> Tensor:
        blocks.add(start, stop)
        recorder.see(current, start, stop)
        return coder(current, start, stop, metric)

    current = w
    for current in coder.run(w, moment, quantize):
        detail = {"sweeps": coder.take_new_sweeps(), "relative_error": blocks.relative_error(current)}
        _give_back(w)
        yield Snapshot("block", blocks.coded, cols, detail, current.clone())
    return current


def _give_back(w: Tensor) -> None:
    """Give back to the system what the work on a large matrix has freed: pieces of it scatter the memory."""
    if w.numel() > LARGE:
        release_memory()


def _compute_nominal_bits(coders: Sequence[Coder[Any, Any]], masks: Sequence[Tensor], children: Sequence[Packed]) -> float:
    """Bits per weight as papers count them: each coder's nominal bits, weighted by its share of the weights."""
    total = 0.0
    for coder, mask, child in zip(coders, masks, children, strict=True):
        coder_bits = coder.nominal_bits
        total += (
            build_ledger(child, 0.0).bits_per_weight
            if coder_bits is None
            else coder_bits * (int(mask.count_nonzero()) / mask.numel())
        )
    return round(total, FIGURES)


def check_inputs(weight: Tensor, moment: Tensor | None) -> None:
    """Raise ShapeError unless `weight` is a finite matrix and `moment` a finite square matrix of its columns."""
    if weight.ndim != 2 or 0 in weight.shape:
        shape = list(weight.shape)
        raise ShapeError(f"a weight of shape {shape} cannot be quantized; give a matrix [rows, cols] with both at least 1.")
    if bad := count_nonfinite(weight):
        raise ShapeError(f"{bad} of {weight.numel()} weights are NaN or infinite; repair the checkpoint before quantizing.")
    if moment is None:
        return
    cols = weight.shape[1]
    if tuple(moment.shape) != (cols, cols):
        shape = list(moment.shape)
        raise ShapeError(f"a second moment of shape {shape} does not fit {cols} columns; it must be [{cols}, {cols}].")
    if count_nonfinite(moment):
        raise ShapeError("the second moment holds NaN or infinite values; calibrate again on text the model can read.")


def check_recipe(recipe: Recipe, moment: Tensor | None, *, measured: bool = False) -> None:
    """Raise RecipeError when the parts do not fit together; `measured` says that a moment will be there in time."""
    split = recipe.split
    if len(recipe.coders) != split.parts:
        coders = f"{split.parts} masks but the recipe has {len(recipe.coders)} coders"
        raise RecipeError(f"split {split.name!r} makes {coders}; give one for each.")
    for coder in recipe.coders:
        if coder.full_mask_only and split.parts > 1:
            raise RecipeError(f"coder {coder.name!r} codes whole vectors; use it with split 'whole' instead of {split.name!r}.")
    if moment is None and not measured:
        for part in needs_moment(recipe):
            cure = "pass stats=wb.calibrate(model, wb.text('calibration'))"
            raise RecipeError(f"{part.kind} {part.name!r} needs calibration; {cure}.")


def needs_text(recipe: Recipe) -> bool:
    """Whether a whole model is quantized on text, block by block: where a part needs a second moment, or blocks are refined."""
    return recipe.refines or bool(needs_moment(recipe))


def can_use_moment(recipe: Recipe) -> bool:
    """Whether a second moment changes what a recipe makes of a layer: also where it can do without."""
    coders = recipe.coders
    return bool(needs_moment(recipe)) or any(type(coder).refit is not Coder.refit for coder in coders)


def needs_moment(recipe: Recipe) -> list[QuantizerPart]:
    """The parts of a recipe that cannot work without a calibrated second moment."""
    parts = (recipe.transform, recipe.split, *recipe.coders, recipe.assignment, recipe.correction)
    return [part for part in parts if part.needs_moment]
