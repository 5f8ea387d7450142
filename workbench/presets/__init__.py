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
    "collect_preset_facts",
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
    """Make the recipe of a preset, a method by its name; `wb.recipes()` lists them with their papers.

    Args:
        name: The preset's name, or name and settings as commands spell them: "btc:bits=0.8".
        settings: Its settings as keywords; the preset's defaults hold for those that are absent.

    Returns:
        The recipe, a frozen value; `code()` prints it as Python.

    Raises:
        RecipeError: For an unknown preset, setting or value, naming the nearest one.

    Example:
        >>> import workbench as wb
        >>> wb.recipe("btc", bits=0.8) == wb.recipe("btc:bits=0.8")
        True
        >>> wb.recipe("rtn", bits=2).code()
        "wb.recipe('rtn', bits=2)"
    """
    if ":" in name:
        if settings:
            raise RecipeError(f"{name!r} already contains settings; give {', '.join(settings)} there, or all as keywords.")
        return parse(name)
    return cast(Preset, registry.make("preset", name, **settings)).recipe()


def tabulate_presets() -> "pd.DataFrame":
    """List all presets with their default settings.

    Returns:
        One row a preset: name, nominal_bits, needs_calibration, source (its paper), note (what differs here).

    Example:
        >>> import workbench as wb
        >>> table = wb.recipes().set_index("name")
        >>> bool(table.loc["gptq", "needs_calibration"]), bool(table.loc["rtn", "needs_calibration"])
        (True, False)
    """
    import pandas as pd

    return pd.DataFrame(collect_preset_facts())


def collect_preset_facts() -> list[dict[str, Any]]:
    """The rows of `tabulate_presets`."""
    return [
        {
            "name": preset.name,
            "nominal_bits": preset.default_bits,
            "needs_calibration": preset.calibrated,
            "source": preset.source,
            "note": preset.note,
        }
        for preset in map(find, list_presets())
    ]
