"""The gallery: every preset is tried on the selected layer and comes to the bench by its dot or its card."""

from pathlib import Path

import pytest

import workbench as wb
from workbench import presets
from workbench.analysis.decisions import preset_trials
from workbench.session import Session, SharedModel
from workbench.widgets.elements.card_list import CardList
from workbench.widgets.shell.recipe_gallery import RecipeGallery

FEW = ["rtn", "rtn:bits=2", "gptq"]
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three recipes, and a store of their own."""
    monkeypatch.setattr(preset_trials, "list_trial_recipes", lambda *, calibrated: FEW if calibrated else FEW[:2])
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@pytest.fixture
def gallery(session: Session) -> RecipeGallery:
    return RecipeGallery(session, threaded=False)


def card(gallery: RecipeGallery, key: str) -> dict[str, str]:
    """One card, by the preset's name."""
    return next(one for one in gallery.cards.cards if one["key"] == key)


def test_before_anything_is_tried_every_preset_has_a_card(gallery: RecipeGallery) -> None:
    keys = [one["key"] for one in gallery.cards.cards]
    assert sorted(keys) == sorted([*(name for name in presets.list_presets() if name != "none"), "custom"])
    assert keys[:3] == ["rtn", "range-mixed", "gptq"], "by family"
    gptq = card(gallery, "gptq")
    assert (gptq["title"], gptq["group"], gptq["source"]) == ("GPTQ", "Compensation", "GPTQ, arXiv 2210.17323")
    assert gptq["summary"] == presets.find("gptq").summary
    assert gptq["figures"] == "nominal 4.00 bits · not tried here yet"
    assert "Press Try all presets" in gallery.frame.answer.object
    assert gallery.go.visible


def test_dots_and_cards_come_with_the_trials(gallery: RecipeGallery, session: Session) -> None:
    gallery.go.clicks += 1
    assert gallery.notices.messages == []
    assert list(gallery.trials) == FEW
    assert not gallery.go.visible
    result = wb.quantize(session.model, session.layer, wb.recipe("gptq"), session.shared.stats())
    stored = f"{result.bits_per_weight:.2f} stored bits (4.00 nominal) · output error {result.output_error:.3g}"
    assert card(gallery, "gptq")["figures"] == stored
    assert gallery.frame.figure.table["recipe"].tolist() == ["rtn:bits=2", "rtn", "gptq"]
    assert card(gallery, "btc")["figures"].endswith("not tried here yet")


def test_a_card_and_a_dot_come_to_the_bench_and_can_be_undone(gallery: RecipeGallery, session: Session) -> None:
    gallery.go.clicks += 1
    before = session.recipe
    gallery.cards._handle_msg("gptq")
    assert session.recipe == wb.recipe("gptq")
    assert gallery.cards.value == "gptq"
    dot = {"points": [{"customdata": "rtn:bits=2", "x": 2.1}]}
    gallery.frame.plot.click_data = dot
    assert session.recipe == wb.recipe("rtn", bits=2)
    edges = gallery.frame.figure.plot["data"][0]["marker"]["line"]["width"]
    assert edges == [3, 1], "the dot on the bench is marked"
    gallery.live.choose(session.undo)
    gallery.frame.plot.click_data = dict(dot)
    assert session.recipe == wb.recipe("rtn", bits=2), "the same dot again"
    for _ in range(2):
        gallery.live.choose(session.undo)
    assert session.recipe == before


@pytest.mark.parametrize("event", [None, {}, {"points": []}, {"points": [{}]}], ids=str)
def test_a_click_beside_the_dots_chooses_nothing(gallery: RecipeGallery, session: Session, event: object) -> None:
    before = session.recipe
    gallery.frame.plot.click_data = event
    assert session.recipe == before
    assert gallery.notices.messages == []


def test_free_composition_starts_with_the_parts_on_the_bench(gallery: RecipeGallery, session: Session) -> None:
    before = session.recipe
    gallery.choose("custom")
    assert session.recipe == before.replace()
    assert gallery.cards.value == "custom"


def test_another_layer_takes_the_trials_away_and_they_come_back_from_the_store(
    gallery: RecipeGallery, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = session.layer
    gallery.go.clicks += 1
    tried = gallery.trials
    gallery.live.choose(lambda: session.select(DOWN))
    assert gallery.trials == {}
    assert gallery.frame.figure is None
    assert gallery.go.visible
    gallery.live.choose(lambda: session.select(first))
    monkeypatch.setattr(preset_trials, "quantize_layer", None)
    gallery.go.clicks += 1
    assert gallery.trials == tried


def test_what_does_not_fit_says_why(gallery: RecipeGallery, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = preset_trials.Trial("gptq", 64, problem="group size 7 does not divide 64 columns.")
    gallery.trials = {"gptq": problem}
    gallery._show()
    assert card(gallery, "gptq")["figures"] == "Does not fit this layer: group size 7 does not divide 64 columns."


def test_methods_that_need_a_text_wait_for_it(shared: SharedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.session.shared.SMALL", 1000)
    session = Session(SharedModel(shared.model))
    gallery = RecipeGallery(session, threaded=False)
    assert "methods need the calibration text, which has not been read yet: press Quantize this layer" in gallery.missing.object
    gallery.go.clicks += 1
    assert list(gallery.trials) == FEW[:2]
    assert "weight error" in card(gallery, "rtn")["figures"]
    session.shared.stats()
    gallery.live.announce("results")
    assert gallery.missing.object == ""
    gallery.measure()
    assert list(gallery.trials) == FEW
    assert "output error" in card(gallery, "rtn")["figures"]


def test_it_begins_by_itself_in_a_notebook(session: Session) -> None:
    gallery = RecipeGallery(session)
    assert gallery.jobs.job is not None
    assert gallery.jobs.job.wait(60)
    gallery.jobs.look()
    assert list(gallery.trials) == FEW
    assert not gallery.status.visible
    gallery.jobs.close()


def test_a_card_list_tells_which_card_was_chosen() -> None:
    picked: list[str] = []
    CardList(picked.append, 200)._handle_msg("gptq")
    assert picked == ["gptq"]
