"""The slider's stops are real models on disk: built once, found again, resumed, never served damaged or for other content."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench import job_record
from workbench.analysis.decisions import headline
from workbench.analysis.decisions import squeeze as squeeze_module
from workbench.analysis.decisions.headline import count_stored
from workbench.analysis.decisions.squeeze import Squeeze, tabulate_stops
from workbench.analysis.decisions.stops import STOPS, Stop
from workbench.artifact import PackedModel, load
from workbench.bench.cpu import set_thread_count
from workbench.errors import ArtifactError, OutputError, WorkbenchError
from workbench.jobs import Status, run_steps
from workbench.models import ModelHandle
from workbench.models.text import Text
from workbench.run_records import list_runs
from workbench.store import Store, StoreWarning

SMALL = (Stop(16, "none", 1), Stop(2, "rtn:bits=2,group=32", 1), Stop(1, "gptq:bits=1,group=32", 2))
STORY = Text("story", ("The small dog ran to the river. " * 6, "A bird sat on the roof and sang. " * 6))


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return wb.open_model(tiny_models["llama"])


def squeeze_of(model: ModelHandle, folder: Path, **settings: object) -> Squeeze:
    return Squeeze(model, Store(folder), **{"stops": SMALL, "calibration": STORY, "evaluation": STORY, "tokens": 64, **settings})


@pytest.fixture(scope="module")
def built(model: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Squeeze:
    """All three stops."""
    squeeze = squeeze_of(model, tmp_path_factory.mktemp("squeeze"))
    run_steps(squeeze.steps())
    return squeeze


def test_every_stop_is_a_saved_model_with_measured_figures(built: Squeeze, model: ModelHandle) -> None:
    found = built.built_stops()
    assert [known.stop for known in found] == list(SMALL)
    for known in found:
        if known.stop.is_original:
            saved: ModelHandle | PackedModel = model
            stored = count_stored(model, None)
            expected = (stored.bits_per_weight, stored.nominal_bits, stored.bytes)
        else:
            saved = load(built.folder(known.stop))
            expected = (saved.bits_per_weight, saved.nominal_bits, saved.bytes)
        read = saved.perplexity(STORY)
        assert (known.bits_per_weight, known.nominal_bits, known.bytes) == expected
        assert known.perplexity == pytest.approx(read.perplexity, rel=1e-4)
        assert (known.perplexity_low, known.perplexity_high) == pytest.approx(read.perplexity_interval, rel=1e-4)
        assert 0 < known.slowest <= known.tokens_per_second <= known.fastest
        assert known.resident_bytes > 0
    assert sorted((known.bytes for known in found), reverse=True) == [known.bytes for known in found]


def test_the_first_stop_is_the_original(built: Squeeze, model: ModelHandle) -> None:
    ids = model.encode("The small dog")
    torch.testing.assert_close(built.model_at(SMALL[0]).logits(ids), model.language_model().logits(ids), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(built.model_at(SMALL[2]).logits(ids), model.language_model().logits(ids), atol=1e-2)


def test_a_second_visitor_and_a_restart_build_nothing(built: Squeeze, model: ModelHandle) -> None:
    again = squeeze_of(model, built.store.folder)
    assert list(again.steps()) == []
    assert again.built_stops() == built.built_stops()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"tokens": 65}, id="calibration-tokens"),
        pytest.param({"seed": 1}, id="seed"),
        pytest.param({"calibration": Text("other", ("A cat.",))}, id="calibration-text"),
        pytest.param({"stops": (Stop(1, "gptq:bits=1,group=64", 2),)}, id="recipe"),
    ],
)
def test_other_content_is_another_stop(built: Squeeze, model: ModelHandle, other: dict[str, object]) -> None:
    again = squeeze_of(model, built.store.folder, **other)
    assert again.find(again.stops[-1]) is None


def test_other_weights_are_another_stop(built: Squeeze, tiny_models: dict[str, Path]) -> None:
    again = squeeze_of(wb.open_model(tiny_models["mistral"]), built.store.folder)
    assert again.built_stops() == []


def test_a_cancelled_build_goes_on_where_it_stopped(model: ModelHandle, tmp_path: Path) -> None:
    squeeze = squeeze_of(model, tmp_path)
    steps = squeeze.steps()
    for step in steps:
        if step.stop == SMALL[2]:
            break
    steps.close()
    assert [known.stop for known in squeeze.built_stops()] == [SMALL[0], SMALL[1]]
    rest = list(squeeze.steps())
    assert {step.stop for step in rest} == {SMALL[2]}
    assert len(squeeze.built_stops()) == 3
    fractions = [step.fraction for step in rest]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1


def test_one_job_builds_for_all_visitors(model: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_record, "LONG_SECONDS", 0)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    squeeze = squeeze_of(model, tmp_path, stops=SMALL[:2])
    job = squeeze.start()
    assert squeeze.start() is job
    assert [known.stop for known in job.result()] == list(SMALL[:2])
    job.wait()
    assert [record.command for record in list_runs()] == ["workbench explore (building the stops)"]


def test_a_stopped_job_goes_on_where_it_was(model: ModelHandle, tmp_path: Path) -> None:
    """Its process ends at once; what it has finished is found by the next one."""
    squeeze = squeeze_of(model, tmp_path)
    job = squeeze.start()
    while not squeeze.built_stops() and job.status is Status.RUNNING:
        job.wait(0.05)
    job.cancel()
    assert job.wait(30)
    assert job.status in (Status.CANCELLED, Status.DONE)
    before = squeeze.built_stops()
    assert before
    assert squeeze.start().result() == squeeze.built_stops()
    assert squeeze.built_stops()[: len(before)] == before


def test_a_stop_that_is_not_built_is_explained(model: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="the stop at 2 bits is not built yet; build the stops first"):
        squeeze_of(model, tmp_path).model_at(SMALL[1])


@pytest.mark.parametrize("stop", [SMALL[1], SMALL[2]], ids=["plain", "calibrated"])
def test_a_damaged_stop_is_reported_and_built_again(model: ModelHandle, tmp_path: Path, stop: Stop) -> None:
    run_steps(squeeze_of(model, tmp_path, stops=(stop,)).steps())
    again = squeeze_of(model, tmp_path, stops=(stop,))
    document = again.folder(stop) / "ledger.json"
    document.write_text(json.dumps({**json.loads(document.read_text()), "bytes": 1}))
    assert again.find(stop) is not None
    with pytest.raises(ArtifactError, match="was changed after it was saved"):
        again.model_at(stop)
    assert again.find(stop) is None
    run_steps(again.steps())
    assert again.model_at(stop).logits(model.encode("Hi")).isfinite().all()


def test_a_stop_that_is_damaged_before_it_was_measured_is_built_again(model: ModelHandle, tmp_path: Path) -> None:
    squeeze = squeeze_of(model, tmp_path, stops=SMALL[1:2])
    squeeze.folder(SMALL[1]).mkdir(parents=True)
    (squeeze.folder(SMALL[1]) / "recipe.json").write_text("{}")  # what an earlier release may have left half removed
    assert len(run_steps(squeeze.steps())) == 1
    assert load(squeeze.folder(SMALL[1])).bits_per_weight > 2


def test_a_store_that_cannot_be_written_is_said_before_any_work(model: ModelHandle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    squeeze = squeeze_of(model, tmp_path / "file")
    with pytest.warns(StoreWarning, match="cannot be read"):
        assert squeeze.find(SMALL[0]) is None
    with pytest.raises(OutputError, match="the stops are stored in the cache folder, but .*file is a file"):
        next(squeeze.steps())


def test_the_table_has_a_row_a_stop(built: Squeeze) -> None:
    table = tabulate_stops(built.built_stops())
    assert table["recipe"].tolist() == [stop.preset for stop in SMALL]
    assert tabulate_stops([]).columns.tolist() == table.columns.tolist()


def test_the_slider_has_ten_stops_from_16_bits_to_below_one() -> None:
    bits = [stop.bits for stop in STOPS]
    assert (len(STOPS), bits[0]) == (10, 16)
    assert bits == sorted(bits, reverse=True)
    for stop in STOPS:
        nominal = replace(stop).recipe
        assert nominal.name == stop.preset.split(":")[0]
    assert bits[-1] < 0.7


def test_the_builder_quantizes_on_few_threads_and_measures_speed_on_all(
    model: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"quantizing": set(), "speed": set()}

    def look(what: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **settings: object) -> object:
            threads[what].add(torch.get_num_threads())
            return function(*arguments, **settings)

        return run

    monkeypatch.setattr(squeeze_module, "quantize_model_steps", look("quantizing", squeeze_module.quantize_model_steps))
    monkeypatch.setattr(headline, "measure_generation_steps", look("speed", headline.measure_generation_steps))
    with set_thread_count(3):
        squeeze = squeeze_of(model, tmp_path, threads=1)
        for step in squeeze.steps():
            if step.doing == "quantizing" and step.fraction and not step.stop.is_original:
                threads["quantizing"].add(torch.get_num_threads())
        assert torch.get_num_threads() == 3
    assert 1 in threads["quantizing"]
    assert threads["speed"] == {3}
