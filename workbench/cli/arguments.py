"""From what was typed to values: a model or a saved folder, a recipe with settings, a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import RecipeError

if TYPE_CHECKING:
    from workbench.artifact import PackedModel
    from workbench.models import ModelHandle
    from workbench.models.text import Text
    from workbench.recipe import Recipe

Model = Annotated[str, typer.Argument(metavar="MODEL", help="builtin, a folder with safetensors, or a hub id.")]
Source = Annotated[str, typer.Argument(metavar="MODEL|DIR", help="A model, or a folder that `workbench quantize` wrote.")]
RecipeText = Annotated[str, typer.Option("--recipe", metavar="NAME[:key=value,...]", help="A preset, see `workbench recipes`.")]
TextFile = Annotated[str, typer.Option("--text", metavar="FILE", help="UTF-8 text, documents separated by <|endoftext|>.")]
Tokens = Annotated[int | None, typer.Option("--tokens", min=1, help="Read at most so many tokens.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Draws the order of documents, resamples and samples.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def is_artifact(source: str) -> bool:
    """Whether `source` is a folder that `workbench quantize` wrote."""
    return (Path(source).expanduser() / "recipe.json").is_file()


def open_any(source: str) -> "ModelHandle | PackedModel":
    """A saved quantized model where the folder holds a recipe, else a model."""
    if is_artifact(source):
        from workbench.artifact import load

        return load(source)
    from workbench.models import open_model

    return open_model(source)


def read_text(source: str) -> "Text":
    """A built-in text or a file."""
    from workbench.models.text import text

    return text(source)


def read_recipe(written: str) -> "Recipe":
    """`btc:bits=0.8,codebook=1024` as a recipe; RecipeError says how to write it."""
    from workbench.presets import recipe

    name, _, settings = written.partition(":")
    return recipe(name, **dict(read_setting(written, item) for item in settings.split(",") if settings))


def read_setting(written: str, item: str) -> tuple[str, Any]:
    """One `key=value`; numbers, true and false are read as such."""
    import yaml

    key, equals, value = item.partition("=")
    if not key.strip() or not equals or not value.strip():
        raise RecipeError(f"recipe {written!r}: {item!r} is no setting; write NAME:key=value,key=value, for example btc:bits=0.8.")
    return key.strip(), yaml.safe_load(value)
