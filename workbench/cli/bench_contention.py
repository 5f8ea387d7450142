"""`workbench bench --contention`: how much slower a command becomes while the explorer builds its stops in the background."""

import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import Column, format_rows

if TYPE_CHECKING:
    from workbench.bench.contention import ContentionResult
    from workbench.models import ModelHandle

SHAPE = (2048, 2048)
WORKER = "workbench.analysis.decisions.squeeze_worker"
PROMPT, TOKENS = "Once upon a time", 16
FEW_TURNS, MANY_TURNS = 15, 45
PACKED = "w4-g128"  # the format of the product of packed weights
COLUMNS = (
    Column("task"),
    Column("alone, ms", right=True),
    Column("beside, ms", right=True),
    Column("ratio", right=True),
    Column("quartiles", right=True),
)


def measure_with_builder(*, thorough: bool, as_json: bool) -> None:
    """Time products and generated text alone and beside the builder of the squeeze slider, in turns, and print it."""
    from workbench.analysis.decisions.squeeze import CALIBRATION_TOKENS, Squeeze
    from workbench.analysis.decisions.stops import STOPS
    from workbench.bench.contention import measure_contention
    from workbench.models import open_model
    from workbench.store import Store

    model = open_model("builtin")
    with tempfile.TemporaryDirectory() as folder, show_progress("measuring", quiet=as_json) as report:
        # of one token less than the stops that come with the package, which would be found and not built
        stops = [stop for stop in STOPS if stop.preset.startswith("qtip")]
        squeeze = Squeeze(model, Store(folder), stops=stops, tokens=CALIBRATION_TOKENS - 1)
        turns = MANY_TURNS if thorough else FEW_TURNS
        result = measure_contention(_list_tasks(model), WORKER, squeeze.described(), turns=turns, on_progress=report)
    emit_page(result.to_dict(), as_json=as_json, text=_format_result(result))


def _list_tasks(model: "ModelHandle") -> dict[str, Callable[[], object]]:
    """What a command does with all threads: products of torch, of packed weights, both in turns, and text."""
    import torch

    from workbench.bench.contestants import make

    x = torch.randn(1, SHAPE[1])
    dense, packed = make("torch-fp32", *SHAPE, "cpu"), make(PACKED, *SHAPE, "cpu")
    lm = model.language_model()

    def repeat(*products: Any) -> Callable[[], object]:
        def run() -> None:
            with torch.inference_mode():
                for _ in range(100):
                    for product in products:
                        product.run(x)

        return run

    return {
        "100 products, torch": repeat(dense),
        "100 products, packed": repeat(packed),
        "100 of both in turns": repeat(dense, packed),
        f"{TOKENS} tokens of text": lambda: lm.generate(PROMPT, TOKENS),
    }


def _format_result(result: "ContentionResult") -> str:
    """The tasks, and what else the machine did."""
    rows = [
        [row.task, f"{row.alone:.1f}", f"{row.beside:.1f}", f"{row.ratio:.2f}", f"{row.low:.2f}–{row.high:.2f}"]
        for row in result.rows
    ]
    before, after = result.load
    load = "" if before is None or after is None else f"; load {before:.1f} before, {after:.1f} after, on {result.cores} cores"
    return (
        f"{format_rows(COLUMNS, rows)}\n\nbeside the builder of the explorer's stops, which had {result.job_share:.0%} of a core "
        f"meanwhile; medians of {result.rows[0].turns} pairs of turns{load}"
    )
