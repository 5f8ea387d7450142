"""The stops that come with the package: there at once, the files that they claim to be, measured here for speed only."""

import json
from pathlib import Path

import pytest

import workbench as wb
from tests.readme.stops import write_stops
from workbench.analysis.decisions import shipped_stops
from workbench.analysis.decisions.headline import count_stored_files
from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.decisions.stops import STOPS, Stop
from workbench.artifact.loading import read_quantized_model
from workbench.errors import ArtifactError
from workbench.jobs import run_steps
from workbench.models import ModelHandle
from workbench.models.text import Text
from workbench.store import Store

SMALL = (Stop(16, "none", 1), Stop(2, "rtn:bits=2,group=32", 1))
STORY = Text("story", ("The small dog ran to the river. " * 6, "A bird sat on the roof and sang. " * 6))


def test_every_stop_of_the_builtin_model_is_there_at_once(builtin: ModelHandle, tmp_path: Path) -> None:
    squeeze = Squeeze(builtin, Store(tmp_path))
    assert squeeze.complete
    assert not squeeze.measured, "speed is that of this machine"
    stops = squeeze.built_stops()
    assert [squeezed.stop for squeezed in stops] == list(STOPS)
    for squeezed in stops[1:]:
        folder = squeeze.folder(squeezed.stop)
        assert folder.parent == shipped_stops.SHIPPED_FOLDER
        stored = count_stored_files(read_quantized_model(folder), folder)
        assert stored == type(stored)(**{name: getattr(squeezed, name) for name in vars(stored)})
        assert squeezed.perplexity_low < squeezed.perplexity < squeezed.perplexity_high
        assert squeezed.tokens_per_second is None
    bits = [squeezed.bits_per_weight for squeezed in stops]
    assert bits == sorted(bits, reverse=True)
    assert not list((tmp_path / "models").glob("*"))


def test_a_shipped_stop_runs(builtin: ModelHandle, tmp_path: Path) -> None:
    squeeze = Squeeze(builtin, Store(tmp_path))
    ids = builtin.encode("Once upon a time")
    original, squeezed = squeeze.model_at(STOPS[0]).logits(ids), squeeze.model_at(STOPS[5]).logits(ids)
    assert 0.01 < float((squeezed - original).norm() / original.norm()) < 1


def test_no_other_model_text_or_seed_has_them(builtin: ModelHandle, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    assert Squeeze(wb.open_model(tiny_models["llama"]), Store(tmp_path)).built_stops() == []
    assert Squeeze(builtin, Store(tmp_path), evaluation=STORY).built_stops() == []
    assert {squeezed.stop.preset for squeezed in Squeeze(builtin, Store(tmp_path), seed=1).built_stops()} == {
        "none", "rtn:bits=8", "rtn:bits=6",
    }, "what reads no calibration text does not depend on its seed"  # fmt: skip


def test_only_the_speed_of_shipped_stops_is_measured(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = wb.open_model(tiny_models["llama"]), {"stops": SMALL, "calibration": STORY, "evaluation": STORY}
    maker = Squeeze(model, Store(tmp_path / "maker"), **settings)
    run_steps(maker.steps())
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / shipped_stops.INDEX_FILE).write_text(json.dumps(write_stops(maker, shipped)))
    monkeypatch.setattr(shipped_stops, "SHIPPED_FOLDER", shipped)

    squeeze = Squeeze(model, Store(tmp_path / "user"), **settings)
    assert squeeze.complete
    assert {step.doing for step in squeeze.steps()} == {"measuring its speed"}
    assert squeeze.measured
    assert list(squeeze.steps()) == []
    assert not list((tmp_path / "user" / "models").glob("*")), "nothing is copied"
    for before, after in zip(maker.built_stops(), squeeze.built_stops(), strict=True):
        assert (before.perplexity, before.bytes, before.ratio_low) == (after.perplexity, after.bytes, after.ratio_low)
        assert after.fastest is not None
    assert Squeeze(model, Store(tmp_path / "user"), **settings).measured, "found again after a restart"


@pytest.mark.complete
@pytest.mark.slow
@pytest.mark.parametrize("stop", [STOPS[3], STOPS[5], STOPS[8]], ids=lambda stop: stop.preset)
def test_a_shipped_stop_has_the_perplexity_that_it_claims(builtin: ModelHandle, tmp_path: Path, stop: Stop) -> None:
    squeeze = Squeeze(builtin, Store(tmp_path))
    squeezed = squeeze.find(stop)
    assert squeezed is not None
    assert wb.load(squeeze.folder(stop)).perplexity(squeeze.evaluation).perplexity == pytest.approx(squeezed.perplexity, rel=2e-3)


@pytest.mark.complete
@pytest.mark.slow
def test_a_shipped_stop_is_what_is_built_today(builtin: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Squeeze(builtin, Store(tmp_path), stops=STOPS[3:4]).built_stops()[0]
    monkeypatch.setattr(shipped_stops, "SHIPPED_FOLDER", tmp_path / "none")
    (built,) = run_steps(Squeeze(builtin, Store(tmp_path), stops=STOPS[3:4]).steps())
    assert built.bits_per_weight == shipped.bits_per_weight
    assert built.perplexity == pytest.approx(shipped.perplexity, rel=0.01)


def test_a_damaged_stop_of_the_package_is_built_in_the_store_and_left_where_it_is(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = wb.open_model(tiny_models["llama"]), {"stops": SMALL, "calibration": STORY, "evaluation": STORY}
    maker = Squeeze(model, Store(tmp_path / "maker"), **settings)
    run_steps(maker.steps())
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / shipped_stops.INDEX_FILE).write_text(json.dumps(write_stops(maker, shipped)))
    damaged = shipped / "2-bits" / "ledger.json"
    damaged.write_text(json.dumps({**json.loads(damaged.read_text()), "bytes": 1}))
    monkeypatch.setattr(shipped_stops, "SHIPPED_FOLDER", shipped)

    squeeze = Squeeze(model, Store(tmp_path / "user"), **settings)
    with pytest.raises(ArtifactError, match="was changed after it was saved"):
        squeeze.model_at(SMALL[1])
    assert squeeze.find(SMALL[1]) is None
    run_steps(squeeze.steps())
    assert squeeze.folder(SMALL[1]).is_relative_to(tmp_path / "user")
    assert squeeze.model_at(SMALL[1]).logits(model.encode("Hi")).isfinite().all()
    assert damaged.exists(), "nothing in the package is removed"
