"""Commands that list the layers of a model and the presets."""

from typing import TYPE_CHECKING, Any

from workbench.cli.arguments import Json, Model
from workbench.cli.output import emit_page, fold_line, format_table

if TYPE_CHECKING:
    from workbench.models import ModelHandle


def layers(model: Model, as_json: Json = False) -> None:
    """List the linear layers of a model.

    Shows name, block, matrix, rows, cols, dtype and parameters.
    """
    from workbench.models import open_model

    handle = open_model(model)
    table = handle.layers()
    lines = [format_table(table.drop(columns="matrix"))]  # a name ends in its matrix
    if routers := handle.router_names:
        pattern = f"*.{routers[0].rpartition('.')[2]}"
        lines.append(f"{len(routers)} routers like {routers[0]} are quantized only if they are named: --layers '*,{pattern}'")
    for name in handle.optional_names[len(routers) :]:
        sizes = f"{handle.layer(name).rows} × {handle.layer(name).cols}"
        lines.append(f"{name} ({sizes}) is quantized only if it is named: --layers '*,{name}'{_describe_tie(handle, name)}")
    facts = {"model": model, "layers": table.to_dict("records"), "optional": handle.optional_names}
    emit_page(facts, as_json=as_json, text="\n".join(lines))


def _describe_tie(handle: "ModelHandle", name: str) -> str:
    """What becomes of a head and an embedding that are tied, for the line of either; nothing where they are not."""
    if handle.tied_head is None or name not in (handle.tied_head, handle.embedding_name):
        return ""
    if name == handle.embedding_name:
        return f"; {handle.tied_head} is tied to it and is quantized with it"
    stored = handle.tensor(f"{handle.embedding_name}.weight").nbytes
    return (
        f"; it is tied to {handle.embedding_name}: if named alone, it becomes a separate matrix, stored beside the "
        f"{stored:,} bytes of the embedding; if named with it ('*,{name},{handle.embedding_name}'), both share one packed matrix"
    )


def recipes(as_json: Json = False) -> None:
    """List all presets.

    Shows nominal bits, whether the preset needs calibration, and its source.
    """
    from workbench import presets

    table = presets.tabulate_presets()
    emit_page(
        {"recipes": table.to_dict("records")}, as_json=as_json, text="\n\n".join(map(_format_preset, table.to_dict("records")))
    )


def _format_preset(preset: dict[str, Any]) -> str:
    """A preset in a few lines: name and bits, where it comes from, and in what it differs from that."""
    needs = ", needs calibration" if preset["needs_calibration"] else ""
    name = f"{preset['name']}: {preset['nominal_bits']:.4g} nominal bits{needs}"
    return "\n".join([name, *(fold_line(f"    {preset[item]}") for item in ("source", "note"))])
