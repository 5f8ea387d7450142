"""The command that takes over the codes of a model that another program quantized."""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.arguments import Json, Model
from workbench.cli.output import emit_page, show_progress


def import_model(
    model: Model,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the result; an existing result is replaced.")],
    layers: Annotated[
        str, typer.Option("--layers", metavar="PATTERN,...", help="Layers to take over, for example '*.mlp.*'.")
    ] = "*",
    as_json: Json = False,
) -> None:
    """Save a model that another program quantized as a packed model, with its own codes.

    The packed layers decode to exactly the weights of the source. Layers in a format without a counterpart are kept as plain
    numbers, and listed with the reason.
    """
    from workbench.artifact import is_artifact, save
    from workbench.exchange.takeover import take_over
    from workbench.models import open_model
    from workbench.outputs import check_folder

    out = out.expanduser()
    check_folder(out, is_artifact)  # now rather than after the work
    begin, handle = time.perf_counter(), open_model(model)
    with show_progress("taking over", quiet=as_json) as report:
        result = take_over(handle, layers, on_progress=report)
    save(result, out, handle)
    left: dict[str, str] = result.calibration["left"]
    formats = Counter(handle.layer(name).dtype for name in result.layers)
    facts: dict[str, Any] = {
        "model": model,
        "out": str(out),
        "bits_per_weight": result.bits_per_weight,
        "nominal_bits": result.nominal_bits,
        "coverage": result.coverage,
        "layers": {name: layer.packed.format for name, layer in result.layers.items()},
        "left": left,
        "bytes": sum(path.stat().st_size for path in out.glob("*.safetensors")),
        "seconds": time.perf_counter() - begin,
    }
    origins = ", ".join(f"{count} from {name}" for name, count in formats.items())
    lines = [f"{len(result.layers)} layers taken over bit for bit: {origins}", result.describe_bits()]
    lines += [f"{name} is kept as plain numbers: {reason}" for name, reason in left.items()]
    lines.append(f"{facts['bytes']:,} bytes in {out}, {facts['seconds']:.1f} seconds")
    emit_page(facts, as_json=as_json, text="\n".join(lines))
