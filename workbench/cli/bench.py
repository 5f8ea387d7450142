"""The command that measures how fast packed layers run on this machine."""

import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import Json
from workbench.cli.bench_contention import measure_with_builder
from workbench.cli.bench_model import measure_model
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import Column, format_groups
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.bench import Result

DEFAULT_TURNS, THOROUGH_TURNS = 9, 41
BATCHES, THOROUGH_BATCHES = (1,), (1, 8, 32)


def bench(
    shape: Annotated[str, typer.Option("--shape", metavar="ROWSxCOLS", help="Size of the matrix.")] = "4096x4096",
    formats: Annotated[str, typer.Option("--formats", metavar="NAME,...", help="Formats to measure. By default, all.")] = "",
    batch: Annotated[str, typer.Option("--batch", metavar="N,...", help="Batch sizes: inputs multiplied at a time.")] = "",
    threads: Annotated[str, typer.Option("--threads", metavar="N,...", help="Thread counts. By default, 1 and all cores.")] = "",
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Device to measure on.")] = "cpu",
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Batch sizes 1, 8 and 32, and more rounds; takes minutes.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL|DIR", help="Measure a whole model instead: prompt, new tokens, memory.")
    ] = "",
    gguf: Annotated[str, typer.Option("--gguf", metavar="FILE,...", help="With --model: GGUF files for llama.cpp to run.")] = "",
    contention: Annotated[
        bool, typer.Option("--contention", help="Measure instead how much slower work is while the explorer builds its stops.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the speed of packed layers, or of a whole model, on this machine.

    Packed layers are compared with torch in float32 and with the fastest of torch's types (bfloat16, dynamic int8, int4): speed,
    error, bytes read, and the limits of the machine. A model is compared with its
    original in transformers, and with GGUF files in llama.cpp where that is installed.

    With --contention, products and generated text are timed alone and beside the builder of the explorer's stops, in turns.
    """
    if gguf and not model:
        raise WorkbenchError(f"--gguf {gguf!r} is measured beside a model; give one with --model.")
    if model:
        return measure_model(model, gguf, parse_numbers(threads, "--threads"), as_json=as_json)
    if contention:
        return measure_with_builder(thorough=thorough, as_json=as_json)
    from workbench.bench import measure_kernels
    from workbench.bench.contestants import TORCH, list_contestants

    begin = time.perf_counter()
    size = parse_numbers(shape.lower().replace("x", ","), "--shape")
    if len(size) != 2:
        raise WorkbenchError(f"--shape {shape!r}; give rows and columns, for example 4096x4096.")
    rows, cols = size
    beside = [name for name in list_contestants(device, (rows, cols)) if name in TORCH]  # each could be the fastest here
    named = [name.strip() for name in formats.split(",")] if formats else None
    with show_progress("measuring", quiet=as_json) as report:
        result = measure_kernels(
            (rows, cols),
            None if named is None else [*beside, *(name for name in named if name not in beside)],
            batches=parse_numbers(batch, "--batch") or (THOROUGH_BATCHES if thorough else BATCHES),
            threads=parse_numbers(threads, "--threads") or None,
            turns=THOROUGH_TURNS if thorough else DEFAULT_TURNS,
            device=device,
            on_progress=report,
        )
    facts: dict[str, Any] = {**result.to_dict(), "seconds": time.perf_counter() - begin}
    emit_page(facts, as_json=as_json, text=_format_result(result))
    return None


def parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    try:
        return tuple(int(piece) for piece in text.split(",") if piece.strip())
    except ValueError:
        raise WorkbenchError(f"{option} {text!r}; give whole numbers separated by commas, for example 1,8.") from None


def _format_result(result: "Result") -> str:
    """The machine in three lines, then a table."""
    machine = result.machine
    baseline = result.baseline.removeprefix("torch-")
    limits = "; ".join(
        f"{one.threads} thread{'' if one.threads == 1 else 's'}: reads {one.read:.1f} GB/s, multiplies {one.multiply:.0f} GFLOP/s"
        for one in machine.limits
    )
    titles = ("µs", "spread", f"× {baseline}", "× best torch", "bits held", "GB/s", "error")
    columns = [Column("format"), *(Column(title, right=True) for title in titles)]
    groups: dict[str, list[list[str]]] = {}
    for row in result.table().to_dict("records"):
        groups.setdefault(_describe_setting(row), []).append(_format_row(row))
    return (
        f"{machine.processor}, table lookups by {machine.instruction}, torch {machine.torch}, {machine.compiler}\n"
        f"{limits}; a compiled call takes {machine.call:.1f} µs\n"
        f"{result.rows} × {result.cols}, medians and quartiles of {result.turns} rounds\n\n"
        f"{format_groups(columns, groups)}"
    )


def _describe_setting(row: dict[Hashable, Any]) -> str:
    """What the contestants of a setting have in common, and which of torch's is the fastest there."""
    threads = f"{row['threads']} thread{'' if row['threads'] == 1 else 's'}"
    return f"{row['state']}, {threads}, batch {row['batch']}; best of torch: {row['best_torch']}"


def _format_row(row: dict[Hashable, Any]) -> list[str]:
    """One contestant: what it is, its time with quartiles, and what it reads."""
    return [
        str(row["format"]),
        f"{row['microseconds']:.0f}",
        f"{row['low']:.0f}–{row['high']:.0f}",
        f"{row['ratio']:.1f}",
        f"{row['best_ratio']:.1f}",
        f"{row['bits_per_weight']:.2f}",
        f"{row['read']:.1f}",
        f"{row['error']:.1e}",
    ]
