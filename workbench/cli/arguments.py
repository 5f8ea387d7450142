"""The arguments that commands share, and how they become a model, a saved folder or a text."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import show_progress
from workbench.seeds import check_seed

if TYPE_CHECKING:
    from workbench.artifact import PackedModel
    from workbench.cluster import Cluster
    from workbench.models import ModelHandle
    from workbench.models.text import Text


def _validate_seed(seed: int) -> int:
    """The seed that was typed; typer gives what is not annotated here, and would fill other parameters of `check_seed`."""
    return check_seed(seed)


def complete_recipe(incomplete: str) -> list[tuple[str, str]]:
    """The presets whose names begin so, with what they do: for the shell."""
    from workbench import presets

    return [(name, presets.find(name).summary) for name in presets.list_presets() if name.startswith(incomplete)]


Model = Annotated[str, typer.Argument(metavar="MODEL", help="builtin, a folder with safetensors, a GGUF file, or a hub id.")]
AdapterFolder = Annotated[
    Path | None, typer.Option("--adapter", metavar="DIR", help="LoRA adapter to merge first; as MODEL, 'MODEL + DIR' does too.")
]
Source = Annotated[str, typer.Argument(metavar="MODEL|DIR", help="A model, or a folder written by `workbench quantize`.")]
RecipeText = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME[:key=value,...]",
        help="Preset with its settings, see `workbench recipes`.",
        autocompletion=complete_recipe,
    ),
]
TextFile = Annotated[str, typer.Option("--text", metavar="FILE", help="UTF-8 text file; <|endoftext|> separates documents.")]
Tokens = Annotated[int | None, typer.Option("--tokens", metavar="N", min=1, help="Maximum number of tokens to evaluate.")]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", callback=_validate_seed, help="Random seed for document order and sampling.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Share the work among this many processes, one thread each."),
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="ADDRESS", help="Share the work among the workers of a Dask cluster, e.g. tcp://host:8786."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print a single JSON document.")]


def has_recipe(source: str) -> bool:
    """Whether `source` is a folder that `workbench quantize` wrote, whole or damaged."""
    return (Path(source).expanduser() / "recipe.json").is_file()


def open_any(source: str) -> "ModelHandle | PackedModel":
    """A saved quantized model where the folder holds a recipe, else a model."""
    if has_recipe(source):
        from workbench.artifact import load

        model = load(source)
        with show_progress("compiling kernels", quiet=False) as report:
            model.warm_up(report)
        return model
    from workbench.models import open_model

    return open_model(source)


def read_text(source: str) -> "Text":
    """A built-in text or a file."""
    from workbench.models.text import text

    return text(source)


def open_workers(address: str | None, workers: int | None) -> "AbstractContextManager[Cluster | None]":
    """The cluster of --cluster or --workers; None, for work in this process, where neither is given."""
    if address is None and workers is None:
        return nullcontext()
    from workbench.cluster import open_cluster

    return open_cluster(address, workers)
