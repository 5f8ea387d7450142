"""Base files of llama-perplexity: a model's log-probabilities on a text, which another model is compared with later.

The layout, little-endian: the eight bytes `_logits_`; three 32-bit integers, the tokens of a window, the size of the vocabulary
and the number of windows; the 32-bit ids of all windows; then for each window and each position of its second half but the last
a row of 16-bit numbers. A row begins with two 32-bit floats, a step and the lowest log-probability; each token's log-probability
is the lowest plus so many steps as its number says, and a row of an odd vocabulary has one number more. Log-probabilities more
than 16 nats below the likeliest token's are stored as if they were 16 below it.
"""

import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workbench.analysis.predictions.compare import Readable, get_language_model
from workbench.analysis.predictions.divergence import Divergence, join_windows, score_positions, summarise
from workbench.atomic import stream_file
from workbench.errors import ArtifactError, ModelError
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text
from workbench.models.text_windows import cut_windows, find_first_token, join_tokens, make_window_rule, replace_first_token

MAGIC = b"_logits_"
HEADER = struct.Struct("<8sIii")
ROW_HEAD = 4  # 16-bit numbers that its two floats take
STEPS = 65535
DEPTH = 16.0  # nats below the likeliest token that are stored, and above which a token counts in the KL
Report = Callable[[float, float], None]


@dataclass(frozen=True)
class KLBase:
    """An open base file: `ids [windows, window]`, and the log-probabilities of each window's second half, read one by one."""

    path: Path
    vocabulary: int
    ids: np.ndarray

    @property
    def window(self) -> int:
        """Tokens of a window."""
        return self.ids.shape[1]

    @property
    def rows(self) -> int:
        """Scored positions of a window."""
        return _count_rows(self.window)

    def __repr__(self) -> str:
        windows, window = self.ids.shape
        return f"<KLBase {str(self.path)!r}: {windows:,} windows of {window:,} tokens, vocabulary of {self.vocabulary:,}>"

    def read_windows(self) -> Iterator[Tensor]:
        """Log-probabilities float32 `[rows, vocabulary]` of each window; ArtifactError where a row is damaged."""
        shape = (self.rows, _count_numbers(self.vocabulary))
        with _translate_read_errors(self.path), self.path.open("rb") as file:
            file.seek(HEADER.size + self.ids.size * 4)
            for number in range(len(self.ids)):
                block = np.frombuffer(file.read(shape[0] * shape[1] * 2), "<u2")
                if block.size != shape[0] * shape[1]:
                    raise ArtifactError(f"{self.path} ends in window {number + 1} of {len(self.ids)}; write it again.")
                yield torch.from_numpy(self._decode(block.reshape(shape), number))

    def _decode(self, block: np.ndarray, number: int) -> np.ndarray:
        heads = np.ascontiguousarray(block[:, :ROW_HEAD]).view("<f4")
        step, lowest = heads[:, :1], heads[:, 1:]
        if not (np.isfinite(heads).all() and (step >= 0).all() and (lowest <= 0).all()):
            raise ArtifactError(
                f"{self.path} is damaged: a row of window {number + 1} holds no log-probabilities; write it again."
            )
        return step * block[:, ROW_HEAD : ROW_HEAD + self.vocabulary].astype(np.float32) + lowest


def read_kl_base(path: str | Path) -> KLBase:
    """Open a base file that llama-perplexity wrote with `--kl-divergence-base`, or `wb.measures.write_kl_base`.

    Args:
        path: The file.

    Returns:
        Its tokens; the log-probabilities are read window by window when they are needed.

    Raises:
        ArtifactError: Where the file is missing, is no base file, or does not have the size that its first bytes tell.

    Example:
        >>> import workbench as wb
        >>> try:
        ...     wb.measures.read_kl_base("nowhere.kld")
        ... except wb.errors.ArtifactError as error:
        ...     print(str(error).partition(" (")[0])
        nowhere.kld cannot be read
    """
    path = Path(path).expanduser()
    with _translate_read_errors(path), path.open("rb") as file:
        head, size = file.read(HEADER.size), os.fstat(file.fileno()).st_size
        if len(head) < HEADER.size or not head.startswith(MAGIC):
            raise ArtifactError(f"{path} is no base file of llama-perplexity: it does not begin with '_logits_'.")
        _, window, vocabulary, windows = HEADER.unpack(head)
        if window < 4 or vocabulary < 1 or windows < 1:
            sizes = f"{windows} windows of {window} tokens and a vocabulary of {vocabulary}"
            raise ArtifactError(f"{path} is damaged: its first bytes tell of {sizes}; write it again.")
        expected = HEADER.size + windows * (window * 4 + _count_rows(window) * _count_numbers(vocabulary) * 2)
        if size != expected:
            raise ArtifactError(
                f"{path} has {size:,} bytes, but {windows:,} windows of {window:,} tokens take {expected:,}: it was not "
                f"written to its end, or is damaged; write it again."
            )
        ids = np.frombuffer(file.read(windows * window * 4), "<i4").reshape(windows, window)
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ArtifactError(f"{path} is damaged: token {ids.max()} is beyond its vocabulary of {vocabulary:,}; write it again.")
    return KLBase(path, vocabulary, ids)


def write_kl_base(
    model: Readable | LanguageModel,
    text: Text,
    path: str | Path,
    *,
    window: int | None = None,
    tokens: int | None = None,
    on_progress: Report = lambda *_: None,
) -> KLBase:
    """Write a model's log-probabilities on a text as llama-perplexity does with `--kl-divergence-base`, window by window.

    Args:
        model: The original, from `wb.open_model`, or another one that reads text.
        text: A text from `wb.text`; an empty line joins its documents.
        path: The file; it takes two bytes for each token of the vocabulary and scored position.
        window: Tokens of a window; 512 when absent, at most the context.
        tokens: At most so many tokens of the text, all when absent.
        on_progress: Called with the windows that are written, and all of them.

    Returns:
        The file, opened.

    Raises:
        ModelError: Where the text is shorter than a window.
        OutputError: Where the file cannot be written; what was there before stays.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     base = wb.measures.write_kl_base(
        ...         wb.open_model("builtin"), wb.text("evaluation"), f"{folder}/base.kld", window=32, tokens=64
        ...     )
        >>> base.ids.shape, base.rows
        ((2, 32), 15)
    """
    lm = get_language_model(model)
    rule = make_window_rule(lm, "llama.cpp", window)
    spans = cut_windows(lm, text, rule, tokens)
    ids = join_tokens(lm, text, tokens)[0, : len(spans) * rule.window].numpy().astype("<i4")
    with stream_file(path) as file:
        for number, span in enumerate(spans):
            on_progress(number, len(spans))
            logits = lm.logits(span.window)[0, span.first - 1 : -1].numpy()
            if not number:
                file.write(HEADER.pack(MAGIC, rule.window, logits.shape[1], len(spans)) + ids.tobytes())
            file.write(encode_rows(logits).tobytes())
        on_progress(len(spans), len(spans))
    return KLBase(Path(path).expanduser(), logits.shape[1], ids.reshape(len(spans), rule.window))


def encode_rows(logits: np.ndarray) -> np.ndarray:
    """Rows of 16-bit numbers from logits float32 `[rows, vocabulary]`."""
    highest = logits.max(1, keepdims=True)
    lowest = np.maximum(logits.min(1, keepdims=True), highest - np.float32(DEPTH))
    total = np.log(np.exp(logits - highest).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    step = (highest - lowest) / np.float32(STEPS)
    codes = np.rint((np.maximum(logits, lowest) - lowest) / np.where(step > 0, step, np.float32(1)))
    rows = np.zeros((len(logits), _count_numbers(logits.shape[1])), "<u2")
    rows[:, :ROW_HEAD] = np.concatenate([step, lowest - highest - total], 1).astype("<f4").view("<u2")
    rows[:, ROW_HEAD : ROW_HEAD + logits.shape[1]] = np.clip(codes, 0, STEPS)
    return rows


def compare_with_base(
    base: KLBase | str | Path, model: Readable | LanguageModel, *, on_progress: Report = lambda *_: None
) -> Divergence:
    """Compare a model with the log-probabilities in a base file, on the file's own tokens, as llama-perplexity does.

    Args:
        base: A base file, or its path.
        model: The changed model; its vocabulary must be the file's.
        on_progress: Called with the windows that are read, and all of them.

    Returns:
        The same figures as `wb.compare` gives, with intervals over runs of windows. As in llama-perplexity, tokens that the file
        gives less than e⁻¹⁶ count nothing in the KL.

    Raises:
        ArtifactError: Where the file is damaged.
        ModelError: Where the model has another vocabulary, or a context that is shorter than the file's windows.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     base = wb.measures.write_kl_base(model, wb.text("evaluation"), f"{folder}/base.kld", window=64, tokens=128)
        ...     divergence = wb.measures.base_divergence(base, model)
        >>> divergence.tokens, abs(divergence.kl) < 1e-4  # the file has 16 bits for a probability
        (62, True)
    """
    base, lm = base if isinstance(base, KLBase) else read_kl_base(base), get_language_model(model)
    if base.window > lm.context:
        raise ModelError(f"{base.path} has windows of {base.window:,} tokens, but {lm.name!r} reads {lm.context:,} at once.")
    return summarise(join_windows(_score_windows(base, lm, on_progress)), base.path.name)


def _score_windows(base: KLBase, lm: LanguageModel, report: Report) -> Iterator[tuple[np.ndarray, ...]]:
    """The columns of `Tokens` for each window."""
    begin, first = find_first_token(lm), base.window // 2
    for number, p in enumerate(base.read_windows()):
        report(number, len(base.ids))
        ids = torch.from_numpy(base.ids[number].astype(np.int64))[None]
        logits = _read_logits(base, lm, ids if begin is None else replace_first_token(ids, begin))
        target = ids[0, first + 1 :]
        columns = score_positions(p, logits[0, first:-1].log_softmax(-1), target, floor=-DEPTH)
        yield np.zeros(len(target), dtype=np.int64), target.numpy(), *(column.numpy() for column in columns)
    report(len(base.ids), len(base.ids))


def _read_logits(base: KLBase, lm: LanguageModel, ids: Tensor) -> Tensor:
    """Logits of a window; ModelError where they are of another vocabulary."""
    if base.vocabulary > len(lm.tokenizer) and int(ids.max()) >= len(lm.tokenizer):
        raise ModelError(
            f"{base.path} has token {int(ids.max())}, which the {len(lm.tokenizer):,} of {lm.name!r} do not include."
        )
    logits = lm.logits(ids)
    if logits.shape[-1] != base.vocabulary:
        sizes = f"{base.vocabulary:,} tokens, that of {lm.name!r} {logits.shape[-1]:,}"
        raise ModelError(f"the vocabulary of {base.path} has {sizes}; give the base file of this model's original.")
    return logits


def _count_rows(window: int) -> int:
    """Scored positions of a window."""
    return window - 1 - window // 2


def _count_numbers(vocabulary: int) -> int:
    """16-bit numbers of a row."""
    return ROW_HEAD + 2 * math.ceil(vocabulary / 2)


@contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about reading `path` into an ArtifactError."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror or error}); give a base file.") from error
