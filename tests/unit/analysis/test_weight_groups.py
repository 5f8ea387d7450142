"""Group maps against the masks that the quantizer used, and what they are called."""

import numpy as np
import pytest
import torch

from tests.battery.cases import correlated, gaussian, quantize
from workbench import presets
from workbench.analysis.method.weight_groups import build_group_map
from workbench.presets.preset import compose, make_part

NAMES = {
    "billm": ["magnitude 1 of 2", "magnitude 2 of 2", "salient columns"],
    "arb-llm": ["magnitude 1 of 2", "magnitude 2 of 2", "salient columns, magnitude 1 of 2", "salient columns, magnitude 2 of 2"],
    "stbllm": ["pruned", "magnitude 1 of 3", "magnitude 2 of 3", "magnitude 3 of 3", "salient columns"],
    "pb-llm": ["signs", "on a grid"],
    "btc:bits=1.11": ["other columns", "salient columns"],
    "btc:bits=2": ["magnitude 1 of 2", "magnitude 2 of 2"],
    "btc-paper": [f"magnitude {n} of 4" for n in (1, 2, 3, 4)],
    "btc-planes": ["magnitude 1 of 2", "magnitude 2 of 2"],
}


@pytest.mark.parametrize(("spelled", "names"), NAMES.items(), ids=NAMES)
def test_groups_by_name(spelled: str, names: list[str]) -> None:
    w, h = gaussian(24, 256), correlated(256)
    packed = quantize(presets.parse(spelled), w, h).packed
    found = build_group_map(packed, w)
    assert found is not None
    assert found.table["group"].tolist() == names
    assert found.table["count"].tolist() == np.bincount(found.groups.ravel(), minlength=len(names)).tolist()
    assert found.table["share"].sum() == pytest.approx(1)
    sizes = found.table[found.table["group"].str.startswith("magnitude")]["magnitude"]
    assert sizes.is_monotonic_increasing
    assert 0 < found.map_bits < 3


@pytest.mark.parametrize("spelled", ["rtn", "binary", "btc"])
def test_a_layer_whose_weights_are_coded_alike_has_none(spelled: str) -> None:
    w = gaussian(24, 240)
    assert build_group_map(quantize(presets.parse(spelled), w, correlated(240)).packed, w) is None


def test_groups_are_the_masks_of_the_split() -> None:
    w, h = gaussian(24, 256), correlated(256)
    split = make_part("split", "groups", groups=3, salient=20, metric="hessian", kept=6, of=8)
    coders = [make_part("coder", "zero"), *[make_part("coder", "sign", scales="group") for _ in range(4)]]
    packed = quantize(compose(*coders, split=split), w, h).packed
    found = build_group_map(packed, w)
    assert found is not None
    for number, mask in enumerate(split.masks(w, h)):
        assert torch.equal(torch.from_numpy(found.groups) == number, mask), number


def test_two_planes_are_two_magnitudes_in_the_basis_that_is_coded() -> None:
    w = torch.where(gaussian(16, 64) > 0, 1.5, 0.5) * gaussian(16, 64, 1).sign()
    coder = make_part("coder", "sign", planes=2, mean=False)
    found = build_group_map(quantize(compose(coder), w).packed, w)
    assert found is not None
    assert torch.equal(torch.from_numpy(found.groups) == 1, w.abs() > 1)
    assert found.table["magnitude"].tolist() == pytest.approx([0.5, 1.5])
    assert found.map_bits == 1

    hadamard = make_part("transform", "hadamard")
    packed = quantize(compose(coder, transform=hadamard), w).packed
    turned = build_group_map(packed, w)
    assert turned is not None
    state = hadamard.fit(w, None, 0)
    inner = build_group_map(packed.children[0], hadamard.forward(w, state))
    assert inner is not None
    np.testing.assert_array_equal(turned.groups, inner.groups)


def test_a_correction_changes_no_group() -> None:
    w = gaussian(16, 64)
    plain = compose(make_part("coder", "sign", planes=2))
    corrected = plain.replace(correction=make_part("correction", "low-rank", rank=2))
    one, two = (build_group_map(quantize(recipe, w).packed, w) for recipe in (plain, corrected))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one.groups, two.groups)
    assert one.map_bits == two.map_bits
