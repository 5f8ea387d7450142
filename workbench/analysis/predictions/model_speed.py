"""How fast whole models run, side by side: reading a prompt, the first token, each further token, and memory.

Contestants take turns in every round, so that what disturbs one disturbs all.
"""

import inspect
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from workbench.bench.cpu import set_thread_count
from workbench.errors import ModelError
from workbench.jobs import run_steps
from workbench.kernels.matmul.packed_matrix import count_resident_bytes
from workbench.models.forward import find_cache_argument
from workbench.models.language_model import LanguageModel, Reading

if TYPE_CHECKING:
    import pandas as pd

SHORT_PROMPT_TOKENS, LONG_PROMPT_TOKENS, NEW_TOKENS = 16, 256, 32  # what is read and written in each round
ROUNDS = 5  # after a first that does not count


class TextReader(Protocol):
    """A model in the midst of a text."""

    def read(self, ids: Tensor) -> object:
        """Predict what follows these further tokens `[1, T]`."""


@dataclass(frozen=True)
class Contestant:
    """A model that takes part: how a text begins with it, its context in tokens, and the bytes of its weights in memory."""

    name: str
    begin: Callable[[], TextReader]
    context: int
    vocabulary: int
    count_bytes: Callable[[], int]


@dataclass(frozen=True)
class ModelSpeed:
    """What one model does with one number of threads.

    Args:
        name: The contestant.
        threads: Threads that it may use.
        prefill: Tokens a second of a long prompt, the median over rounds.
        first_token: Seconds from a prompt of 16 tokens to the first new one.
        decode: New tokens a second after that.
        low: The slowest round of `decode`.
        high: The fastest one.
        resident_bytes: Bytes that its weights take in memory, decoded copies included.
    """

    name: str
    threads: int
    prefill: float
    first_token: float
    decode: float
    low: float
    high: float
    resident_bytes: int


@dataclass(frozen=True)
class TokenParts:
    """Seconds that one new token takes: all of it, and the matrices of blocks and of the head, each timed alone."""

    token: float
    matrices: float
    head: float

    @property
    def remainder(self) -> float:
        """What is left: attention, norms, and the calls themselves."""
        return max(0.0, self.token - self.matrices - self.head)


@dataclass(frozen=True)
class ModelSpeeds:
    """A row for each model and number of threads, and the parts of a token of the first model with one thread.

    `refusal` says why the first model's tokens are read by transformers' own forward pass, where they are.
    """

    rows: tuple[ModelSpeed, ...]
    parts: TokenParts
    prompt_tokens: int
    refusal: str | None

    def table(self) -> "pd.DataFrame":
        """One row a model and number of threads; columns as in `ModelSpeed`."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "parts": {**asdict(self.parts), "remainder": self.parts.remainder}}


def enter_model(name: str, model: LanguageModel) -> Contestant:
    """A model as it generates text here."""
    return Contestant(
        name, lambda: Reading(model), model.context, len(model.tokenizer), lambda: count_resident_bytes([model.module])
    )


class _ForwardPass:
    """A text that is read by a module's own forward pass, as transformers generates."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._cache, self._name = module, None, find_cache_argument(module)
        accepted = inspect.signature(module.forward).parameters
        self._arguments: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def read(self, ids: Tensor) -> object:
        """The logits of the last token."""
        cache = {} if self._name is None else {self._name: self._cache}
        out = self._module(ids, use_cache=True, **cache, **self._arguments)
        self._cache = None if self._name is None else getattr(out, self._name)
        return out.logits


def enter_transformers(name: str, module: nn.Module, model: LanguageModel) -> Contestant:
    """A module as transformers runs it, by its own forward pass and its own cache; `model` has its tokenizer and context."""
    return Contestant(
        name, lambda: _ForwardPass(module), model.context, len(model.tokenizer), lambda: count_resident_bytes([module])
    )


def check_gguf(path: Path) -> None:
    """ModelError where llama.cpp or the file is missing."""
    if find_spec("llama_cpp") is None:
        raise ModelError(f"{path} needs llama.cpp, which is not installed; run: pip install 'quantization-workbench[bench]'.")
    if not path.is_file():
        raise ModelError(f"{path} is no file; give a GGUF file.")


def enter_gguf(path: Path, threads: int) -> Contestant:
    """A GGUF file as llama.cpp runs it, once `check_gguf` has passed it."""
    import llama_cpp

    context = SHORT_PROMPT_TOKENS + LONG_PROMPT_TOKENS + NEW_TOKENS
    model = llama_cpp.Llama(str(path), n_ctx=context, n_threads=threads, n_threads_batch=threads, n_batch=context, verbose=False)
    size = path.stat().st_size

    class GgufText:
        """A text that llama.cpp reads."""

        def __init__(self) -> None:
            model.reset()

        def read(self, ids: Tensor) -> object:
            return model.eval(ids.flatten().tolist())

    return Contestant(f"llama.cpp {path.name}", GgufText, context, model.n_vocab(), lambda: size)


def measure_models(
    contestants: Callable[[int], Sequence[Contestant]],
    model: LanguageModel,
    *,
    threads: Sequence[int],
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> ModelSpeeds:
    """Time models in turns: a long prompt, the first token after a short one, and the tokens after that.

    Args:
        contestants: Those that take part with a number of threads; the first is `model`.
        model: The model whose token is taken apart.
        threads: Numbers of threads to measure with.
        on_progress: Called with (turns done, turns) after every turn.

    Returns:
        A row for each model and number of threads, and the parts of a token.
    """
    return run_steps(measure_models_steps(contestants, model, threads=threads), lambda step: on_progress(*step))


def measure_models_steps(
    contestants: Callable[[int], Sequence[Contestant]], model: LanguageModel, *, threads: Sequence[int]
) -> Generator[tuple[float, float], None, ModelSpeeds]:
    """The same as a generator that yields turns done and turns, for a job that can be stopped."""
    rows: list[ModelSpeed] = []
    length = 0
    for number, count in enumerate(threads):
        with set_thread_count(count):
            entered = contestants(count)
            length = min(LONG_PROMPT_TOKENS, *(one.context - SHORT_PROMPT_TOKENS - NEW_TOKENS for one in entered))
            rounds: list[list[tuple[float, float, float]]] = [[] for _ in entered]
            turns = (ROUNDS + 1) * len(entered)
            for turn in range(turns):
                which = turn % len(entered)
                times = _measure_round(entered[which], length)
                if turn >= len(entered):  # the first round compiles and prepares
                    rounds[which].append(times)
                yield number + (turn + 1) / turns, len(threads)
            rows += [_summarise(one, count, times, length) for one, times in zip(entered, rounds, strict=True)]
    with set_thread_count(1):
        parts = measure_token_parts(model)
    return ModelSpeeds(tuple(rows), parts, length, model.decoder_refusal)


@torch.inference_mode()
def _measure_round(one: Contestant, length: int) -> tuple[float, float, float]:
    """Seconds of a long prompt, of the first token after a short one, and of the tokens after it."""
    ids = torch.arange(length)[None] * 7 % min(one.vocabulary, 1 << 15)
    begin = time.perf_counter()
    one.begin().read(ids)
    prompt = time.perf_counter() - begin
    begin = time.perf_counter()
    text = one.begin()
    text.read(ids[:, :SHORT_PROMPT_TOKENS])
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for token in range(NEW_TOKENS):
        text.read(ids[:, token % length : token % length + 1])
    return prompt, first, time.perf_counter() - begin


def _summarise(one: Contestant, threads: int, times: list[tuple[float, float, float]], length: int) -> ModelSpeed:
    """Medians over rounds."""
    prompt, first, later = (statistics.median(column) for column in zip(*times, strict=True))
    decode = sorted(NEW_TOKENS / seconds for _, _, seconds in times)
    return ModelSpeed(one.name, threads, length / prompt, first, NEW_TOKENS / later, decode[0], decode[-1], one.count_bytes())


@torch.inference_mode()
def measure_token_parts(model: LanguageModel) -> TokenParts:
    """Seconds of one new token, and of its matrices alone, medians over rounds."""
    module: Any = model.module
    head = module.get_output_embeddings()
    layers = [part for part in module.modules() if _is_matrix(part) and part is not head]
    inputs = {part: torch.zeros(1, part.in_features) for part in [*layers, head]}
    reading = Reading(model)
    reading.read(torch.arange(SHORT_PROMPT_TOKENS)[None])
    token = torch.tensor([[5]])
    jobs: tuple[Callable[[], object], ...] = (
        lambda: reading.read(token),
        lambda: [part(inputs[part]) for part in layers],
        lambda: head(inputs[head]),
    )
    times = [[_measure_call(job) for job in jobs] for _ in range(ROUNDS + 2)][2:]
    return TokenParts(*(statistics.median(column) for column in zip(*times, strict=True)))


def _is_matrix(part: nn.Module) -> bool:
    return hasattr(part, "in_features") and hasattr(part, "out_features")


def _measure_call(job: Callable[[], object]) -> float:
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin
