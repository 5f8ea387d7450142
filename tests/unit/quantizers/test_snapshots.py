"""What is told while a layer is coded: the error of the columns that are coded so far."""

import pytest

from tests.battery.cases import correlated, gaussian
from workbench import presets
from workbench.quantizers.distance import compute_relative_error
from workbench.quantizers.pipeline import quantize_layer


@pytest.mark.parametrize(("recipe", "cols"), [("rtn:bits=3,group=32", 2304), ("gptq:bits=3,group=32", 384)])
def test_every_block_tells_the_error_so_far(recipe: str, cols: int) -> None:
    w = gaussian(16, cols)
    steps = quantize_layer(w, correlated(cols), presets.parse(recipe))
    told = [(step.detail["relative_error"], step.done, step.weight) for step in steps if step.event == "block"]
    dones = [done for _, done, _ in told]
    assert dones == sorted(set(dones))
    assert len(dones) > 1
    assert dones[-1] == cols
    for error, done, weight in told:
        assert error == pytest.approx(compute_relative_error(w[:, :done], weight[:, :done]), rel=1e-6)
