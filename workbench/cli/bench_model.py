"""The part of `workbench bench` that runs whole models beside each other."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workbench.cli.arguments import open_any
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import Column, format_rows

if TYPE_CHECKING:
    from workbench.analysis.predictions.model_speed import Contestant, ModelSpeeds
    from workbench.artifact import PackedModel
    from workbench.models import ModelHandle

PACKED_NAME, PLAIN_NAME = "packed", "this workbench"


def measure_model(source: str, gguf: str, threads: tuple[int, ...], *, as_json: bool) -> None:
    """Measure how fast a model runs here, by transformers, and where there is a GGUF file by llama.cpp."""
    import torch

    from workbench.analysis.predictions import model_speed
    from workbench.models import ModelHandle

    begin = time.perf_counter()
    files = [Path(name.strip()).expanduser() for name in gguf.split(",") if name.strip()]
    for path in files:  # before a large model is opened
        model_speed.check_gguf(path)
    model = open_any(source)
    counts = threads or tuple(sorted({1, torch.get_num_threads()}))
    language_model = model.language_model()
    modules = _load_originals(model)

    def enter(count: int) -> Sequence["Contestant"]:
        plain = [model_speed.enter_transformers(name, module, language_model) for name, module in modules.items()]
        first = model_speed.enter_model(PLAIN_NAME if isinstance(model, ModelHandle) else PACKED_NAME, language_model)
        return [first, *plain, *(model_speed.enter_gguf(path, count) for path in files)]

    with show_progress("measuring", quiet=as_json) as report:
        speeds = model_speed.measure_models(enter, language_model, threads=counts, on_progress=report)
    facts = {"model": source, **speeds.to_dict(), "seconds": time.perf_counter() - begin}
    emit_page(facts, as_json=as_json, text=_format_speeds(speeds))


def _load_originals(model: "ModelHandle | PackedModel") -> dict[str, Any]:
    """The original as transformers runs it, in bfloat16, and where it is small in float32."""
    import torch
    from torch import nn

    from workbench.models import ModelHandle, open_model

    original = model if isinstance(model, ModelHandle) else open_model(model.source)
    types = {"transformers bf16": torch.bfloat16} | ({} if original.streams else {"transformers fp32": torch.float32})
    return {name: cast(nn.Module, original.to_transformers()).to(kind) for name, kind in types.items()}


def _format_speeds(speeds: "ModelSpeeds") -> str:
    """A table, and the parts of a token."""
    base = {row.threads: row.decode for row in speeds.rows if row.name == "transformers bf16"}
    lines = [
        (
            row.name,
            f"{row.threads}",
            f"{row.prefill:,.0f}",
            f"{1e3 * row.first_token:.1f}",
            f"{row.decode:,.1f}",
            f"{row.low:,.1f}–{row.high:,.1f}",
            f"{row.decode / base[row.threads]:.2f}" if row.threads in base else "",
            f"{row.resident_bytes / 1e6:,.1f}",
        )
        for row in speeds.rows
    ]
    titles = ("threads", "prompt tok/s", "first ms", "new tok/s", "spread", "× bf16", "MB")
    columns = [Column("model", folds=True), *(Column(title, right=True) for title in titles)]
    parts = speeds.parts
    share = ", ".join(
        f"{name} {1e3 * seconds:.2f} ms"
        for name, seconds in (("matrices of blocks", parts.matrices), ("output head", parts.head), ("the rest", parts.remainder))
    )
    refused = "" if speeds.refusal is None else f"\nNew tokens are read by transformers' own forward pass: {speeds.refusal}"
    return (
        f"{format_rows(columns, lines)}\n\n"
        f"prompt of {speeds.prompt_tokens} tokens; first token after 16; medians and range of rounds in turns\n"
        f"a new token of the first model, one thread: {1e3 * parts.token:.2f} ms: {share}{refused}"
    )
