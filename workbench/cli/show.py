"""Commands that show what there is: the layers of a model, and every recipe."""

from workbench.cli.arguments import Json, Model
from workbench.cli.output import emit


def layers(model: Model, as_json: Json = False) -> None:
    """List the linear layers of a model: name, block, matrix, rows, cols, dtype, parameters."""
    from workbench.models import open_model

    handle = open_model(model)
    table = handle.layers()
    lines = [table.to_string(index=False)]
    if routers := handle.router_names:
        pattern = f"*.{routers[0].rpartition('.')[2]}"
        lines.append(f"{len(routers)} routers like {routers[0]} are quantized only where they are named: --layers '*,{pattern}'")
    for name in handle.optional_names[len(routers) :]:
        sizes = f"{handle.layer(name).rows} × {handle.layer(name).cols}"
        tied = f"; {handle.tied_head} is tied to it and follows" if name == handle.embedding_name and handle.tied_head else ""
        lines.append(f"{name} ({sizes}) is quantized only where it is named: --layers '*,{name}'{tied}")
    facts = {"model": model, "layers": table.to_dict("records"), "optional": handle.optional_names}
    emit(facts, as_json=as_json, text="\n".join(lines))


def recipes(as_json: Json = False) -> None:
    """List every preset: nominal bits, whether it needs calibration, where it comes from."""
    from workbench import presets

    table = presets.table()
    emit({"recipes": table.to_dict("records")}, as_json=as_json, text=table.to_string(index=False))
