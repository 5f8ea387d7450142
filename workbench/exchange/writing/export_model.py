"""`wb.export`: a model in the format of another tool, with what became of each tensor."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.artifact import PackedModel
from workbench.errors import ArtifactError
from workbench.exchange.writing import gguf_blocks, gguf_file, model_folder, packed_folder
from workbench.exchange.writing.model_folder import Report
from workbench.exchange.writing.outcome import Export, Outcome
from workbench.exchange.writing.preflight import check_disk, check_exact
from workbench.exchange.writing.source import Source, open_source
from workbench.models import ModelHandle
from workbench.outputs import check_file, check_folder

Target = Literal["hf", "gguf", "compressed-tensors", "gptq"]


def export(
    source: str | Path | ModelHandle | PackedModel,
    path: str | Path,
    *,
    to: Target,
    strict: bool = False,
    types: str | None = None,
    on_progress: Report = lambda *_: None,
) -> Export:
    """Write a model in the format of another tool.

    Args:
        source: A folder that `wb.save` wrote, a model from `wb.load` or `wb.open_model`, "builtin", a folder or a hub id.
        path: The folder to write, for "gguf" the file; an earlier export there is replaced.
        to: "hf" for plain bfloat16 weights that transformers opens without this package, "gguf" for llama.cpp,
            "compressed-tensors" for vLLM and transformers, "gptq" for engines that read GPTQ.
        strict: Whether to write nothing unless every quantized layer is held exactly.
        types: GGUF's block types that may be used, separated by commas, for readers that do not know all; None for any.
        on_progress: Called with bytes written and bytes in all.

    Returns:
        What was written, with the outcome of each tensor.

    Raises:
        ArtifactError: Where `strict` is asked for and a layer cannot be held, for an unknown format, and where the source cannot
            be written in it.
        OutputError: Where the path holds other things, cannot be written, or the disk has no room.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = wb.export("builtin", f"{folder}/plain", to="hf")
        >>> written.format, sorted(written.losses) != []
        ('hf', True)
    """
    begin = time.perf_counter()
    if to not in get_args(Target):
        raise ArtifactError(f"unknown format {to!r} to export to; use {', '.join(get_args(Target))}.")
    target = check_file(path) if to == "gguf" else check_folder(path, model_folder.is_export)
    plan = plan_export(open_source(source), to, types)
    if strict:
        check_exact(plan.source, plan.outcomes)
    check_disk(target, plan.nbytes)
    file, notes = plan.write(target, on_progress)
    return Export(target, to, plan.outcomes, tuple(notes), file.stat().st_size, time.perf_counter() - begin)


@dataclass(frozen=True)
class Plan:
    """What becomes of each tensor, the bytes of all, and what writes them: it gives the weight file and notes."""

    source: Source
    outcomes: tuple[Outcome, ...]
    nbytes: int
    write: Callable[[Path, Report], tuple[Path, Sequence[str]]]


def plan_export(source: Source, to: Target, types: str | None = None) -> Plan:
    """How a source is written in a format."""
    if to == "gguf":
        chosen = read_types(types)
        gguf_file.check_library()
        blocks = gguf_file.plan_file(source, chosen)
        outcomes = tuple(planned.outcome for planned in blocks)
        size = sum(planned.nbytes for planned in blocks)
        return Plan(source, outcomes, size, lambda path, report: (path, gguf_file.write_gguf(source, path, blocks, report)))
    changes: dict[str, Any] = {}
    if to == "hf":
        plan = model_folder.plan_folder(source)
    else:
        plan, facts = packed_folder.plan_packed(source, to)
        changes = {"quantization_config": facts, "dtype": "float16"}
    outcomes = tuple(planned.outcome for planned in plan)
    size = sum(planned.nbytes for planned in plan)
    return Plan(
        source,
        outcomes,
        size,
        lambda path, report: (model_folder.write_model_folder(source, path, plan, changes, report), ()),
    )


def read_types(types: str | None) -> tuple[str, ...]:
    """The block types of GGUF that are named, separated by commas; all of them for None."""
    chosen = tuple(gguf_blocks.NAMES if types is None else (name.strip().upper() for name in types.split(",")))
    if unknown := [name for name in chosen if name not in gguf_blocks.NAMES]:
        raise ArtifactError(f"unknown GGUF type {unknown[0]!r}; use {', '.join(gguf_blocks.NAMES)}.")
    return chosen
