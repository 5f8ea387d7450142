"""A sweep: every layer under every recipe and seed, each by itself: stored bits, errors and seconds."""

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.calibration import DEFAULT_TOKENS, CalibrationStats
from workbench.cluster.calibration import calibrate_steps
from workbench.cluster.connection import Cluster
from workbench.cluster.task_inputs import describe_model, open_described_model, read_shared_stats, share_stats
from workbench.cluster.task_map import Task, TaskProgress, map_tasks_steps
from workbench.errors import RecipeError, ShapeError
from workbench.jobs import run_steps
from workbench.models import ModelHandle
from workbench.models.text import Text, text
from workbench.quantizers import quantize
from workbench.quantizers.pipeline import can_use_moment
from workbench.recipe import Recipe
from workbench.seeds import check_seed
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
SWEEP_FIGURES = ("parameters", "bits", "bits_per_weight", "nominal_bits", "relative_error", "output_error", "seconds")


def sweep_recipes(
    model: ModelHandle,
    recipes: Mapping[str, Recipe],
    *,
    layers: str = "*",
    seeds: Sequence[int] = (0,),
    calibration: Text | None = None,
    tokens: int = DEFAULT_TOKENS,
    store: Store | None = None,
    cluster: Cluster | None = None,
) -> "pd.DataFrame":
    """Quantize every layer with every recipe and seed, each by itself, on this machine or on a cluster.

    Args:
        model: A model from `wb.open_model`.
        recipes: Recipes by the names that the table shall use.
        layers: Patterns of layer names, separated by commas.
        seeds: Each is that of the recipe, and draws the order of the calibration text's documents.
        calibration: A text, the built-in one when absent; it is read only if a recipe can use what it says.
        tokens: At most so many tokens of it.
        store: Where results are found, and new ones are kept; the user's store when absent.
        cluster: Where to work, from `open_cluster`; here, on one thread, when absent.

    Returns:
        One row a recipe, seed and layer: recipe, seed, name, parameters, bits (stored, in all), bits_per_weight, nominal_bits,
        relative_error, output_error (NaN without calibration), seconds (of the run that computed it), problem (why the recipe
        does not fit the layer, else ""). All but the seconds are the same bit for bit on any number of workers.

    Raises:
        RecipeError: Where no layer matches, or where there is no recipe or seed.
        ClusterError: Where the cluster goes away; what is done is in the store.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> recipes = {f"{bits} bits": wb.recipe("rtn", bits=bits) for bits in (2, 4)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"layers": "*.0.mlp.*", "tokens": 64, "store": wb.Store(folder)}
        ...     table = wb.measures.sweep(wb.open_model("builtin"), recipes, **options)
        >>> len(table), table.groupby("recipe")["bits_per_weight"].mean().round(1).tolist()
        (6, [2.1, 4.2])
    """
    options: dict[str, Any] = {"layers": layers, "seeds": seeds, "calibration": calibration, "tokens": tokens}
    return run_steps(sweep_steps(model, recipes, **options, store=store, cluster=cluster))


def sweep_steps(
    model: ModelHandle,
    recipes: Mapping[str, Recipe],
    *,
    layers: str = "*",
    seeds: Sequence[int] = (0,),
    calibration: Text | None = None,
    tokens: int = DEFAULT_TOKENS,
    store: Store | None = None,
    cluster: Cluster | None = None,
) -> Generator[TaskProgress, None, "pd.DataFrame"]:
    """The same as a generator that yields a step for each task and returns the table, for a job that can be stopped."""
    store, names = store or Store(), model.select(layers)
    _check_choice(model, names, recipes, layers, seeds)
    by_seed: dict[int, CalibrationStats | None] = dict.fromkeys(seeds)
    if any(map(can_use_moment, recipes.values())):
        document = calibration or text("calibration")
        for seed in by_seed:
            by_seed[seed] = yield from calibrate_steps(model, document, tokens=tokens, seed=seed, store=store, cluster=cluster)
    tasks = describe_tasks(model, names, recipes, by_seed, store)
    results = yield from map_tasks_steps(quantize_task_layer, tasks, store, cluster)
    return tabulate_sweep(tasks, results)


def _check_choice(
    model: ModelHandle, names: Sequence[str], recipes: Mapping[str, Recipe], layers: str, seeds: Sequence[int]
) -> None:
    """RecipeError unless there is at least one layer, recipe and seed; ClusterError for a model that no worker can open."""
    describe_model(model)
    if not names or not recipes or not seeds:
        raise RecipeError(
            f"{len(names)} layers match {layers!r}, and there are {len(recipes)} recipes and {len(seeds)} seeds; at least one of "
            f"each is needed. Names look like {model.layer_names[0]!r}, * matches anything."
        )
    for seed in seeds:
        check_seed(seed, RecipeError)


def describe_tasks(
    model: ModelHandle,
    names: Sequence[str],
    recipes: Mapping[str, Recipe],
    by_seed: Mapping[int, CalibrationStats | None],
    store: Store,
) -> list[Task]:
    """A task for each recipe, seed and layer, in this order; statistics are put into the store."""
    described, tasks = describe_model(model), list[Task]()
    keys = {seed: {} if stats is None else share_stats(stats, names, store) for seed, stats in by_seed.items()}
    for label, recipe in recipes.items():
        for seed in by_seed:
            seeded = dataclasses.replace(recipe, seed=seed)  # still the preset of its name
            for name in names:
                stats = keys[seed].get(name)  # says the output error of recipes that can do without, too
                arguments = {"model": described, "layer": name, "recipe": seeded.to_dict(), "stats": stats}
                key = compute_key("sweep", VERSION, described["fingerprint"], name, arguments["recipe"], stats or "")
                labels = {"label": label, "seed": seed}
                tasks.append(Task(key, {**arguments, **labels}, "sweep", f"{name} by {recipe.name}, seed {seed}"))
    return tasks


def quantize_task_layer(arguments: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """One layer by one recipe, in any process: its figures, or the problem where the recipe does not fit it."""
    model, layer = open_described_model(arguments["model"]), arguments["layer"]
    stats = read_shared_stats(layer, arguments["stats"], store)
    try:
        result = quantize(model, layer, Recipe.from_dict(arguments["recipe"]), stats)
    except (RecipeError, ShapeError) as error:
        return {"problem": str(error)}
    return {
        "parameters": result.ledger.weights,
        "bits": result.ledger.total_bits,
        "bits_per_weight": result.bits_per_weight,
        "nominal_bits": result.nominal_bits,
        "relative_error": result.relative_error,
        "output_error": result.output_error,
        "seconds": result.seconds,
        "problem": "",
    }


def tabulate_sweep(tasks: Sequence[Task], results: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """One row a task, with its figures; NaN where there are none."""
    import pandas as pd

    rows = [
        {
            "recipe": task.arguments["label"],
            "seed": task.arguments["seed"],
            "name": task.arguments["layer"],
            **{figure: result.get(figure) for figure in SWEEP_FIGURES},
            "problem": result["problem"],
        }
        for task, result in zip(tasks, results, strict=True)
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(SWEEP_FIGURES, float))


def summarise_sweep(table: "pd.DataFrame") -> "pd.DataFrame":
    """One row a recipe: layers, stored bits per weight of all of them, mean errors, the layer that loses most, seconds."""
    import pandas as pd

    rows = []
    for recipe, part in table.groupby("recipe", sort=False):
        fits = part[part["problem"] == ""]
        error = fits["output_error"] if fits["output_error"].notna().all() else fits["relative_error"]
        rows.append(
            {
                "recipe": recipe,
                "layers": fits["name"].nunique(),
                "bits_per_weight": fits["bits"].sum() / fits["parameters"].sum() if len(fits) else float("nan"),
                "relative_error": fits["relative_error"].mean(),
                "output_error": fits["output_error"].mean(),
                "worst_layer": fits["name"][error.idxmax()] if len(fits) else "",
                "seconds": fits["seconds"].sum(),
                "problems": len(part) - len(fits),
            }
        )
    return pd.DataFrame(rows)
