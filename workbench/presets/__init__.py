"""Named recipes from papers: `recipe("btc", bits=0.8)`, their settings, sources and nominal bits.

Importing the package registers all of them under the kind "preset".
"""

from typing import TYPE_CHECKING, Any, cast

from workbench import registry
from workbench.errors import RecipeError
from workbench.presets import binary, btc, factors, grids, none, parity, pb_llm, salient_groups, ternary, trellis, vectors
from workbench.presets.preset import Preset
from workbench.presets.recipe_syntax import parse, spell
from workbench.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Preset",
    "binary",
    "btc",
    "factors",
    "find",
    "grids",
    "list_presets",
    "none",
    "parity",
    "parse",
    "pb_llm",
    "recipe",
    "salient_groups",
    "spell",
    "tabulate_presets",
    "ternary",
    "trellis",
    "vectors",
]


def list_presets() -> list[str]:
    """The names of all presets, sorted."""
    return registry.list_names("preset")


def find(name: str) -> type[Preset]:
    """The preset class: its fields are the settings of a form, each with help and range (see `recipe.setting`)."""
    return cast(type[Preset], registry.find("preset", name))


def recipe(name: str, **settings: Any) -> Recipe:
    """The recipe of a preset, `recipe("btc", bits=0.8)` or as commands spell it, `recipe("btc:bits=0.8")`.

    RecipeError names the nearest preset, setting or value for one that does not exist.
    """
    if ":" in name:
        if settings:
            raise RecipeError(f"{name!r} already contains settings; give {', '.join(settings)} there, or all as keywords.")
        return parse(name)
    return cast(Preset, registry.make("preset", name, **settings)).recipe()


def tabulate_presets() -> "pd.DataFrame":
    """One row a preset with its default settings: name, nominal_bits, needs_calibration, source, note."""
    import pandas as pd

    defaults = [find(name)() for name in list_presets()]
    rows = [(p.name, p.nominal_bits, p.needs_calibration, p.source, p.note) for p in defaults]
    return pd.DataFrame(rows, columns=["name", "nominal_bits", "needs_calibration", "source", "note"])
