"""Sketches cached on disk by content: a matrix is read only once."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.analysis.weights.weight_sketch import Histogram, Sketch, compute_sketch
from workbench.store import Entry, Store, compute_key

VERSION = 1  # another one where a sketch comes to hold other numbers


def load_sketch(weight: Tensor, store: Store) -> Sketch:
    """The sketch of `weight [rows, cols]`, from the store where these very weights have been sketched before."""
    entry_key = compute_key("sketch", VERSION, weight)
    if (entry := store.get(entry_key)) is not None:
        return _deserialize_sketch(entry)
    result = compute_sketch(weight)
    store.put(entry_key, *_serialize_sketch(result), kind="sketch", what=f"a matrix of {list(weight.shape)}")
    return result


def _serialize_sketch(matrix_sketch: Sketch) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A sketch as tensors and facts for a store."""
    values = {field.name: getattr(matrix_sketch, field.name) for field in fields(Sketch) if field.name != "histogram"}
    tensors = {name: torch.from_numpy(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    facts = {name: value for name, value in values.items() if name not in tensors}
    bars = matrix_sketch.histogram
    facts["histogram"] = {"low": bars.low, "high": bars.high, "outside": bars.outside}
    return {**tensors, "counts": torch.from_numpy(bars.counts)}, facts


def _deserialize_sketch(entry: Entry) -> Sketch:
    """The inverse of `_serialize_sketch`."""
    values: dict[str, Any] = {name: tensor.numpy() for name, tensor in entry.tensors.items()} | dict(entry.facts)
    bars = Histogram(values.pop("counts"), **values.pop("histogram"))
    return Sketch(**values, histogram=bars)


@dataclass(frozen=True)
class Moments:
    """Many matrices taken together as one: `kurtosis` is the excess over a Gaussian, `absmax` the largest magnitude."""

    matrices: int
    weights: int
    mean: float
    std: float
    kurtosis: float
    absmax: float


def merge_sketches(sketches: Iterable[Sketch]) -> Moments:
    """The moments of all weights of some sketches, the same as if they had been read at once."""
    parts = list(sketches)
    size = np.array([float(s.rows * s.cols) for s in parts])
    means, spreads = np.array([s.mean for s in parts]), np.array([s.std for s in parts])
    mean = float((size * means).sum() / size.sum())
    off = means - mean  # central moments of each, moved to the common mean
    second = spreads**2 + off**2
    third = np.array([s.skewness for s in parts]) * spreads**3
    fourth = np.array([s.kurtosis + 3 for s in parts]) * spreads**4 + 4 * off * third + 6 * off**2 * spreads**2 + off**4
    variance = float((size * second).sum() / size.sum())
    return Moments(
        matrices=len(parts),
        weights=int(size.sum()),
        mean=mean,
        std=variance**0.5,
        kurtosis=float((size * fourth).sum() / size.sum()) / variance**2 - 3 if variance else 0.0,
        absmax=max(s.absmax for s in parts),
    )
