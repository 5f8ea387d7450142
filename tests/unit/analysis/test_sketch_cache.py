"""Sketches come back from disk as they were, belong to the content of the weights, and add up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.analysis.weights import sketch_cache, weight_sketch
from workbench.store import Store

WEIGHT = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))


def same(a: weight_sketch.Sketch, b: weight_sketch.Sketch) -> bool:
    """Whether two sketches hold the same numbers."""
    left, right = ({**vars(s), **vars(s.histogram)} for s in (a, b))
    return all(np.array_equal(left[name], right[name]) for name in left if name != "histogram")


def test_a_stored_sketch_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    first = sketch_cache.load_sketch(WEIGHT, store)
    assert same(first, weight_sketch.compute_sketch(WEIGHT))
    monkeypatch.setattr(sketch_cache, "compute_sketch", lambda _: pytest.fail("it was there"))
    assert same(sketch_cache.load_sketch(WEIGHT.clone(), store), first)


def test_one_changed_weight_has_a_sketch_of_its_own(tmp_path: Path) -> None:
    store, changed = Store(tmp_path), WEIGHT.clone()
    before = sketch_cache.load_sketch(WEIGHT, store)
    changed[3, 4] += 1e-3
    after = sketch_cache.load_sketch(changed, store)
    assert not same(before, after)
    assert same(after, weight_sketch.compute_sketch(changed))
    assert same(sketch_cache.load_sketch(WEIGHT.bfloat16(), store), weight_sketch.compute_sketch(WEIGHT.bfloat16()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(-3, 3), st.floats(0.01, 5)), min_size=1, max_size=5), st.integers(0, 99))
def test_sketches_add_up_to_that_of_all_weights(parts: list[tuple[int, float, float]], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    pieces = [torch.randn(rows, 7, generator=draw) ** 3 * spread + mean for rows, mean, spread in parts]
    found, whole = (
        sketch_cache.merge_sketches(map(weight_sketch.compute_sketch, pieces)),
        weight_sketch.compute_sketch(torch.cat(pieces)),
    )
    assert (found.matrices, found.weights) == (len(parts), 7 * sum(rows for rows, _, _ in parts))
    assert found.absmax == whole.absmax
    assert found.mean == pytest.approx(whole.mean, rel=1e-6, abs=1e-6)
    assert found.std == pytest.approx(whole.std, rel=1e-6)
    assert found.kurtosis == pytest.approx(whole.kurtosis, rel=1e-5, abs=1e-4)
