"""Recipes as text, as used on the command line and in URLs: `btc:bits=0.8,scope=model`."""

from typing import Any, cast

from workbench import registry
from workbench.errors import RecipeError
from workbench.json_value import shorten_value
from workbench.presets.preset import Preset, list_settings
from workbench.recipe import Recipe

TRUE, FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


def parse(text: str) -> Recipe:
    """The recipe spelled `name` or `name:key=value,key=value`; RecipeError says what cannot be read."""
    name, _, rest = text.partition(":")
    name = name.strip()
    defaults = {field.name: field.default for field in list_settings(registry.find("preset", name))}
    settings: dict[str, Any] = {}
    for pair in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals:
            example = ",".join(f"{key}={default}" for key, default in list(defaults.items())[:2])
            raise RecipeError(
                f"recipe {shorten_value(text)}: {shorten_value(pair)} is not key=value; write for example {name}:{example}."
            )
        if key in settings:
            raise RecipeError(f"recipe {shorten_value(text)}: {key[:40]} is given twice; give it once.")
        settings[key] = read(name, key, value, type(defaults.get(key, "")))
    return cast(Preset, registry.make("preset", name, **settings)).recipe()


def spell(recipe: Recipe) -> str:
    """A preset's recipe as `parse` reads it; `custom` for one that is composed freely and has no such word."""
    settings = ",".join(f"{key}={value}" for key, value in recipe.settings)
    return f"{recipe.name}:{settings}" if settings else recipe.name


def read(name: str, key: str, value: str, kind: type) -> Any:
    """A setting's value from its text."""
    if kind is bool:
        if value.lower() in TRUE + FALSE:
            return value.lower() in TRUE
        raise RecipeError(f"preset {name!r}: {key} is {shorten_value(value)}; use true or false.")
    try:
        return kind(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise RecipeError(f"preset {name!r}: {key} is {shorten_value(value)}; {what} is needed.") from None
