"""Presets: what they build, how they are written down, and what they answer to a mistake."""

import dataclasses

import pytest
import torch

import workbench
from tests.battery.cases import correlated, gaussian, quantize
from workbench import presets
from workbench.errors import RecipeError
from workbench.kernels.packing import bitpack
from workbench.models import ModelHandle
from workbench.presets.btc import choose_codebook_shape
from workbench.presets.preset import Preset
from workbench.presets.trellis import choose_step_shape
from workbench.presets.vectors import choose_vector_shape
from workbench.recipe import Recipe


def settings_of(name: str) -> list[dict[str, object]]:
    """No settings, and every other choice, flag and end of a range, one at a time.

    Steps of training of the whole model do nothing alone; `test_model_refinement` has them with refinement=model.
    """
    found: list[dict[str, object]] = [{}]
    for field in dataclasses.fields(presets.find(name)):
        if field.name == "model_steps":
            continue
        limits = field.metadata
        ends = [type(field.default)(limits[end]) for end in ("low", "high") if limits[end] is not None]
        flags = [True, False] if isinstance(field.default, bool) else []
        found += [{field.name: value} for value in [*(limits["choices"] or ()), *flags, *ends] if value != field.default]
    return found


CASES = [(name, settings) for name in presets.list_presets() for settings in settings_of(name)]
IDS = [f"{name}:" + ",".join(f"{key}={value}" for key, value in settings.items()) for name, settings in CASES]
COUNT_EVERYTHING = ("binary-factors", "littlebit", "nanoquant")  # nominal bits of these are all stored ones
every_case = pytest.mark.parametrize(("name", "settings"), CASES, ids=IDS)
# quantizes: each preset as it is guards a commit, one with another setting waits for the complete suite
every_run = pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param(*case, id=id, marks=[pytest.mark.complete] if case[1] else []) for case, id in zip(CASES, IDS, strict=True)],
)


def test_all_presets_are_there() -> None:
    assert presets.list_presets() == [
        "arb-llm",
        "billm",
        "binary",
        "binary-factors",
        "btc",
        "btc-paper",
        "btc-planes",
        "gptq",
        "gptvq",
        "littlebit",
        "nanoquant",
        "none",
        "parity",
        "pb-llm",
        "qtip",
        "range-mixed",
        "rtn",
        "stbllm",
        "ternary",
    ]


@every_case
def test_a_recipe_is_written_down_and_read_back(name: str, settings: dict[str, object]) -> None:
    recipe = presets.recipe(name, **settings)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert eval(recipe.code(), {"wb": workbench}) == recipe
    assert (recipe.name, dict(recipe.settings)) == (name, settings)
    spelled = name + ":" + ",".join(f"{key}={value}" for key, value in settings.items())
    assert presets.parse(spelled) == recipe


@every_run
def test_a_recipe_runs_and_counts_what_it_promises(name: str, settings: dict[str, object]) -> None:
    preset = presets.find(name)(**settings)
    w = gaussian(40, 256)
    result = quantize(quick(preset.recipe()), w, correlated(256) if preset.needs_calibration else None)
    assert torch.isfinite(result.weight()).all()
    if name != "none":
        exact = preset.build().split.fixed_shares
        assert result.nominal_bits == pytest.approx(preset.nominal_bits, abs=0.005 if exact else 0.5)
        if name in COUNT_EVERYTHING:
            assert result.bits_per_weight <= result.nominal_bits or result.packed.facts["rank"] == 1
        else:
            assert result.bits_per_weight > result.nominal_bits


def quick(recipe: Recipe) -> Recipe:
    """The recipe, its transform learned in two steps on large blocks: enough to run all of it."""
    if not recipe.transform.learns:
        return recipe
    learned = dataclasses.replace(recipe.transform, steps=2, draws=1)
    return recipe.replace(transform=learned, assignment=dataclasses.replace(recipe.assignment, block=128))


WITHOUT_EFFECT = [
    ("binary", {"block"}),  # until compensation is on
    ("btc-paper", {"shrinkage"}),  # 0 is what the paper does; any other value is tested below
]


@every_case
def test_every_setting_changes_the_parts(name: str, settings: dict[str, object]) -> None:
    changed, default = presets.find(name)(**settings), presets.find(name)()
    without = [keys for other, keys in WITHOUT_EFFECT if other == name and settings and set(settings) <= keys]
    if without == [{"shrinkage"}]:
        assert changed.recipe().shrinkage == settings["shrinkage"]
        return
    changed_settings, default_settings = ((one.recipe().shrinkage, one.recipe().guided) for one in (changed, default))
    differs = (changed.build(), changed_settings) != (default.build(), default_settings)
    assert differs == (not without and bool(settings))


def test_default_settings_given_by_hand_are_the_default() -> None:
    assert presets.recipe("btc", bits=0.8, scope="projection") == presets.recipe("btc")
    assert presets.recipe("btc").code() == "wb.recipe('btc')"
    assert presets.recipe("gptq", bits=3, act_order=True).code() == "wb.recipe('gptq', bits=3, act_order=True)"


def test_a_changed_recipe_is_no_longer_the_preset() -> None:
    changed = presets.recipe("rtn").replace(seed=5)
    assert changed.name == "custom"
    assert eval(changed.code(), {"wb": workbench}) == changed


@pytest.mark.parametrize("name", presets.list_presets())
def test_what_a_list_says_of_a_preset_holds_for_its_defaults(name: str) -> None:
    preset = presets.find(name)
    assert (preset.default_bits, preset.calibrated) == (preset().nominal_bits, preset().needs_calibration)


def test_the_table_says_what_each_costs_and_needs() -> None:
    table = presets.tabulate_presets().set_index("name")
    assert list(table.columns) == ["nominal_bits", "needs_calibration", "source", "note"]
    nominal = {
        "arb-llm": 1.1,
        "billm": 1.1,
        "binary": 1,
        "binary-factors": 0.8,
        "btc": 0.8,
        "btc-paper": 0.8,
        "btc-planes": 1.6,
        "gptq": 4,
        "gptvq": 0.8,
        "littlebit": 1,
        "nanoquant": 1,
        "none": 16,
        "parity": 0.8,
        "pb-llm": 1.7,
        "qtip": 0.8,
        "range-mixed": 2.5,
        "rtn": 4,
        "stbllm": 0.55,
        "ternary": 1.584963,
    }
    assert table["nominal_bits"].to_dict() == pytest.approx(nominal)
    assert table["needs_calibration"].to_dict() == {
        "arb-llm": True,
        "billm": True,
        "binary": False,
        "binary-factors": True,
        "btc": True,
        "btc-paper": True,
        "btc-planes": True,
        "gptq": True,
        "gptvq": True,
        "littlebit": False,
        "nanoquant": True,
        "none": False,
        "parity": True,
        "pb-llm": True,
        "qtip": True,
        "range-mixed": False,
        "rtn": False,
        "stbllm": True,
        "ternary": False,
    }
    assert table.loc["btc", "source"] == "BTC-LLM, arXiv 2506.12040"
    assert (table["note"].str.len() > 20).all()


@pytest.mark.parametrize("name", presets.list_presets())
def test_every_setting_has_help(name: str) -> None:
    assert issubclass(presets.find(name), Preset)
    assert all(field.metadata["help"] for field in dataclasses.fields(presets.find(name)))


@pytest.mark.parametrize(
    ("bits", "shape"),
    [(0.7, (10, 128)), (0.8, (10, 256)), (0.9, (10, 512)), (0.5, (8, 16)), (0.75, (8, 64)), (0.3, (10, 8)), (0.667, (9, 64))],
)
def test_codebooks_of_a_rate(bits: float, shape: tuple[int, int]) -> None:
    assert choose_codebook_shape(bits) == shape


def test_no_rate_below_one_is_silently_another() -> None:
    for hundredth in range(30, 100):
        bits = hundredth / 100
        try:
            assert presets.find("btc")(bits=bits).nominal_bits == pytest.approx(bits, abs=0.0051)
        except RecipeError as error:
            assert f"has {bits} bits; use" in str(error)  # noqa: PT017


@pytest.mark.parametrize(("bits", "shape"), [(0.8, (10, 256)), (1, (10, 1024)), (1.5, (6, 512)), (2, (5, 1024)), (4, (2, 256))])
def test_vectors_of_a_rate(bits: float, shape: tuple[int, int]) -> None:
    assert choose_vector_shape(bits) == shape


def test_a_rate_without_vectors_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"preset 'gptvq': no codebook of 1 to 16 weights .* has 2\.7 bits; use 2\.667 or 2\.5"):
        presets.find("gptvq")(bits=2.7).build()


@pytest.mark.parametrize(("bits", "shape"), [(0.8, (4, 5)), (0.7, (7, 10)), (1, (2, 2)), (1.5, (3, 2)), (2, (2, 1)), (3, (3, 1))])
def test_steps_of_a_rate(bits: float, shape: tuple[int, int]) -> None:
    assert choose_step_shape(bits) == shape


def test_a_rate_without_steps_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"preset 'qtip': no step of 2 to 10 bits .* has 3\.8 bits per weight; use 4 or 3\.5"):
        presets.find("qtip")(bits=3.8).build()


def test_one_bit_and_more_need_no_codebook() -> None:
    assert [coder.name for coder in presets.recipe("btc", bits=1.0).coders] == ["sign"]
    eleven = presets.recipe("btc", bits=1.11)
    assert [coder.planes for coder in eleven.coders] == [1, 2]
    assert eleven.split.share == 0.11
    assert [coder.planes for coder in presets.recipe("btc", bits=2).coders] == [2]


@pytest.mark.parametrize(
    ("transform", "learned"),
    [
        pytest.param("signs", (False, True, "none"), id="signs"),
        pytest.param("rotation", (False, False, "kronecker"), id="rotation"),
        pytest.param("both", (False, True, "kronecker"), id="both"),
        pytest.param("all", (True, True, "kronecker"), id="all"),
    ],
)
def test_btc_learns_what_is_asked_for(transform: str, learned: tuple[bool, bool, str]) -> None:
    part = presets.recipe("btc", transform=transform).transform
    assert (part.gain, part.signs, part.rotation) == learned
    assert presets.recipe("btc", transform=transform, bits=1.11).transform == part


def test_btc_without_compensation_needs_no_calibration() -> None:
    assert not presets.find("btc")(compensation=False).needs_calibration
    assert not presets.find("btc")(compensation=False, bits=1.1).needs_calibration
    with pytest.raises(RecipeError, match="assignment 'block-feedback' needs calibration"):
        quantize(presets.recipe("btc"), gaussian(8, 40))


def test_act_order_stores_an_order_only_when_groups_move() -> None:
    w, h = gaussian(16, 256), correlated(256)
    moving, static = (
        quantize(presets.recipe("gptq", act_order=True, static_groups=flag), w, h).packed.format for flag in (False, True)
    )
    assert (moving, static) == ("permuted", "uniform")


def test_the_released_pb_llm_scale_is_too_small() -> None:
    w, h = gaussian(48, 256), correlated(256)
    kept, released = (quantize(presets.recipe("pb-llm", share=0.3, scale=scale), w, h) for scale in ("kept", "as-released"))
    ratio = released.packed.children[0].tensors["scale"].float() / kept.packed.children[0].tensors["scale"].float()
    assert ratio.mean().item() == pytest.approx(0.7, abs=0.05)
    assert kept.relative_error < released.relative_error


def test_pb_llm_stores_what_its_formula_says() -> None:
    """8ρ + (1 − ρ) + 1 bit of bitmap + 40/m for a scale and mean, and a scale and 8-bit zero, a row."""
    result = quantize(presets.recipe("pb-llm"), gaussian(64, 640), correlated(640))
    assert result.bits_per_weight == pytest.approx(0.8 + 0.9 + 1 + (32 + 24) / 640, rel=1e-3)
    assert result.nominal_bits == pytest.approx(1.7, abs=1e-3)


MISTAKES = {
    "btx": r"unknown preset 'btx'\. Did you mean 'btc'\? Known: arb-llm, billm, binary, binary-factors, btc, btc-paper, btc",
    "btc:bit=1": r"preset 'btc': unknown field 'bit'\. Did you mean 'bits'\? Known: shrinkage, guided, bits, assignment, scope",
    "btc:bits=x": "preset 'btc': bits is 'x'; a number is needed",
    "rtn:bits=2.5": "preset 'rtn': bits is '2.5'; a whole number is needed",
    "rtn:bits=9": "preset 'rtn': bits is 9; it must be from 1 to 8",
    "btc:bits=nan": "preset 'btc': bits is nan; it must be from 0.3 to 2.0",
    "btc:bits=0.99": r"no codebook of 8 to 20 signs with at most 2\^16 entries has 0.99 bits; use 0.9412 or 1",
    "btc:scope=all": "preset 'btc': scope is 'all'; use one of matrix, projection, model",
    "gptq:act_order=maybe": "preset 'gptq': act_order is 'maybe'; use true or false",
    "rtn:bits": "recipe 'rtn:bits': 'bits' is not key=value; write for example rtn:bits=4,group=128",
    "rtn:bits=2,bits=3": "recipe 'rtn:bits=2,bits=3': bits is given twice; give it once",
    "rtn:bits=1,symmetric=true": "symmetric grid of 1 bit has no step",
    "none:bits=2": "preset 'none': unknown field 'bits'",
    "": "unknown preset ''",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_clear_sentence(text: str) -> None:
    with pytest.raises(RecipeError, match=MISTAKES[text]):
        presets.parse(text)


@pytest.mark.parametrize("text", ["rtn", "rtn:", " rtn : bits=4 , group = 128 ", "rtn:bits=4,"])
def test_spaces_and_trailing_commas_are_fine(text: str) -> None:
    assert presets.parse(text) == presets.recipe("rtn")


def test_flags_have_several_spellings() -> None:
    for word, value in {"true": True, "Yes": True, "1": True, "on": True, "false": False, "no": False, "0": False}.items():
        assert presets.parse(f"gptq:act_order={word}") == presets.recipe("gptq", act_order=value)


ENDS = 7 * 8  # every stream of bits ends on a whole byte


def stored(name: str, rows: int, cols: int, **settings: object) -> tuple[float, float, int]:
    """Stored bits of a preset on normal weights, its nominal bits, and the salient columns it found."""
    result = quantize(presets.recipe(name, **settings), gaussian(rows, cols), torch.eye(cols))
    flags = next(node for _, node in result.packed.walk() if node.facts.get("map") == "columns")
    salient = int(bitpack.unpack(flags.tensors["map"], 1, cols).sum())
    return result.ledger.total_bits, result.nominal_bits, salient


def test_billm_stores_what_its_formula_says() -> None:
    """n(2m + c_s) + m + 112 n ⌈m/128⌉ (App. F of NanoQuant), less the map bits that salient weights do not need."""
    n, m = 32, 512
    bits, nominal, salient = stored("billm", n, m)
    formula = n * (2 * m + salient) + m + 112 * n * (m // 128)
    assert bits == pytest.approx(formula - n * salient, abs=ENDS)
    assert nominal == pytest.approx(1 + salient / m)


def test_arb_llm_stores_what_its_formula_says() -> None:
    """n(2m + c_s) + 33m + 64 n ⌈m/128⌉ as above, less those map bits; every group stores a scale for each column here."""
    n, m = 32, 512
    bits, _, salient = stored("arb-llm", n, m, bitmap=False)
    formula = n * (2 * m + salient) + 33 * m + 64 * n * (m // 128)
    assert bits == pytest.approx(formula - n * salient + 32 * m, abs=ENDS)


@pytest.mark.parametrize(("kept", "choice"), [(4, 7), (6, 5)])
def test_stbllm_stores_what_its_formula_says(kept: int, choice: int) -> None:
    """Signs and two map bits for kept weights, ⌈log2 C(8, N)⌉ bits for every 8, nine scales for every row and block."""
    n, m = 32, 512
    bits, nominal, _ = stored("stbllm", n, m, kept=kept)
    salient_kept = (nominal - kept / 8) * n * m  # each has one more plane, and no group to be mapped
    expected = n * m * kept / 8 * 3 + salient_kept * (1 - 2) + n * m // 8 * choice + m + 9 * 16 * n * (m // 128)
    assert bits == pytest.approx(expected, abs=ENDS)


@pytest.mark.parametrize("name", ["billm", "arb-llm"])
def test_groups_that_the_released_code_does_not_make_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"preset '{name}': the released code makes 2 groups; use groups=2 or released=no"):
        presets.recipe(name, released=True, groups=3)


def test_stbllm_as_released_stores_every_weight_and_so_more_bits() -> None:
    w, h = gaussian(32, 256), correlated(256)
    paper, released = (quantize(presets.recipe("stbllm", released=flag), w, h) for flag in (False, True))
    assert (paper.weight() == 0).float().mean() == 0.5
    assert (released.weight() == 0).sum() == 0
    assert released.nominal_bits > 1 > paper.nominal_bits
    assert released.bits_per_weight > paper.bits_per_weight


def test_gptq_without_a_search_fits_ranges_as_released() -> None:
    ahead = {clip: presets.recipe("gptq", clip=clip).assignment.fit_ahead for clip in ("none", "mse", "moment")}
    assert ahead == {"none": True, "mse": False, "moment": False}


def test_the_column_group_bitmap_and_more_groups_lower_the_error() -> None:
    w, h = gaussian(48, 256), correlated(256)
    plain, bitmap, three = (
        quantize(presets.recipe("arb-llm", **settings), w, h)
        for settings in ({"bitmap": False}, {"bitmap": True}, {"bitmap": True, "groups": 3})
    )
    assert plain.error > bitmap.error > three.error
    assert plain.bits_per_weight < bitmap.bits_per_weight < three.bits_per_weight


@pytest.mark.parametrize("bits", [0.7, 0.8, 0.9])
@pytest.mark.parametrize("splits", [1, 2])
def test_the_papers_bits_leave_out_maps_and_scales(bits: float, splits: int) -> None:
    result = quantize(presets.recipe("btc-paper", bits=bits, splits=splits), gaussian(64, 480), torch.eye(480))
    assert result.nominal_bits == pytest.approx(bits, abs=0.005)
    bits_of = {entry.item.split(".")[-1]: entry.bits / (64 * 480) for entry in result.ledger.entries}
    assert bits_of["planes signs"] == 1
    scales = 16 * (2 + splits) / (128 // 10 * 10)  # a scale a plane and a mean, for each block of whole codewords
    book = bits_of["binary-codebook codebook"]  # of one small layer
    assert result.bits_per_weight == pytest.approx(bits + splits + scales + book, abs=0.01)


@pytest.mark.parametrize("splits", [1, 2])
def test_the_setting_of_1_11_bits_has_groups_of_signs_and_two_planes_in_salient_columns(splits: int) -> None:
    result = quantize(presets.recipe("btc-paper", bits=1.11, splits=splits), gaussian(48, 256), correlated(256))
    signs = sum(entry.bits for entry in result.ledger.entries if entry.item.endswith("planes signs")) / (48 * 256)
    assert 1 < result.nominal_bits <= 1.11
    assert result.nominal_bits == pytest.approx(signs, abs=0.005)
    assert result.bits_per_weight > result.nominal_bits + 1
    assert presets.find("btc-paper")(bits=1.0).nominal_bits == 1


@pytest.mark.parametrize("name", ["btc", "btc-paper", "btc-planes"])
@pytest.mark.parametrize("bits", [0.8, 1.11])
def test_every_btc_takes_the_same_transforms(name: str, bits: float) -> None:
    recipe = presets.recipe(name, bits=bits, transform="both")
    assert recipe.transform == presets.recipe("btc", transform="both").transform
    assert recipe.coders == presets.recipe(name, bits=bits).coders


def test_a_rate_that_planes_cannot_have_is_named_in_all_their_bits() -> None:
    with pytest.raises(RecipeError, match=r"preset 'btc-planes': no codebook of .* has 0\.65 bits; use 0\.6316 or 0\.6667"):
        presets.recipe("btc-planes", bits=0.65)


@pytest.mark.parametrize("bits", [0.7, 0.8, 0.9, 1.11, 1.4, 1.6, 1.8])
def test_planes_of_codewords_store_what_they_promise(bits: float) -> None:
    result = quantize(presets.recipe("btc-planes", bits=bits, compensation=False), gaussian(128, 720))
    books = sum(entry.bits for entry in result.ledger.entries if entry.item.endswith("codebook codebook")) / (128 * 720)
    assert result.nominal_bits == pytest.approx(bits, abs=0.01)
    assert result.bits_per_weight == pytest.approx(bits + books + 32 / 720, abs=0.02)


def test_a_recipe_is_also_made_from_its_spelling() -> None:
    assert presets.recipe("btc:bits=0.8,transform=both") == presets.recipe("btc", bits=0.8, transform="both")
    with pytest.raises(RecipeError, match="already contains settings; give bits there"):
        presets.recipe("btc:scope=model", bits=0.8)


def test_a_spelling_instead_of_a_recipe_is_one_sentence(builtin: ModelHandle) -> None:
    sentence = r"the text 'rtn:bits=2' is not a recipe; write wb.recipe\('rtn:bits=2'\)"
    with pytest.raises(RecipeError, match=sentence):
        workbench.quantize(builtin, builtin.layer_names[0], "rtn:bits=2")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=sentence):
        workbench.quantize_model(builtin, "rtn:bits=2")  # type: ignore[arg-type]
