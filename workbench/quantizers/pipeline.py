"""The order in which a recipe's parts run on one layer: the only place that knows it.

    check → transform → split → (fit · code · feed the error on)* → refit → correction → pack
"""

import time
from collections.abc import Generator, Sequence
from typing import cast

import torch
from torch import Tensor

from workbench.errors import RecipeError, ShapeError
from workbench.kernels import reference
from workbench.kernels.packed import Packed, ledger
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Assignment, Coder, Correction, Params, Snapshot, Split, Transform
from workbench.recipe import Recipe


class CoderRun:
    """One coder at work on one matrix: its parameters span by span and its codes, filled as columns are coded."""

    def __init__(self, coder: Coder, mask: Tensor, shared: Params, moment: Tensor | None) -> None:
        rows, cols = mask.shape
        self.coder, self.mask, self.shared, self.moment = coder, mask, shared, moment
        self.span, self.step = coder.span(cols), coder.step(cols)
        self.params: list[Params | None] = [None] * -(-cols // self.span)
        self.sweeps: list[tuple[float, ...]] = []
        self.codes: list[tuple[int, Tensor]] = []

    def fit(self, w: Tensor, index: int) -> Params:
        """Fit span `index` on the matrix as it stands now, once."""
        if self.params[index] is None:
            columns = slice(index * self.span, min((index + 1) * self.span, w.shape[1]))
            moment = None if self.moment is None else self.moment[columns, columns]
            fit = self.coder.fit(w[:, columns], self.mask[:, columns], self.shared, moment)
            self.params[index] = fit.params
            self.sweeps.append(fit.sweeps)
        return cast(Params, self.params[index])

    def code(self, w: Tensor, start: int, stop: int) -> Tensor:
        """Code columns `start:stop` (all in one span) and return their values."""
        index = start // self.span
        params = self.fit(w, index)
        within = slice(start - index * self.span, stop - index * self.span)
        codes = self.coder.encode(w[:, start:stop], params, within)
        self.codes.append((start, codes))
        return self.coder.decode(codes, params, within)

    def all_codes(self) -> Tensor:
        """Codes of the whole matrix in column order."""
        return torch.cat([codes for _, codes in sorted(self.codes, key=lambda item: item[0])], 1)

    def refit(self, w: Tensor) -> None:
        """Let the coder improve its parameters for the codes it ended with."""
        self.params = list(self.coder.refit(w, self.all_codes(), cast(list[Params], self.params), self.mask, self.moment))

    def pack(self, masked: bool) -> Packed:
        """The stored form; codes outside the mask are not stored when the split has several masks."""
        mask = self.mask if masked else None
        return self.coder.pack(self.all_codes(), cast(list[Params], self.params), mask, tuple(self.mask.shape))


def quantize_layer(
    weight: Tensor,
    moment: Tensor | None,
    recipe: Recipe,
    shared: Sequence[Params] | None = None,
    name: str = "weight",
) -> Generator[Snapshot, None, QuantizedLayer]:
    """Quantize `weight [rows, cols]` under `moment [cols, cols]`, yielding a Snapshot at every block.

    `shared` are the coders' shared parameters of the layer's scope (see `Coder.prepare`); None prepares them from this
    layer alone. Raises ShapeError for inputs that cannot be quantized and RecipeError for parts that do not fit together.
    """
    begin = time.perf_counter()
    check_inputs(weight, moment)
    check_recipe(recipe, moment)
    original = weight.detach().to(torch.float32)
    h = None if moment is None else moment.to(torch.float32)
    transform, split = cast(Transform, recipe.transform), cast(Split, recipe.split)
    assignment, correction = cast(Assignment, recipe.assignment), cast(Correction, recipe.correction)
    coders = cast(tuple[Coder, ...], recipe.coders)

    state = transform.fit(original, h, recipe.seed)
    w = transform.forward(original, state)
    h_inner = None if h is None else transform.moment(h, state)
    masks = split.masks(w, h_inner)
    if shared is None:
        shared = [coder.prepare([w]) for coder in coders]
    runs = [CoderRun(*args, h_inner) for args in zip(coders, masks, shared, strict=True)]
    if assignment.static:
        for run in runs:
            for index in range(len(run.params)):
                run.fit(w, index)
                yield Snapshot("fit", 0, w.shape[1], {"span": index, "sweeps": run.sweeps[-1]})

    def quantize(current: Tensor, start: int, stop: int) -> Tensor:
        values = torch.zeros_like(current[:, start:stop])
        for run in runs:
            values = torch.where(run.mask[:, start:stop], run.code(current, start, stop), values)
        return values

    step = max(run.step for run in runs)
    fitted = sum(len(run.sweeps) for run in runs)
    for done, current in assignment.run(w.clone(), h_inner, step, quantize):
        sweeps = [s for run in runs for s in run.sweeps]
        detail = {"sweeps": sweeps[fitted:], "relative_error": relative_error(w[:, :done], current[:, :done])}
        fitted = len(sweeps)
        yield Snapshot("block", done, w.shape[1], detail, current)

    for run in runs:
        run.refit(w)
    inner = split.pack(masks, [run.pack(masked=len(runs) > 1) for run in runs])
    yield Snapshot("refit", w.shape[1], w.shape[1], {}, reference.decode(inner))
    extra = correction.fit(w - reference.decode(inner), h_inner)
    if extra is not None:
        inner = Packed("sum", *w.shape, children=(inner, extra))
        yield Snapshot("correction", w.shape[1], w.shape[1], {}, reference.decode(inner))
    packed = transform.pack(inner, state)
    decoded = reference.decode(packed)
    return QuantizedLayer(
        name=name,
        packed=packed,
        recipe=recipe,
        ledger=ledger(packed, nominal_bits(coders, masks)),
        relative_error=relative_error(original, decoded),
        output_error=None if h is None else output_error(original, decoded, h),
        seconds=time.perf_counter() - begin,
    )


def nominal_bits(coders: Sequence[Coder], masks: Sequence[Tensor]) -> float:
    """Bits per weight as papers count them: each coder's nominal bits, weighted by its share of the weights."""
    return sum(coder.nominal_bits * mask.float().mean().item() for coder, mask in zip(coders, masks, strict=True))


def relative_error(w: Tensor, decoded: Tensor) -> float:
    """‖Ŵ−W‖²/‖W‖², zero for an all-zero matrix that stays zero."""
    error, size = (decoded - w).double().square().sum().item(), w.double().square().sum().item()
    return error / size if size else (0.0 if error == 0 else float("inf"))


def output_error(w: Tensor, decoded: Tensor, h: Tensor) -> float:
    """tr(E H Eᵀ)/tr(W H Wᵀ): the share of the layer's output energy that is lost on the calibration text."""
    error, wide, moment = (decoded - w).double(), w.double(), h.double()
    size = ((wide @ moment) * wide).sum().item()
    lost = ((error @ moment) * error).sum().item()
    return lost / size if size else (0.0 if lost == 0 else float("inf"))


def check_inputs(weight: Tensor, moment: Tensor | None) -> None:
    """Raise ShapeError unless `weight` is a finite matrix and `moment` a finite square matrix of its columns."""
    if weight.ndim != 2 or 0 in weight.shape:
        raise ShapeError(f"a weight of shape {list(weight.shape)} cannot be quantized; give a matrix [rows, cols] with both at least 1.")
    if not torch.isfinite(weight).all():
        bad = int((~torch.isfinite(weight)).sum())
        raise ShapeError(f"{bad} of {weight.numel()} weights are NaN or infinite; repair the checkpoint before quantizing.")
    if moment is None:
        return
    cols = weight.shape[1]
    if tuple(moment.shape) != (cols, cols):
        raise ShapeError(f"a second moment of shape {list(moment.shape)} does not fit {cols} columns; it must be [{cols}, {cols}].")
    if not torch.isfinite(moment).all():
        raise ShapeError("the second moment holds NaN or infinite values; calibrate again on text the model can read.")


def check_recipe(recipe: Recipe, moment: Tensor | None) -> None:
    """Raise RecipeError when the parts do not fit together, saying which and what to choose instead."""
    split, assignment = cast(Split, recipe.split), cast(Assignment, recipe.assignment)
    if len(recipe.coders) != split.parts:
        raise RecipeError(f"split {split.name!r} makes {split.parts} masks but the recipe has {len(recipe.coders)} coders; give one for each.")
    for coder in cast(tuple[Coder, ...], recipe.coders):
        if coder.whole and split.parts > 1:
            raise RecipeError(f"coder {coder.name!r} codes whole rows or vectors; use it with split 'whole' instead of {split.name!r}.")
    if assignment.needs_moment and moment is None:
        raise RecipeError(f"assignment {assignment.name!r} needs calibration; pass stats=wb.calibrate(model, wb.text('calibration')).")
