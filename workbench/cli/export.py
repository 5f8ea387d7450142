"""export: a model in the format of another tool."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from workbench.cli.arguments import Json, Source
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import Column, format_rows

if TYPE_CHECKING:
    from workbench.exchange.writing import Export


def export(
    source: Source,
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="Folder to write, or file for gguf and recipes.")],
    to: Annotated[str | None, typer.Option("--to", metavar="FORMAT", help="hf, gguf, compressed-tensors or gptq.")] = None,
    recipe_for: Annotated[
        str | None,
        typer.Option("--recipe-for", metavar="TOOL", help="Instead the plan, for llm-compressor, gptqmodel or llama-quantize."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing unless every quantized layer is held exactly.")] = False,
    types: Annotated[
        str | None,
        typer.Option("--types", metavar="TYPE,...", help="Block types that a GGUF file may use, for example 'Q4_0,Q8_0'."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a saved model, or an original, in the format of another tool.

    Layers that the format holds exactly keep their bits; all others are dequantized to 16 bits, and the reason is printed.
    Rotations and other transforms are multiplied back into the weights.
    """
    from workbench.exchange.writing import export as write
    from workbench.exchange.writing import write_recipe

    if (to is None) == (recipe_for is None):
        problem = "neither --to nor --recipe-for is" if to is None else "both --to and --recipe-for are"
        raise typer.BadParameter(f"{problem} given; use exactly one of them.")
    if recipe_for is not None:
        written = write_recipe(source, out, tool=cast(Any, recipe_for), strict=strict)
        facts = {"path": str(written.path), "tool": recipe_for, "layers": written.layers, "missing": written.missing}
        emit_page(facts, as_json=as_json, text=str(written))
        return
    with show_progress("writing", quiet=as_json) as report:
        result = write(source, out, to=cast(Any, to), strict=strict, types=types, on_progress=report)
    emit_page(result.to_dict(), as_json=as_json, text=format_export(result))


def format_export(result: "Export") -> str:
    """A table by kind, and what is lost."""
    rows = [
        (
            row["kind"],
            row["stored_as"],
            f"{row['tensors']:,}",
            f"{row['weights']:,}",
            f"{row['bits_before']:.3f}",
            f"{row['bits_after']:.3f}",
            row["exact"],
        )
        for row in result.rows()
    ]
    titles = ("tensors", "weights", "bits before", "bits after", "exact")
    columns = [Column("kind", folds=True), Column("stored as"), *(Column(title, right=True) for title in titles)]
    losses = "".join(
        f"\n{len(names)} {'tensors' if len(names) > 1 else 'tensor'} {loss}; first {names[0]}"
        for loss, names in result.losses.items()
    )
    notes = "".join(f"\n{note}" for note in (*result.growths, *result.notes))
    size = f"{result.bytes:,} bytes in {result.path}, {result.bits_per_weight:.2f} bits per weight overall"
    return f"{format_rows(columns, rows)}\n{losses}{notes}\n{size}, {result.seconds:.1f} seconds"
