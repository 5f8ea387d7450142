"""What the battery runs: every registered part with every choice of its settings, and matrices that break things."""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Iterator

import pytest
import torch
from torch import Tensor

from workbench import registry
from workbench.errors import RecipeError
from workbench.jobs import run_steps
from workbench.presets.preset import compose
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Coder, Snapshot, Split
from workbench.quantizers.pipeline import needs_moment, quantize_layer
from workbench.recipe import Part, Recipe

COMBINED: dict[tuple[str, str], list[dict[str, object]]] = {
    ("coder", "binary-factors"): [{"sweeps": 0, "start": "singular", "middle": True}],
    ("coder", "codebook-planes"): [{"planes": 3, "indexed": 1, "mean": True}],
    ("coder", "released-sign"): [{"planes": 2}, {"planes": 2, "rule": "row-column"}, {"planes": 2, "rule": "moment"}],
    ("split", "released-groups"): [{"groups": 3}, {"salient_groups": 2, "loss": "moment"}],
    ("split", "groups"): [
        {"groups": 3, "salient": 50, "salient_groups": 2, "metric": "hessian"},
        {"groups": 1, "kept": 2, "of": 4},
        {"groups": 3, "search": "greedy", "salient": 20, "kept": 5},
    ],
}  # settings that only together reach all of a part
KINDS = ("transform", "split", "coder", "assignment", "correction", "activations", "refinement")


def variants() -> Iterator[tuple[str, Part]]:
    """Every part with its defaults, and with each other choice or flag of one setting; ids such as coder-sign-scales=group."""
    for kind in KINDS:
        for name in registry.list_names(kind):
            part = registry.find(kind, name)
            yield f"{kind}-{name}", part()
            for settings in COMBINED.get((kind, name), []):
                yield f"{kind}-{name}-" + ",".join(f"{key}={value}" for key, value in settings.items()), part(**settings)
            for field in dataclasses.fields(part):
                flags = (True, False) if isinstance(field.default, bool) else ()
                for value in field.metadata.get("choices") or flags:
                    if value != field.default:
                        try:
                            yield f"{kind}-{name}-{field.name}={value}", part(**{field.name: value})
                        except RecipeError:
                            continue  # two settings of this part exclude each other


VARIANTS = dict(variants())
MAIN = {f"{kind}-{name}" for kind in KINDS for name in registry.list_names(kind)} | {
    name for name in VARIANTS if any(name.startswith(f"{kind}-{part}-") for kind, part in COMBINED) and "," in name
}  # the registered parts as they are by default, and what only several settings reach


def guard(name: str, case: str = "", hardest: Collection[str] = ()) -> tuple[pytest.MarkDecorator, ...]:
    """The marks of a case: parts as they are by default guard a commit, and other settings on what is hardest.

    All else belongs to the complete suite.
    """
    return () if name in MAIN or case in hardest else (pytest.mark.complete,)


def pair_with(names: str, cases: Iterable[str], hardest: Collection[str] = ()) -> pytest.MarkDecorator:
    """Parametrize over every variant with every case, as `guard` marks them."""
    pairs = [pytest.param(name, case, marks=guard(name, case, hardest)) for name in VARIANTS for case in cases]
    return pytest.mark.parametrize(names, pairs)


def recipe_with(part: Part) -> Recipe:
    """The part in a recipe whose other parts are the plainest that go with it; a split keeps what it singles out."""
    if part.kind == "coder":
        return compose(part)
    kept = part.parts - 1 if isinstance(part, Split) else 0
    coders = [registry.make("coder", "uniform", group=64, bits=3), *[registry.make("coder", "keep")] * kept]
    return compose(*coders, **{part.kind: part})


def quantize(recipe: Recipe, w: Tensor, moment: Tensor | None = None) -> QuantizedLayer:
    """The whole pipeline on one matrix."""
    return run_steps(quantize_layer(w, moment, recipe))


def snapshots(recipe: Recipe, w: Tensor, moment: Tensor | None = None) -> tuple[list[Snapshot], QuantizedLayer]:
    """Everything the pipeline yields, and its result."""
    seen: list[Snapshot] = []
    return seen, run_steps(quantize_layer(w, moment, recipe), seen.append)


@functools.cache
def shared(name: str) -> tuple[list[Snapshot], Tensor, QuantizedLayer]:
    """What a variant yields on one calibrated matrix, the matrix, and its result, computed once; read only."""
    w = gaussian(16, 203)
    seen, result = snapshots(recipe_with(VARIANTS[name]), w, correlated(203))
    return seen, w, result


def gaussian(rows: int, cols: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def correlated(cols: int, tokens: int = 512, seed: int = 1) -> Tensor:
    """The second moment of inputs that share a few directions and differ in strength."""
    mix = gaussian(max(cols // 4, 1), cols, seed)
    x = gaussian(tokens, len(mix), seed + 1) @ mix / len(mix) ** 0.5 + 0.3 * gaussian(tokens, cols, seed + 2)
    x = x * torch.linspace(0.3, 3, cols)
    return x.T @ x / tokens


def moment_for(recipe: Recipe, cols: int) -> Tensor | None:
    """A moment where the recipe cannot do without."""
    return correlated(cols) if needs_moment(recipe) else None


def doubled(w: Tensor) -> Tensor:
    """Every column twice."""
    return w.repeat_interleave(2, 1)


MATRICES = {
    "gaussian": gaussian(24, 256),
    "ragged": gaussian(12, 203),
    "zeros": torch.zeros(8, 64),
    "one-row": gaussian(1, 200),
    "one-column": gaussian(16, 1),
    "one-weight": gaussian(1, 1),
    "huge": gaussian(8, 96) * 1e30,
    "large": gaussian(8, 96) * 1e5,
    "tiny": gaussian(8, 96) * 1e-30,
    "duplicate-columns": doubled(gaussian(8, 60)),
    "one-outlier": torch.cat([torch.full((8, 1), 1e4), 1e-3 * gaussian(8, 95)], 1),
    "constant": torch.full((8, 64), -0.25),
}

MOMENTS = {
    "zeros": torch.zeros(48, 48),
    "one-token": torch.outer(gaussian(1, 48)[0], gaussian(1, 48)[0]),
    "dead-inputs": torch.diag(torch.tensor([0.0, 1.0] * 24)),
    "small": correlated(48) * 1e-12,
    "large": correlated(48) * 1e12,
}


def first_coder(recipe: Recipe) -> Coder:
    """The recipe's first coder."""
    coder = recipe.coders[0]
    assert isinstance(coder, Coder)
    return coder
