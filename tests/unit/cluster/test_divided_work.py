"""What measures many independent things does it on a cluster too, with the same numbers: calibration, sensitivity, stops."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.zoo.checkpoints import write_checkpoint
from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.decisions.squeeze_tasks import build_there_steps
from workbench.analysis.decisions.stops import Stop
from workbench.analysis.predictions.ablation import run_ablation
from workbench.bench.cpu import set_thread_count
from workbench.cluster import Cluster
from workbench.cluster.calibration import calibrate_in_parts
from workbench.errors import ClusterError
from workbench.jobs import run_steps
from workbench.models import ModelHandle, open_model
from workbench.models.text import Text, text
from workbench.store import Store

SHORT = Text("short", tuple(story[:200] for story in text("evaluation").documents[:4]))
CALIBRATION = Text("few", tuple(story[:200] for story in text("calibration").documents[:12]))


@pytest.fixture(scope="module")
def llama(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def test_parts_of_a_text_add_up(llama: ModelHandle, cluster: Cluster, tmp_path: Path) -> None:
    options = {"tokens": 500, "seed": 3}
    here = calibrate_in_parts(llama, CALIBRATION, **options, store=Store(tmp_path / "here"))
    store = Store(tmp_path / "there")
    there = calibrate_in_parts(llama, CALIBRATION, **options, store=store, cluster=cluster)
    with set_thread_count(1):
        plain = wb.calibrate(llama, CALIBRATION, **options)
    assert list(there) == list(here) == list(plain)
    assert there.facts() == here.facts() == plain.facts()
    for name in plain:
        for part in ("moment", "mean", "absmax"):
            assert torch.equal(getattr(there[name], part), getattr(here[name], part)), (name, part)
            torch.testing.assert_close(getattr(there[name], part), getattr(plain[name], part), rtol=2e-7, atol=0)
        assert there[name].tokens == plain[name].tokens
    shared = {id(plain[name]) for name in plain}
    assert len({id(there[name]) for name in there}) == len(shared)
    assert sorted(item.kind for item in store.items()) == ["calibration", "text"]  # nothing is left of the parts
    assert len(calibrate_in_parts(llama, CALIBRATION, **options, store=store)) == len(plain)


def test_experts_that_only_a_part_of_the_text_reaches(tmp_path: Path) -> None:
    model = open_model(write_checkpoint("mixtral", tmp_path / "mixtral"))
    parts = calibrate_in_parts(model, CALIBRATION, tokens=60, store=Store(tmp_path / "store"))
    with set_thread_count(1):  # as the parts are computed: on several threads the inputs themselves are rounded otherwise
        plain = wb.calibrate(model, CALIBRATION, tokens=60)
    assert list(parts) == list(plain)
    assert parts.facts() == plain.facts()
    for name in plain:
        torch.testing.assert_close(parts[name].moment, plain[name].moment, rtol=2e-7, atol=0)


def test_sensitivity_is_the_same(llama: ModelHandle, cluster: Cluster, tmp_path: Path) -> None:
    with set_thread_count(1):
        replay = wb.Replay(llama, SHORT, tokens=100)
    recipes = {"2 bits": wb.recipe("gptq", bits=2), "4 bits": wb.recipe("rtn")}
    stats = wb.calibrate(llama, CALIBRATION, tokens=100)
    with set_thread_count(1):
        here = wb.sensitivity(replay, recipes, stats=stats, layers="*.0.*")
    seen: list[float] = []
    options = {"stats": stats, "layers": "*.0.*", "store": Store(tmp_path), "cluster": cluster}
    there = wb.sensitivity(replay, recipes, **options, on_progress=lambda step: seen.append(step.fraction))
    assert there.equals(here)
    assert seen[-1] == 1
    assert wb.sensitivity(replay, recipes, stats=stats, layers="*.0.*", store=options["store"]).equals(here)


def test_an_ablation_is_the_same(llama: ModelHandle, cluster: Cluster, tmp_path: Path) -> None:
    recipes = {"4 bits": wb.recipe("rtn"), "2 bits": wb.LayerPlan.uniform(wb.recipe("rtn", bits=2), "*.mlp.*")}
    options = {"calibration": CALIBRATION, "tokens": 64, "evaluation_tokens": 64}
    with set_thread_count(1):
        here = run_ablation(llama, recipes, SHORT, **options)
    there = run_ablation(llama, recipes, SHORT, **options, store=Store(tmp_path), cluster=cluster)
    assert there.drop(columns="seconds").equals(here.drop(columns="seconds"))


def test_stops_are_quantized_there(llama: ModelHandle, cluster: Cluster, tmp_path: Path) -> None:
    stops = [Stop(16, "none", 1), Stop(4, "rtn:bits=4", 2), Stop(3, "gptq:bits=3", 2)]
    squeezes = [
        Squeeze(llama, Store(tmp_path / where), stops=stops, calibration=CALIBRATION, evaluation=SHORT, tokens=64, threads=1)
        for where in ("here", "there")
    ]
    here, there = run_steps(squeezes[0].steps()), run_steps(build_there_steps(squeezes[1], cluster))
    assert [squeezed.perplexity for squeezed in there] == [squeezed.perplexity for squeezed in here]
    for stop in stops[1:]:
        files = [(squeeze.folder(stop) / "packed.safetensors").read_bytes() for squeeze in squeezes]
        assert files[0] == files[1]


def test_a_model_in_memory_has_no_workers(llama: ModelHandle, cluster: Cluster, tmp_path: Path) -> None:
    model = open_model(llama.module)
    with pytest.raises(ClusterError, match="was opened from memory, so that no other process can open it; open its folder"):
        run_steps(build_there_steps(Squeeze(model, Store(tmp_path)), cluster))


def test_another_model_on_the_worker_is_refused(llama: ModelHandle) -> None:
    from workbench.cluster.task_inputs import describe_model, open_described_model

    facts = describe_model(llama)
    assert open_described_model(facts).fingerprint == llama.fingerprint
    with pytest.raises(ClusterError, match=r"has other weights on the worker \(fingerprint \w{16}, and 0{16}"):
        open_described_model({**facts, "fingerprint": "0" * 16})


def test_inputs_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    from workbench.cluster.task_inputs import read_shared_text

    with pytest.raises(ClusterError, match="set WORKBENCH_CACHE to a folder that all machines share"):
        read_shared_text("0" * 64, Store(tmp_path))
