"""A coding_trace tells what really happened: its frames are those of the matrix on its way, and it stays small and cheap."""

import time

import pytest
import torch

from tests.battery.cases import correlated, gaussian, snapshots
from workbench import presets
from workbench.kernels import formats
from workbench.quantizers import coding_trace as films
from workbench.quantizers.coding_trace import TRACE_CELLS, TRACE_FRAMES, TRACE_ROWS, CodingTrace, TraceRecorder
from workbench.quantizers.pipeline import quantize_layer

PRESETS = ["gptq:bits=2", "rtn:bits=2", "arb-llm", "billm", "btc:bits=0.8", "btc-planes:bits=1.5", "gptvq", "qtip:bits=1"]


def filmed(spelled: str, rows: int = 40, cols: int = 256) -> tuple[CodingTrace, torch.Tensor, torch.Tensor, list[str]]:
    """The trace, the original and the final matrix in the basis that is coded, and the events told."""
    w = gaussian(rows, cols)
    seen, _ = snapshots(presets.parse(spelled), w, correlated(cols))
    last = next(snapshot for snapshot in seen if snapshot.event == "refit")
    assert last.weight is not None
    return last.detail["coding_trace"], w, last.weight, [snapshot.event for snapshot in seen]


@pytest.mark.parametrize("spelled", PRESETS)
def test_every_quantizer_is_filmed_in_few_kilobytes(spelled: str) -> None:
    coding_trace, *_ = filmed(spelled, cols=512)
    assert coding_trace.ends[-1] == coding_trace.cols == 512
    assert list(coding_trace.ends) == sorted(set(coding_trace.ends))
    assert 1 <= len(coding_trace.ends) <= TRACE_FRAMES
    assert coding_trace.bytes < 64_000
    assert list(coding_trace.pictures) == ["block", "refit"]
    assert (
        coding_trace.pictures["block"].residual.shape
        == coding_trace.groups.shape
        == (len(coding_trace.rows), len(coding_trace.coded))
    )
    assert coding_trace.error == tuple(sorted(coding_trace.error)), "coded columns only add to the error"
    assert coding_trace.moved[-1].count_nonzero() == 0, "at the end no column is left to move"


def test_the_size_does_not_grow_with_the_matrix() -> None:
    recorder = TraceRecorder(torch.zeros(5000, 4100))
    assert (len(recorder.rows), -(-4100 // recorder.width)) == (TRACE_ROWS, -(-4100 // -(-4100 // TRACE_CELLS)))
    assert recorder.rows.tolist()[0] == 0
    assert recorder.rows.tolist()[-1] == 4999


def test_the_pictures_are_the_watched_rows_of_the_matrix() -> None:
    coding_trace, w, final, _ = filmed("gptq:bits=2")
    rows = torch.tensor(coding_trace.rows)
    cells = (final - w)[rows].abs().split(coding_trace.width, 1)
    wanted = torch.stack([cell.amax(1) for cell in cells], 1)
    torch.testing.assert_close(coding_trace.pictures["refit"].residual.float(), wanted, rtol=2e-3, atol=1e-4)
    flips = [((final * w)[rows] < 0)[:, i : i + coding_trace.width].sum(1) for i in range(0, 256, coding_trace.width)]
    assert torch.equal(coding_trace.pictures["refit"].flipped.long(), torch.stack(flips, 1))
    lost = (final - w)[rows].square().sum() / w[rows].square().sum()
    assert coding_trace.error[-1] == pytest.approx(float(lost), rel=1e-4), "a uniform grid is not refitted"


def test_columns_not_yet_coded_move_where_errors_move_on_and_only_there() -> None:
    assert filmed("gptq:bits=2")[0].moved[:-1].float().sum() > 0
    assert filmed("rtn:bits=2")[0].moved.count_nonzero() == 0


def test_frames_are_the_matrix_on_its_way() -> None:
    """What the trace says of a frame is what the assignment had in its hands then."""
    w, h, seen = gaussian(40, 256), correlated(256), []
    steps = quantize_layer(w, h, presets.parse("gptq:bits=2"))
    original = TraceRecorder._frame

    def watch(recorder: TraceRecorder, current: torch.Tensor) -> None:
        seen.append((recorder.count, current.clone()))
        original(recorder, current)

    TraceRecorder._frame = watch
    try:
        told = list(steps)
    finally:
        TraceRecorder._frame = original
    coding_trace = next(snapshot.detail["coding_trace"] for snapshot in told if "coding_trace" in snapshot.detail)
    assert [count for count, _ in seen] == list(coding_trace.ends)
    rows, energy = torch.tensor(coding_trace.rows), w[torch.tensor(coding_trace.rows)].square()
    for frame, (count, current) in enumerate(seen):
        error = (current - w)[rows].square()
        assert coding_trace.error[frame] == pytest.approx(float(error[:, :count].sum() / energy.sum()), rel=1e-3)
        later = error[:, count:].sum(0)
        wanted = torch.cat([torch.zeros(count), later]).split(coding_trace.width)
        share = torch.stack([cell.sum() for cell in wanted]) / torch.stack(
            [cell.sum() for cell in energy.sum(0).split(coding_trace.width)]
        )
        torch.testing.assert_close(coding_trace.moved[frame].float(), share, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("spelled", "count"), [("btc:bits=0.8", 1), ("btc-planes:bits=1.5", 2), ("gptvq", 1), ("gptq", 0)])
def test_rounds_of_codebook_training_are_told(spelled: str, count: int) -> None:
    coding_trace, *_ = filmed(spelled)
    assert len(coding_trace.rounds) == count
    for losses in coding_trace.rounds:
        assert losses == pytest.approx(sorted(losses, reverse=True), rel=1e-6)
        assert losses


def test_groups_are_the_coders_of_a_split() -> None:
    coding_trace, *_ = filmed("billm")
    assert set(coding_trace.groups.unique().tolist()) > {0}
    assert filmed("gptq")[0].groups.count_nonzero() == 0


def test_filming_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of interleaved runs with and without a recorder: one to three hundredths on a quiet machine."""
    w, h, recipe = gaussian(256, 512), correlated(512), presets.parse("gptq:bits=4")
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(7):
        for with_camera in (True, False) if turn % 2 else (False, True):
            with monkeypatch.context() as patched:
                if not with_camera:
                    patched.setattr(films.TraceRecorder, "see", lambda *_: None)
                begin = time.process_time()
                for _ in quantize_layer(w, h, recipe) if with_camera else unfilmed(w, h, recipe, patched):
                    pass
                times[with_camera].append(time.process_time() - begin)
    with_camera, without = (sorted(times[key])[3] for key in (True, False))
    assert with_camera < 1.25 * without, f"{with_camera / without:.3f} times as long"


def unfilmed(w: torch.Tensor, h: torch.Tensor, recipe: object, patched: pytest.MonkeyPatch):
    """The same run with a recorder that takes no frame."""
    patched.setattr(films.TraceRecorder, "trace", lambda *_: CodingTrace((), 0, 1, w, (), w, (), w, {}))
    patched.setattr(films.TraceRecorder, "picture", lambda *_: None)
    yield from quantize_layer(w, h, recipe)


def test_the_stored_result_is_untouched_by_filming() -> None:
    w, h = gaussian(24, 160), correlated(160)
    seen, result = snapshots(presets.parse("gptq:bits=3"), w, h)
    blocks = [snapshot.weight for snapshot in seen if snapshot.event == "block"]
    assert blocks[-1] is not None
    torch.testing.assert_close(formats.decode(result.packed), blocks[-1], rtol=0, atol=0)
