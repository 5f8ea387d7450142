"""Base files of llama-perplexity: the layout read independently, round trips, damaged files, and the figures of the report."""

import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import workbench as wb
from workbench import intervals
from workbench.analysis.predictions.compare import compare
from workbench.analysis.predictions.divergence import Tokens, summarise
from workbench.analysis.predictions.kl_base import KLBase, compare_with_base, encode_rows, read_kl_base, write_kl_base
from workbench.analysis.predictions.kl_report import summarise_kl
from workbench.errors import ArtifactError, ModelError, OutputError
from workbench.models import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text, text

STORIES = Text("stories", text("evaluation").documents[:2])
WINDOW = 64


@pytest.fixture(scope="module")
def lm(builtin: ModelHandle) -> LanguageModel:
    return builtin.language_model()


@pytest.fixture(scope="module")
def base(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> KLBase:
    return write_kl_base(lm, STORIES, tmp_path_factory.mktemp("base") / "base.kld", window=WINDOW, tokens=5 * WINDOW + 9)


def decode_by_struct(path: Path) -> tuple[list[int], list[list[list[float]]]]:
    """Ids, and log-probabilities by window and position, one number after the other."""
    data = path.read_bytes()
    assert data[:8] == b"_logits_"
    window, vocabulary, windows = struct.unpack_from("<iii", data, 8)
    ids = list(struct.unpack_from(f"<{window * windows}i", data, 20))
    at, blocks = 20 + 4 * window * windows, []
    for _ in range(windows):
        rows = []
        for _ in range(window - 1 - window // 2):
            step, lowest = struct.unpack_from("<ff", data, at)
            rows.append([lowest + step * code for code in struct.unpack_from(f"<{vocabulary}H", data, at + 8)])
            at += 2 * (4 + vocabulary + vocabulary % 2)
        blocks.append(rows)
    assert at == len(data)
    return ids, blocks


def test_the_layout_is_what_an_independent_reader_expects(lm: LanguageModel, base: KLBase) -> None:
    ids, blocks = decode_by_struct(base.path)
    whole = lm.tokenizer("\n\n".join(STORIES.documents))["input_ids"]
    assert ids == whole[: 5 * WINDOW]  # the first token of a window is the text's, and the first one of all only when it is read
    for number, rows in enumerate(blocks):
        window = torch.tensor([ids[number * WINDOW : (number + 1) * WINDOW]])
        window[0, 0] = lm.tokenizer.bos_token_id
        log_p = lm.logits(window)[0].log_softmax(-1)[WINDOW // 2 : -1]
        seen = log_p > log_p.max(1, keepdim=True).values - 16
        difference = (torch.tensor(rows) - log_p)[seen].abs()
        assert float(difference.max()) < 16 / 65535  # half a step, and what float32 adds


def test_what_is_written_is_read(base: KLBase) -> None:
    again, (ids, blocks) = read_kl_base(base.path), decode_by_struct(base.path)
    assert again.ids.flatten().tolist() == ids
    assert (again.vocabulary, again.window, again.rows) == (512, WINDOW, 31)
    for expected, found in zip(blocks, again.read_windows(), strict=True):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-5)


@given(logits=st.integers(1, 9).flatmap(lambda size: arrays.arrays(np.float32, (3, size), elements=st.floats(-60, 60, width=32))))
def test_rows_survive_within_half_a_step(logits: np.ndarray) -> None:
    rows, vocabulary = encode_rows(logits), logits.shape[1]
    assert rows.shape == (3, 4 + vocabulary + vocabulary % 2)
    exact = torch.from_numpy(logits).double().log_softmax(-1).numpy()
    floor = exact.max(1, keepdims=True) - 16
    decoded = KLBase(Path("rows"), vocabulary, np.zeros((1, 8), np.int32))._decode(rows, 0)
    assert np.abs(decoded - np.maximum(exact, floor)).max() < 0.6 * 16 / 65535 + 1e-5


def test_what_the_model_rules_out_is_stored_as_the_lowest() -> None:
    decoded = KLBase(Path("rows"), 3, np.zeros((1, 8), np.int32))._decode(encode_rows(np.float32([[0, -np.inf, 0]])), 0)
    assert decoded[0] == pytest.approx([-math.log(2), -16 - math.log(2), -math.log(2)], abs=1e-3)


def compute_as_llama_cpp(path: Path, lm: LanguageModel) -> dict[str, float]:
    """The figures in plain Python, from the stored numbers."""
    ids, blocks = decode_by_struct(path)
    window, kls, changes, same = len(ids) // len(blocks), [], [], []
    for number, rows in enumerate(blocks):
        piece = torch.tensor([ids[number * window : (number + 1) * window]])
        piece[0, 0] = lm.tokenizer.bos_token_id
        log_q = lm.logits(piece)[0].double().log_softmax(-1)
        for row, log_p in enumerate(rows):
            at = window // 2 + row
            q, target = log_q[at].tolist(), int(piece[0, at + 1])
            kls.append(sum(math.exp(p) * (p - other) for p, other in zip(log_p, q, strict=True) if p > -16))
            changes.append(math.exp(q[target]) - math.exp(log_p[target]))
            same.append(int(np.argmax(log_p)) == int(np.argmax(q)))
    return {
        "mean": float(np.mean(kls)),
        "99 %": float(np.quantile(kls, 0.99)),
        "maximum": max(kls),
        "p_mean": float(np.mean(changes)),
        "p_rms": math.sqrt(np.mean(np.square(changes))),
        "same": float(np.mean(same)),
    }


def test_a_quantized_model_is_compared_as_llama_perplexity_would(builtin: ModelHandle, base: KLBase) -> None:
    small = wb.pack_model(wb.quantize_model(builtin, wb.recipe("rtn", bits=2), layers="*.0.*"))
    shares: list[float] = []
    found = compare_with_base(base.path, small, on_progress=lambda done, total: shares.append(done / total))
    report, expected = summarise_kl(found), compute_as_llama_cpp(base.path, small)
    figures = {name: report.kl[name].value for name in ("mean", "99 %", "maximum")}
    figures |= {"p_mean": report.p_mean.value, "p_rms": report.p_rms.value, "same": report.same_top.value}
    assert figures == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (found.tokens, found.text) == (5 * 31, "base.kld")
    assert shares == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_the_model_itself_is_as_near_as_sixteen_bits_allow(lm: LanguageModel, base: KLBase) -> None:
    report = summarise_kl(compare_with_base(base, lm))
    assert abs(report.kl["mean"].value) < 1e-5
    assert report.kl["maximum"].value < 1e-3
    assert report.same_top.value == 1.0


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: b"", "is no base file of llama-perplexity"),
        (lambda data: b"GGUF" + data[4:], "it does not begin with '_logits_'"),
        (lambda data: data[:-1], "bytes, but 5 windows of 64 tokens take"),
        (lambda data: data + b"\0", "it was not written to its end, or is damaged"),
        (lambda data: data[:8] + b"\0" * 12 + data[20:], "its first bytes tell of 0 windows of 0 tokens"),
        (lambda data: data[:12] + struct.pack("<i", -5) + data[16:], "and a vocabulary of -5"),
        (lambda data: data[:20] + struct.pack("<i", 512) + data[24:], "token 512 is beyond its vocabulary of 512"),
    ],
    ids=["empty", "other-format", "cut", "longer", "zeros", "negative", "token"],
)
def test_a_damaged_file_is_one_sentence(base: KLBase, tmp_path: Path, damage: object, sentence: str) -> None:
    path = tmp_path / "damaged.kld"
    path.write_bytes(damage(base.path.read_bytes()))
    with pytest.raises(ArtifactError, match=re.escape(sentence)):
        read_kl_base(path)


@pytest.mark.parametrize(("offset", "value"), [(0, math.nan), (0, math.inf), (0, -1.0), (4, -math.inf), (4, 0.5)])
def test_a_damaged_row_is_one_sentence(base: KLBase, tmp_path: Path, offset: int, value: float) -> None:
    path, data = tmp_path / "damaged.kld", bytearray(base.path.read_bytes())
    struct.pack_into("<f", data, 20 + 4 * base.ids.size + offset, value)
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="a row of window 1 holds no log-probabilities"):
        next(read_kl_base(path).read_windows())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.kld"
    path.write_bytes(b"_logits_" + data)
    with pytest.raises(ArtifactError):
        read_kl_base(path)


@pytest.mark.parametrize(
    ("window", "vocabulary", "sentence"),
    [
        (8, 300, "has 300 tokens, that of 'builtin' 512; give the base file of this model's original"),
        (600, 2, "has windows of 600 tokens, but 'builtin' reads 512 at once"),
        (8, 900, "has token 899, which the 512 of 'builtin' do not include"),
    ],
    ids=["vocabulary", "context", "token"],
)
def test_other_models_are_refused(lm: LanguageModel, tmp_path: Path, window: int, vocabulary: int, sentence: str) -> None:
    path, ids = tmp_path / "other.kld", np.full(window, vocabulary - 1, "<i4")
    rows = encode_rows(np.zeros((window - 1 - window // 2, vocabulary), np.float32))
    path.write_bytes(b"_logits_" + struct.pack("<iii", window, vocabulary, 1) + ids.tobytes() + rows.tobytes())
    with pytest.raises(ModelError, match=re.escape(sentence)):
        compare_with_base(path, lm)


def test_a_failed_write_leaves_what_was_there(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "base.kld"
    path.write_bytes(b"before")

    def full(logits: np.ndarray) -> np.ndarray:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.analysis.predictions.kl_base.encode_rows", full)
    with pytest.raises(OutputError, match="no space is left for it"):
        write_kl_base(lm, STORIES, path, window=WINDOW, tokens=2 * WINDOW)
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("base.kld", b"before")]


def test_the_report_is_numpys(builtin: ModelHandle) -> None:
    small = wb.pack_model(wb.quantize_model(builtin, wb.recipe("rtn", bits=3), layers="*.0.*"))
    found = compare(builtin, small, STORIES)
    report, tokens = summarise_kl(found), found.per_token
    for name, level in {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "99.9 %": 0.999, "maximum": 1.0}.items():
        assert report.kl[name].value == pytest.approx(float(np.quantile(tokens.kl, level)))
    change = np.exp(-tokens.loss) - np.exp(-tokens.loss_original)
    assert report.p_mean.value == pytest.approx(change.mean())
    assert report.p_rms.value == pytest.approx(np.sqrt((change**2).mean()))
    assert report.kl["median"].value == pytest.approx(found.kl_median)
    assert report.kl["maximum"].interval is None
    low, high = report.p_rms.interval
    assert 0 < low < report.p_rms.value < high
    assert report.table()["figure"].tolist() == list(report.figures)


def draw_tokens(draw: np.random.Generator, documents: int, size: int) -> Tokens:
    """Documents that differ in how hard they are, of tokens with a heavy tail."""
    document = np.repeat(np.arange(documents), size)
    hard = draw.normal(0, 0.4, documents)[document]
    kl = np.exp(draw.normal(-3, 1.2, documents * size) + hard)
    before = np.exp(draw.normal(0.5, 0.8, len(kl)))
    after = before + draw.normal(0.02, 0.3, len(kl)) * np.exp(hard)
    same = np.zeros(len(kl), dtype=int)
    return Tokens(document, same, kl, same, same, before, np.maximum(after, 0.0), document)


def test_intervals_of_the_report_cover_as_often_as_they_say() -> None:
    """Percentiles where there is an upper end, the mean change of the probability and its root mean square; 12 documents."""
    draw = np.random.default_rng(7)
    truth = summarise_kl(summarise(draw_tokens(draw, 3000, 100), "all")).figures
    names = ["KL, median", "KL, 90 %", "Δp, mean", "Δp, RMS"]
    held, seen = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for _ in range(200):
        found = summarise_kl(summarise(draw_tokens(draw, 12, 100), "drawn")).figures
        for name in names:
            if found[name].interval is not None:
                low, high = found[name].interval
                seen[name] += 1
                held[name] += low <= truth[name].value <= high
    assert min(seen.values()) > 150
    assert {name: held[name] / seen[name] for name in names if held[name] < 0.9 * seen[name]} == {}


def test_a_percentile_beyond_the_tokens_has_no_interval() -> None:
    values, unit = np.arange(300.0), np.arange(300) // 30
    assert intervals.estimate_quantile_interval(values, unit, 0.999) is None
    low, high = intervals.estimate_quantile_interval(np.tile(np.arange(30.0), 10), unit, 0.5)
    assert low < 14.5 < high
    assert intervals.estimate_quantile_interval(values, np.zeros(300, dtype=int), 0.5) is None
