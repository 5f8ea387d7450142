"""Commands that list the layers of a model and the presets."""

from dataclasses import Field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import AdapterFolder, Json, Model, complete_recipe
from workbench.cli.output import emit_page
from workbench.cli.tables import Column, format_groups, format_rows, group_by_block

if TYPE_CHECKING:
    from workbench.presets import Preset

PresetName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="A preset to describe.", autocompletion=complete_recipe, show_default=False)
]
LAYER_COLUMNS = (
    Column("matrix", folds=True),
    Column("rows", right=True),
    Column("cols", right=True),
    Column("dtype"),
    Column("bits", right=True),
    Column("weights", right=True),
)
PRESET_COLUMNS = (Column("name"), Column("bits", right=True), Column("calibration"), Column("what it does", folds=True))
SETTING_COLUMNS = (Column("setting"), Column("default"), Column("allowed", folds=True), Column("what it is", folds=True))
PRESET_HINT = (
    "Bits are nominal, for the default settings. `workbench recipes NAME` shows a preset's source, note and settings, which "
    "commands take as NAME:setting=value,setting=value."
)


def layers(model: Model, adapter: AdapterFolder = None, as_json: Json = False) -> None:
    """List the linear layers of a model.

    Shows each block with its matrices: rows (outputs), cols (inputs), stored type, stored bits per weight, number of weights.
    """
    from workbench.models.listing import list_layers
    from workbench.store import Store

    facts = list_layers(model, Store(), adapter)
    routers, others = facts["routers"], facts["optional"][len(facts["routers"]) :]
    lines = [_format_layers(facts["layers"]), "", _describe_names(facts)]
    if routers:
        pattern = f"*.{routers[0].rpartition('.')[2]}"
        lines.append(f"{len(routers)} routers like {routers[0]} are quantized only if they are named: --layers '*,{pattern}'")
    for name in others:
        rows, cols = facts["sizes"][name]
        sizes = f"{rows} × {cols}"
        lines.append(f"{name} ({sizes}) is quantized only if it is named: --layers '*,{name}'{_describe_tie(facts, name)}")
    page = {"model": model, "layers": facts["layers"], "optional": facts["optional"]}
    emit_page(page, as_json=as_json, text="\n".join(lines))


def _format_layers(rows: list[dict[str, Any]]) -> str:
    """The layers below their blocks."""
    cells = ((row["name"], [row["name"], *_format_sizes(row)]) for row in rows)
    return format_groups(LAYER_COLUMNS, group_by_block(cells))


def _format_sizes(row: dict[str, Any]) -> list[str]:
    """Shape, type and number of weights of a layer."""
    return [str(row["rows"]), str(row["cols"]), str(row["dtype"]), f"{row['stored_bits']:.2f}", f"{row['parameters']:,}"]


def _describe_names(facts: dict[str, Any]) -> str:
    """How many layers there are, and how they are called."""
    rows = facts["layers"]
    weights = sum(row["parameters"] for row in rows)
    return (
        f"{len(rows):,} layers in {facts['blocks']:,} blocks, {weights:,} weights. "
        f"A layer's name is that of its block and its matrix: {rows[0]['name']}"
    )


def _describe_tie(facts: dict[str, Any], name: str) -> str:
    """What becomes of a head and an embedding that are tied, for the line of either; nothing where they are not."""
    head, embedding = facts["tied_head"], facts["embedding"]
    if head is None or name not in (head, embedding):
        return ""
    if name == embedding:
        return f"; {head} is tied to it and is quantized with it"
    return (
        f"; it is tied to {embedding}: if named alone, it becomes a separate matrix, stored beside the "
        f"{facts['embedding_bytes']:,} bytes of the embedding; if named with it ('*,{name},{embedding}'), "
        f"both share one packed matrix"
    )


def recipes(name: PresetName = None, as_json: Json = False) -> None:
    """List the presets, or describe one of them.

    The list has each preset's nominal bits per weight, whether it needs calibration, and what it does. The description of one
    has its source, its differences from the paper, and its settings.
    """
    from workbench import presets

    if name is not None:
        preset = presets.find(name)
        emit_page({"recipe": collect_preset(preset)}, as_json=as_json, text=_format_preset(preset))
        return
    emit_page({"recipes": presets.collect_preset_facts()}, as_json=as_json, text=f"{_format_presets()}\n\n{PRESET_HINT}")


def _format_presets() -> str:
    """All presets by family, from the plainest to those that share most among weights."""
    from workbench import presets
    from workbench.presets.preset import FAMILIES

    every = [presets.find(name) for name in presets.list_presets()]
    groups = {family: [_format_preset_row(preset) for preset in every if preset.family == family] for family in FAMILIES}
    return format_groups(PRESET_COLUMNS, groups)


def _format_preset_row(preset: "type[Preset]") -> list[str]:
    """A preset in the list."""
    return [preset.name, f"{preset.default_bits:.3g}", "needed" if preset.calibrated else "none", preset.summary]


def collect_preset(preset: "type[Preset]") -> dict[str, Any]:
    """What is to be said of one preset, as JSON values."""
    from workbench.presets.preset import list_settings

    return {
        "name": preset.name,
        "title": preset.title,
        "family": preset.family,
        "summary": preset.summary,
        "nominal_bits": preset.default_bits,
        "needs_calibration": preset.calibrated,
        "source": preset.source,
        "note": preset.note,
        "settings": [
            {"name": field.name, "default": field.default, **{item: field.metadata[item] for item in ("low", "high", "choices")}}
            | {"help": field.metadata["help"]}
            for field in list_settings(preset)
        ],
    }


def _format_preset(preset: "type[Preset]") -> str:
    """The description of a preset."""
    from workbench.presets.preset import list_settings

    calibration = "needs calibration" if preset.calibrated else "needs no calibration"
    lines = [
        f"{preset.name}: {preset.title}, {preset.default_bits:.3g} nominal bits by default, {calibration}",
        preset.summary,
        "",
        f"family  {preset.family}",
        f"source  {preset.source}",
        f"note    {preset.note}",
    ]
    settings = [
        [field.name, _format_value(field.default), _format_range(field), field.metadata["help"]]
        for field in list_settings(preset)
    ]
    return "\n".join([*lines, "", format_rows(SETTING_COLUMNS, settings)])


def _format_value(value: object) -> str:
    """A setting's value as commands take it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _format_range(field: "Field[Any]") -> str:
    """The values that a setting may have."""
    if isinstance(field.default, bool):
        return "true, false"
    if field.metadata["choices"] is not None:
        return ", ".join(map(str, field.metadata["choices"]))
    return f"{field.metadata['low']:,.10g} to {field.metadata['high']:,.10g}"
