"""Shrinkage of a second moment estimated from few tokens: it is mixed with its diagonal, more strongly for fewer tokens.

H of n tokens shows correlations between inputs that are chance, and below n = columns directions that seem to cost nothing.
H* = (1 − a) H + a D with a = m / (n + m), m = strength · columns, is what n tokens say to someone who had seen m tokens of
uncorrelated inputs before: the mean under a conjugate (inverse Wishart) prior. The target D, "diagonal, unequal variance", is
that of Schäfer and Strimmer (2005, doi 10.2202/1544-6115.1175), who estimate a from the samples as Ledoit and Wolf (2004, doi
10.1016/S0047-259X(03)00096-4) do; samples are gone here, and a rule in n / columns finds what was best on held-out inputs. The
diagonal itself is mixed with its mean, as if that had been seen in two tokens, so that an input that was silent by chance counts.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from workbench.errors import WorkbenchWarning
from workbench.quantized import QuantizedLayer

LEVEL = 2.0  # tokens that the mean of the diagonal counts as
MIN_TOKENS_PER_COLUMN = 1 / 32  # tokens a column below which calibration may cost more than it brings, shrunk as it is


def compute_shrinkage_share(tokens: int, columns: int, strength: float) -> float:
    """a: how much of the diagonal is in the mixture, 0 to 1."""
    prior = strength * columns
    return prior / (tokens + prior) if prior else 0.0


def shrink_moment(moment: Tensor, tokens: int | None, strength: float) -> Tensor:
    """H* for a moment of so many tokens; one of nothing, or of tokens that are not known and enough, comes back as it is."""
    tokens = estimate_token_count(moment) if tokens is None else tokens
    if not tokens or not strength:
        return moment
    part, diagonal = compute_shrinkage_share(tokens, len(moment), strength), moment.diagonal()
    target = (tokens * diagonal + LEVEL * diagonal.mean()) / (tokens + LEVEL)
    mixed = moment * (1 - part)
    mixed.diagonal().add_(target, alpha=part)
    return mixed


def make_zero_moment(columns: int) -> Tensor:
    """The second moment of a layer that no token came to: zeros, in no memory. All its errors count alike."""
    return torch.zeros(()).expand(columns, columns)


def is_calibrated(moment: Tensor | None) -> TypeGuard[Tensor]:
    """Whether there is a moment and any token was seen for it."""
    return moment is not None and bool(moment.diagonal().any())


def _compute_token_threshold(columns: int, strength: float) -> int:
    """Tokens below which a moment may make a result worse than none would; without shrinkage that begins much earlier."""
    return math.ceil(columns * MIN_TOKENS_PER_COLUMN) if strength else columns


def is_few(tokens: int | None, columns: int, strength: float) -> bool:
    """Whether a moment is of tokens, but of fewer than enough."""
    return tokens is not None and 0 < tokens < _compute_token_threshold(columns, strength)


def collect_calibration_facts(layers: Mapping[str, QuantizedLayer]) -> dict[str, Any]:
    """Facts of calibrated layers: least and largest `shrinkage`, and the names of those of `few_tokens`, where there are any."""
    reached = {name: layer for name, layer in layers.items() if layer.tokens}
    shares = [compute_shrinkage_share(layer.tokens or 0, layer.packed.cols, layer.recipe.shrinkage) for layer in reached.values()]
    few = [name for name, layer in reached.items() if is_few(layer.tokens, layer.packed.cols, layer.recipe.shrinkage)]
    facts: dict[str, Any] = {"shrinkage": [min(shares), max(shares)]} if any(shares) else {}
    return {**facts, "few_tokens": few} if few else facts


def warn_of_few(layers: Mapping[str, QuantizedLayer]) -> None:
    """Warn where layers were calibrated on so few tokens that calibration may have cost more than it brought."""
    few = collect_calibration_facts(layers).get("few_tokens")
    if few:
        layer = layers[few[0]]
        tokens, columns = f"{layer.tokens} token{'s' if layer.tokens != 1 else ''}", layer.packed.cols
        least = _compute_token_threshold(columns, layer.recipe.shrinkage)
        warnings.warn(
            f"{len(few)} of {len(layers)} layers were calibrated on too few tokens to benefit from it, first {few[0]!r} "
            f"({tokens} for {columns} columns; at least {least} are needed): calibrate on more tokens.",
            WorkbenchWarning,
            stacklevel=2,
        )


def estimate_token_count(moment: Tensor) -> int | None:
    """How many tokens a moment is of where its rank tells: None where it is full, 0 where it is zero."""
    diagonal = moment.diagonal().double()
    alive = diagonal > 0
    if not alive.any():
        return 0
    size = diagonal[alive].sqrt()
    correlation = moment[alive][:, alive].double() / size / size[:, None]
    noise = 4 * len(size) ** 0.5 * torch.finfo(torch.float32).eps
    lifted = correlation - noise * torch.eye(len(size), dtype=torch.float64)
    if not torch.linalg.cholesky_ex(lifted).info:  # far cheaper than the rank itself
        return None
    return int((torch.linalg.eigvalsh(correlation) > noise).sum())
