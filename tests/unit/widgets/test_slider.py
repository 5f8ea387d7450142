"""The slider's value and its words, and that no slider without a name comes back."""

from pathlib import Path

import pytest

import workbench
from workbench.widgets.elements.slider import Slider


def test_it_holds_a_number_or_a_place_among_words() -> None:
    slider = Slider(label="Bits", start=1, end=4, step=0.5, value=2.5)
    seen: list[float] = []
    slider.param.watch(lambda event: seen.append(event.new), "value")
    slider.value = 3
    assert seen == [3]
    assert Slider(label="Stop", options=["16 bits", "2 bits"]).value == 0
    with pytest.raises(TypeError, match="items must be instances of"):
        Slider(label="Stop", options=[16, 2])


def test_no_other_slider_is_used() -> None:
    """Bokeh's have handles without a name, which a blind visitor cannot find."""
    kinds = ("IntSlider", "FloatSlider", "DiscreteSlider", "RangeSlider", "Player(")
    found = {
        f"{path.name}: {kind}"
        for path in Path(workbench.__file__).parent.rglob("*.py")
        for kind in kinds
        if f"widgets.{kind}" in path.read_text(encoding="utf-8")
    }
    assert found == set()
