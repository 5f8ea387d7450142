"""Sweeps: every layer under every recipe and seed; on processes of a cluster, one of which is killed, as in one thread here."""

import dataclasses
from pathlib import Path

import pytest

import workbench as wb
from tests.unit.cluster.counted_tasks import count_starts, quantize_counted
from workbench.analysis.decisions.recipe_sweep import (
    describe_tasks,
    quantize_task_layer,
    summarise_sweep,
    sweep_recipes,
    tabulate_sweep,
)
from workbench.cluster import map_tasks_steps, open_cluster
from workbench.errors import ClusterError, RecipeError
from workbench.jobs import run_steps
from workbench.models import ModelHandle
from workbench.store import Store

RECIPES = {name: wb.recipe(name) for name in ("rtn:bits=8,clip=none", "rtn:bits=4,clip=none", "rtn:bits=2,clip=none")}


def test_a_killed_worker_costs_only_its_task(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip(
        "distributed", reason="dask.distributed is not installed; it comes with the extras 'test' and 'distributed'"
    )
    here, there, log = Store(tmp_path / "here"), Store(tmp_path / "there"), tmp_path / "log"
    log.mkdir()
    model = wb.open_model(tiny_models["llama"])
    tasks = describe_tasks(model, model.layer_names, RECIPES, {0: None}, here)
    killer = 20
    counted = [
        dataclasses.replace(task, arguments={**task.arguments, "log": str(log), "kills": number == killer})
        for number, task in enumerate(tasks)
    ]
    with open_cluster(workers=2) as cluster:
        results = run_steps(map_tasks_steps(quantize_counted, counted, there, cluster))
    starts = count_starts(log)
    assert len(tasks) == len(starts) == 42
    lost = tasks[killer].arguments
    assert {name: count for name, count in starts.items() if count != 1} == {f"{lost['layer']} {lost['label']}": 2}
    serial = run_steps(map_tasks_steps(quantize_task_layer, tasks, here))
    tables = [tabulate_sweep(tasks, figures).drop(columns="seconds") for figures in (results, serial)]
    assert tables[0].equals(tables[1])  # bit for bit
    assert len({path.name.split("@")[1] for path in log.iterdir()}) >= 2  # processes


def test_a_sweep_is_what_quantize_says(builtin: ModelHandle, tmp_path: Path) -> None:
    recipes = {"2 bits": wb.recipe("gptq", bits=2), "4 bits": wb.recipe("rtn", bits=4)}
    options = {"layers": "*.0.self_attn.*", "tokens": 64}
    table = sweep_recipes(builtin, recipes, seeds=(0, 1), **options, store=Store(tmp_path))
    assert table["seed"].tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=64, seed=1)
    row = table[(table["recipe"] == "2 bits") & (table["seed"] == 1)].iloc[2]
    result = wb.quantize(builtin, row["name"], dataclasses.replace(recipes["2 bits"], seed=1), stats)
    assert row["bits_per_weight"] == result.bits_per_weight
    assert row["output_error"] == pytest.approx(result.output_error, rel=1e-4)
    summary = summarise_sweep(table).set_index("recipe")
    part = table[table["recipe"] == "4 bits"]
    assert summary["output_error"]["4 bits"] == part["output_error"].mean()
    assert summary["bits_per_weight"]["4 bits"] == pytest.approx(part["bits"].sum() / part["parameters"].sum())
    assert summary["worst_layer"]["2 bits"] in table["name"].tolist()


def test_a_recipe_that_does_not_fit_is_a_row(builtin: ModelHandle, tmp_path: Path) -> None:
    table = sweep_recipes(builtin, {"7": wb.recipe("rtn", group=7)}, layers="*.0.mlp.*", store=Store(tmp_path))
    assert table["problem"].str.contains("7").all()
    assert table["bits"].isna().all()
    assert summarise_sweep(table)["problems"].tolist() == [3]


def test_a_choice_of_nothing_is_refused(builtin: ModelHandle, tmp_path: Path) -> None:
    for options in ({"layers": "*.99.*"}, {"seeds": ()}):
        with pytest.raises(RecipeError, match="at least one of each is needed"):
            sweep_recipes(builtin, RECIPES, **options, store=Store(tmp_path))


def test_a_fused_model_has_no_workers(builtin: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="is fused, so that no other process can open it"):
        sweep_recipes(wb.fuse(builtin), RECIPES, layers="*.0.mlp.*", store=Store(tmp_path))
