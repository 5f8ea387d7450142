"""Commands that show what there is: the layers of a model, and every recipe."""

from workbench.cli.arguments import Json, Model
from workbench.cli.output import emit


def layers(model: Model, as_json: Json = False) -> None:
    """List the linear layers of a model: name, block, matrix, rows, cols, dtype, parameters."""
    from workbench.models import open_model

    table = open_model(model).layers()
    emit({"model": model, "layers": table.to_dict("records")}, as_json=as_json, text=table.to_string(index=False))


def recipes(as_json: Json = False) -> None:
    """List every preset: nominal bits, whether it needs calibration, where it comes from."""
    from workbench import presets

    table = presets.table()
    emit({"recipes": table.to_dict("records")}, as_json=as_json, text=table.to_string(index=False))
