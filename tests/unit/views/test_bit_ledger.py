"""The ledger's bars add up to what is stored, and stand beside the nominal figure."""

import pytest

import workbench as wb
from workbench import presets
from workbench.analysis.decisions import bit_ledger as analysis
from workbench.analysis.decisions.bit_ledger import OnDisk
from workbench.bits import BitEntry, BitLedger
from workbench.models import ModelHandle
from workbench.views.decisions import bit_ledger
from workbench.views.theme import DARK, LIGHT, Theme

LAYER = "model.layers.0.self_attn.q_proj"
LEDGER = BitLedger(
    (
        BitEntry("0.uniform codes", 2_000_000, "the salient weights"),
        BitEntry("1.uniform codes", 6_000_000, "the others"),
        BitEntry("masked map", 1_000_000, "who is who"),
    ),
    1_000_000,
    8.0,
)


def lengths(plot: dict, bar: str) -> list[float]:
    """The lengths of the parts of one bar."""
    return [trace["x"][0] for trace in plot["data"] if trace["y"] == [bar]]


def test_each_item_is_as_long_as_its_bits() -> None:
    figure = bit_ledger.draw_bit_ledger(LEDGER)
    assert lengths(figure.plot, "stored") == [2.0, 6.0, 1.0]
    assert lengths(figure.plot, "nominal") == [8.0]
    assert figure.plot["layout"]["barmode"] == "stack"
    assert figure.table["bits_per_weight"].tolist() == [2.0, 6.0, 1.0]
    assert [note["text"] for note in figure.plot["layout"]["annotations"]] == ["9.00 bits", "8.00 bits"]


def test_items_are_called_as_people_say_them() -> None:
    assert bit_ledger.draw_bit_ledger(LEDGER).table["item"].tolist() == ["uniform codes", "uniform codes 2", "masked map"]


def test_the_sentence_says_stored_nominal_size_and_the_largest_items() -> None:
    assert bit_ledger.draw_bit_ledger(LEDGER).answer == (
        "This layer stores 9.00 bits per weight (8.00 nominal), 1.12 MB: 66.7 % is uniform codes 2, 22.2 % uniform codes."
    )
    assert bit_ledger.draw_bit_ledger(LEDGER, scope="the whole model").answer.startswith("The whole model stores")


def test_a_single_item_is_all_of_it() -> None:
    one = BitLedger(LEDGER.entries[:1], 1_000_000, 2.0)
    assert (
        bit_ledger.draw_bit_ledger(one).answer
        == "This layer stores 2.00 bits per weight (2.00 nominal), 0.25 MB, all of it uniform codes."
    )


@pytest.mark.parametrize("name", presets.list_presets())
def test_the_bars_of_every_preset_add_up(builtin: ModelHandle, name: str) -> None:
    preset = presets.find(name)()
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=512, layers=[LAYER]) if preset.needs_calibration else None
    result = wb.quantize(builtin, LAYER, preset.recipe(), stats=stats)
    figure = bit_ledger.draw_bit_ledger(result.ledger)
    assert sum(lengths(figure.plot, "stored")) == pytest.approx(result.bits_per_weight, rel=1e-9)
    assert figure.table["bits"].sum() == pytest.approx(result.ledger.total_bits, rel=1e-9)
    assert figure.table["item"].is_unique


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_both_pages_can_be_read(theme: Theme) -> None:
    layout = bit_ledger.draw_bit_ledger(LEDGER, theme=theme).plot["layout"]
    assert layout["font"]["color"] == theme.text
    assert {note["font"]["color"] for note in layout["annotations"]} == {theme.text}


def test_the_icicle_is_the_tree() -> None:
    table = analysis.tabulate_ledger_tree({"a.0.x": LEDGER, "a.1.y": LEDGER})
    figure = bit_ledger.draw_icicle(table, 2_000_000, scope="the whole model")
    (trace,) = figure.plot["data"]
    assert trace["values"] == table["bits"].tolist()
    assert (trace["parents"][0], trace["ids"][0]) == ("", "all")
    assert set(trace["parents"][1:]) <= set(trace["ids"])
    assert figure.question == "What is stored for the whole model?"
    assert figure.answer == "88.9 % of all bits are uniform codes; the largest part is block 0 with 50 %."
    assert len(figure.table) == len(table)


def test_the_waterfall_explains_the_difference() -> None:
    figure = bit_ledger.draw_bits_waterfall(analysis.tabulate_overhead(LEDGER))
    (trace,) = figure.plot["data"]
    assert trace["measure"] == ["absolute", "relative", "total"]
    assert trace["y"] == [8.0, 1.0, 9.0]
    assert figure.answer == (
        "This layer stores 9.00 bits per weight, nominally 8.00; most of the difference of 1.00 is masked map: 1.00 (who is who)."
    )
    one = BitLedger(LEDGER.entries[:1], 1_000_000, 2.0)
    assert (
        bit_ledger.draw_bits_waterfall(analysis.tabulate_overhead(one)).answer
        == "This layer stores exactly the nominal 2.00 bits per weight."
    )


@pytest.mark.parametrize(("bits", "written"), [(0.0, "0.00"), (0.0208, "0.02"), (0.00208, "0.002"), (4.0, "4.00")])
def test_parts_have_the_decimals_of_stored_bits(bits: float, written: str) -> None:
    assert bit_ledger.format_bit_difference(bits) == written


def test_bytes_on_disk_are_said_to_agree_or_not() -> None:
    assert "takes 1,200 bytes; the ledger adds up to the same 1,200" in bit_ledger.describe_size_on_disk(
        OnDisk(1200, 1200, "a file")
    )
    assert "but the ledger adds up to 1,190. Please report" in bit_ledger.describe_size_on_disk(OnDisk(1190, 1200, "a file"))
