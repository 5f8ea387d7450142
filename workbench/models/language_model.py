"""LanguageModel: a causal module with its tokenizer. Text to ids to logits, and streamed generation."""

import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from workbench.errors import ModelError, WorkbenchWarning
from workbench.models.broken import are_logits_broken, describe_nonfinite_logits
from workbench.models.context import find_context_length
from workbench.models.decoder import Decoder, describe_refusal
from workbench.models.forward import build_cache_kwargs, find_cache_argument, translate_run_errors
from workbench.models.growing_text import GrowingText
from workbench.seeds import check_seed

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
TRIED_TOKENS = 12  # with which the cached step is compared with a full pass
SHORT_WINDOW, WINDOWS = 4, ("sliding_window", "attention_chunk_size")  # how many tokens attention is tried with
STEP_TOLERANCE = 0.02  # of the logits' spread; packed layers sum in another order for one input than for many


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, config: "PretrainedConfig") -> Tensor:
    """Token ids `[1, T]`, T ≥ 1, with the first token the model expects.

    Raises ModelError where an empty text has no token at all, and where the model's embedding has no row for a token.
    """
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    if not ids and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id]
    if not ids:
        raise ModelError("the text is empty and this tokenizer has no first token to begin with; give at least one word.")
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None and max(ids) >= rows:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} entries, the model's embedding {rows} rows: there is none for token {max(ids)} "
            f"({tokenizer.convert_ids_to_tokens(max(ids))!r}) of the text; use the tokenizer that the model was trained with."
        )
    return torch.tensor([ids])


class LanguageModel:
    """A causal language model that runs: original, with layers swapped, or packed.

    `module(ids, cache=..., use_cache=...)` follows transformers, under the name that its family gives the cache. `lock` is held
    for each forward pass, so that one thread can swap layers without another one seeing it.
    """

    def __init__(
        self, module: nn.Module, tokenizer: "PreTrainedTokenizerBase", name: str, *, lock: AbstractContextManager | None = None
    ) -> None:
        self.module, self.tokenizer, self.name = module, tokenizer, name
        self.lock = lock or RLock()

    @property
    def context(self) -> int:
        """How many tokens the model reads at most, prompt and answer together."""
        return self._context

    @cached_property
    def _context(self) -> int:
        return find_context_length(self.module, cast("PretrainedConfig", self.module.config))

    def encode(self, text: str) -> Tensor:
        """Token ids `[1, T]`, T ≥ 1."""
        return encode(self.tokenizer, text, cast("PretrainedConfig", self.module.config))

    def decode(self, ids: Tensor | list[int]) -> str:
        """Text of token ids, special tokens left out."""
        flat = ids.flatten().tolist() if isinstance(ids, Tensor) else list(ids)
        return str(self.tokenizer.decode(flat, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def logits(self, ids: Tensor) -> Tensor:
        """Next-token logits float32 `[1, T, V]` of `ids [1, T]`; ModelError beyond the context, and where the model overflows."""
        if ids.shape[1] > self.context:
            raise ModelError(f"{ids.shape[1]} tokens given, but the context is {self.context} tokens; shorten the text.")
        return self._forward(ids)[0]

    def fill_cache(self, ids: Tensor) -> Any:
        """The model's cache of keys and values after it has read `ids [1, T]`; None where it has no cache."""
        return self._forward(ids, use_cache=True)[1]

    def generate(self, prompt: str, tokens: int = 100, *, temperature: float = 0.0, seed: int = 0) -> str:
        """The prompt and what the model writes after it; arguments as in `stream`."""
        pieces = self.stream(prompt, tokens, temperature=temperature, seed=seed)
        return self.decode(self.encode(prompt)) + "".join(pieces)

    def stream(self, prompt: str, tokens: int = 100, *, temperature: float = 0.0, seed: int = 0) -> Iterator[str]:
        """What the model writes after the prompt, piece by piece: at most `tokens` tokens, until the story or the context ends.

        Temperature 0 takes the most likely token; above, tokens are drawn from the softmax with a generator seeded by `seed`.
        The pieces after `decode(encode(prompt))` make exactly the decoded text of all tokens.
        """
        check_seed(seed, ModelError)
        ids = self.encode(prompt)
        if ids.shape[1] >= self.context:
            raise ModelError(f"the prompt has {ids.shape[1]} tokens, but the context is {self.context} tokens; shorten it.")
        if tokens < 0:
            raise ModelError(f"{tokens} tokens to generate; use 0 or more.")
        if not 0 <= temperature < float("inf"):
            raise ModelError(f"temperature {temperature}; use 0 (greedy decoding) or a positive number.")
        return self._pieces(ids, min(tokens, self.context - ids.shape[1]), temperature, seed)

    def _pieces(self, ids: Tensor, tokens: int, temperature: float, seed: int) -> Iterator[str]:
        text = GrowingText(ids.flatten().tolist(), self.decode, self.settled)
        for token in self.new_tokens(ids, tokens, temperature, seed):
            if piece := text.add(token):
                yield piece
        if rest := text.finish():
            yield rest

    def new_tokens(self, ids: Tensor, tokens: int, temperature: float = 0.0, seed: int = 0) -> Iterator[int]:
        """New tokens after `ids [1, T]`, one at a time, reading only the newest one against cached keys and values."""
        generator = torch.Generator(ids.device).manual_seed(seed)
        reading = Reading(self)
        for _ in range(tokens):
            ids = choose(reading.read(ids)[None], temperature, generator)
            token = int(ids)
            if token in self.stops:
                return
            yield token

    def _new_cache(self) -> Any:
        """What holds the keys and values of a text from its beginning; None leaves it to transformers."""
        return None

    def settled(self, ids: list[int]) -> str:
        """Text of `ids` that no further token can change: without byte tokens or an unfinished character at the end."""
        end = len(ids)
        while end and ids[end - 1] in self._byte_tokens:
            end -= 1
        return self.decode(ids[:end]).rstrip(UNFINISHED)

    @cached_property
    def _byte_tokens(self) -> frozenset[int]:
        """Tokens of single bytes (sentencepiece): a later one can turn all neighbours into another character."""
        return frozenset(index for token, index in self.tokenizer.get_vocab().items() if BYTE_TOKEN.fullmatch(token))

    @cached_property
    def stops(self) -> frozenset[int]:
        """Tokens that end a text: the end token(s), and the first token, with which the next text would begin."""
        stops: set[int] = set()
        for holder in (self.module.config, getattr(self.module, "generation_config", None), self.tokenizer):
            for name in ("eos_token_id", "bos_token_id"):
                value = getattr(holder, name, None)
                stops.update([value] if isinstance(value, int) else value or ())
        return frozenset(stops)

    @torch.inference_mode()
    def _forward(self, ids: Tensor, cache: Any = None, *, use_cache: bool = False) -> tuple[Tensor, Any]:
        name = self._cache_argument if use_cache else None
        with self.lock, translate_run_errors(self.name):
            out = self.module(
                ids, **build_cache_kwargs(self.module, use_cache=use_cache), **({} if name is None else {name: cache})
            )
        logits = out.logits.float()
        if are_logits_broken(logits):
            with self.lock:
                raise describe_nonfinite_logits(self.module, ids, self.name)
        return logits, None if name is None else getattr(out, name, None)

    @torch.inference_mode()
    def _read_with(self, decoder: Decoder, ids: Tensor) -> Tensor:
        """Next-token logits float32 `[V]` after further tokens `[1, T]` of the text that `decoder` is in."""
        with self.lock, translate_run_errors(self.name):
            logits = decoder.read(ids)
        if are_logits_broken(logits):
            with self.lock:
                raise describe_nonfinite_logits(self.module, ids, self.name)
        return logits

    def _build_decoder(self) -> Decoder | None:
        """A decoder for a new text, None where the model's own forward pass must read it."""
        return Decoder(self.module) if self.decoder_refusal is None else None

    @property
    def decoder_refusal(self) -> str | None:
        """Why the model's own forward pass reads new tokens, in one sentence; None where `Decoder` does."""
        with self.lock:
            refusal = describe_refusal(self.module)
            if refusal is None and self._key not in _decodes_alike:
                _decodes_alike[self._key] = _is_decoder_consistent(self)
        return refusal if refusal is not None or _decodes_alike[self._key] else "its decoder here predicts differently."

    @cached_property
    def _cache_argument(self) -> str | None:
        return find_cache_argument(self.module)

    @property
    def reads_stepwise(self) -> bool:
        """Whether reading token by token against the cache gives what reading the text at once gives.

        Tried once for a class and configuration; where it does not, a warning says so, and every new token reads the whole text.
        """
        if self._key not in _stepwise:
            _stepwise[self._key] = _is_stepwise_consistent(self)
            if not _stepwise[self._key]:
                warnings.warn(
                    f"{self.name!r} ({type(self.module).__name__}) predicts differently token by token than for the text "
                    f"at once; each new token therefore runs the whole text again, which is slower.",
                    WorkbenchWarning,
                    stacklevel=2,
                )
        return _stepwise[self._key]

    @cached_property
    def _key(self) -> tuple[type, str]:
        config: Any = self.module.config
        return type(self.module), config.to_json_string() if hasattr(config, "to_json_string") else repr(config)

    @property
    def reads_ahead(self) -> bool:
        """Whether later tokens change what is predicted before them, as where attention goes both ways; tried once for a class
        and configuration."""
        if self._key not in _ahead:
            _ahead[self._key] = _can_see_ahead(self)
        return _ahead[self._key]


_stepwise: dict[tuple[type, str], bool] = {}
_ahead: dict[tuple[type, str], bool] = {}
_decodes_alike: dict[tuple[type, str], bool] = {}


def _is_decoder_consistent(model: LanguageModel) -> bool:
    """Compare what `Decoder` predicts, a few tokens read at once and the others one by one, with the model's own full pass."""
    ids = _build_probe_ids(model)
    expected, _ = model._forward(ids)
    decoder, end = Decoder(model.module), 0
    for piece in _split_probe_ids(ids):
        end += piece.shape[1]
        logits = model._read_with(decoder, piece)
        if not _is_close(logits, expected[0, end - 1], expected):
            return False
    return True


def _is_stepwise_consistent(model: LanguageModel) -> bool:
    """Compare the logits of a few tokens read at once with those of a first part read at once and the others one by one.

    So few tokens fit into every window: a cache that forgets is tried with a short one as well, since the full pass of some
    families goes on to see what their cache forgets.
    """
    with model.lock:
        cache = _build_stepwise_cache(model)
        if cache is None or not _has_sliding_window(cache):
            return cache is not None
        with _shorten_windows(model.module):
            return _build_stepwise_cache(model) is not None


def _build_stepwise_cache(model: LanguageModel) -> Any:
    """The cache after a few tokens, None where what was read step by step is not what is read at once."""
    ids = _build_probe_ids(model)
    expected, _ = model._forward(ids)
    cache, end = None, 0
    for piece in _split_probe_ids(ids):
        end += piece.shape[1]
        try:
            logits, cache = model._forward(piece, cache, use_cache=True)
        except ModelError:
            return None  # a family whose cached step needs arguments of its own
        if cache is None or not _is_close(logits[0, -1], expected[0, end - 1], expected):
            return None
    return cache


def _split_probe_ids(ids: Tensor) -> tuple[Tensor, ...]:
    """Half of the tokens at once, the others one by one."""
    return ids.split([TRIED_TOKENS // 2] + [1] * (TRIED_TOKENS - TRIED_TOKENS // 2), 1)


def _is_close(logits: Tensor, expected: Tensor, spread_of: Tensor) -> bool:
    """Whether logits differ by rounding alone, measured by the spread of `spread_of`."""
    return torch.allclose(logits, expected, atol=STEP_TOLERANCE * float(spread_of.std()), rtol=0, equal_nan=True)


def _has_sliding_window(cache: Any) -> bool:
    """Whether a layer of `cache` keeps only so many tokens."""
    return any(isinstance(getattr(layer, "sliding_window", None), int) for layer in getattr(cache, "layers", ()))


@contextmanager
def _shorten_windows(module: nn.Module) -> Iterator[None]:
    """Attention over fewer tokens than are tried; families read the width of their windows as they run."""
    config: Any = cast(Any, module.config).get_text_config()
    windows = {name: getattr(config, name, None) for name in WINDOWS}
    windows = {name: window for name, window in windows.items() if isinstance(window, int) and window > SHORT_WINDOW}
    try:
        for name in windows:
            setattr(config, name, SHORT_WINDOW)
        yield
    finally:
        for name, window in windows.items():
            setattr(config, name, window)


def _can_see_ahead(model: LanguageModel) -> bool:
    """Whether another last token changes the logits of most tokens before it."""
    ids = _build_probe_ids(model)
    first, _ = model._forward(ids)
    ids[0, -1] = (ids[0, -1] + 1) % len(model.tokenizer)
    second, _ = model._forward(ids)
    changes = (first - second)[0, :-1].abs().amax(-1)
    return bool(changes.median() > STEP_TOLERANCE * first.std())


def _build_probe_ids(model: LanguageModel) -> Tensor:
    """Some token ids `[1, T]` that the model has."""
    rows = getattr(cast("PretrainedConfig", model.module.config).get_text_config(), "vocab_size", None)
    return torch.arange(TRIED_TOKENS)[None] * 7 % min(len(model.tokenizer), rows or len(model.tokenizer))


class Reading:
    """A model in the midst of a text: keys and values of what it has read are kept, so that only new tokens cost anything."""

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._cache = model, model._new_cache()
        self._decoder = model._build_decoder() if self._cache is None else None
        self._ids: Tensor | None = None

    def read(self, ids: Tensor) -> Tensor:
        """Next-token logits float32 `[V]` after these further tokens `[1, T]`."""
        if self._decoder is not None:
            return self._model._read_with(self._decoder, ids)
        if self._model.reads_stepwise:
            logits, self._cache = self._model._forward(ids, self._cache, use_cache=True)
        else:
            self._ids = ids if self._ids is None else torch.cat([self._ids, ids], 1)
            logits, _ = self._model._forward(self._ids)
        return logits[0, -1]


def choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One token `[1, 1]` from logits `[1, V]`."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
