"""The tokenizer of a model as GGUF's metadata; one that llama.cpp would read otherwise is refused.

Two kinds are known: pieces of text with bytes as a fallback (SentencePiece, `llama`), whose merges become scores, and bytes that
are merged within words (`gpt2`), for which llama.cpp must know the pattern that cuts a text into words.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import ArtifactError
from workbench.json_value import parse
from workbench.models import architecture

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of tokens in GGUF
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {WORDS % "": "qwen2", WORDS % "{1,3}": "llama-bpe"}  # llama.cpp's names for how a text is cut into words
NORMALIZERS = {"Prepend", "Replace", "Sequence"}  # of pieces of text: a space before the text, and ▁ for spaces
SPECIAL = ("bos", "eos", "unk", "pad")


def add_tokenizer(writer: Any, folder: Path, rows: int) -> list[str]:
    """Add the tokenizer of a folder, as transformers reads it, to a GGUF writer; returns what is lost, in sentences.

    The embedding has `rows` tokens. ArtifactError for a tokenizer of a kind that llama.cpp reads otherwise.
    """
    tokenizer = architecture.load_tokenizer(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    document = {} if backend is None else parse(backend.to_str(), f"the tokenizer of {folder}", ArtifactError, foreign=True).value
    model = document.get("model") or {}
    if model.get("type") != "BPE":
        kind = model.get("type") or type(tokenizer).__name__
        raise ArtifactError(
            f"{folder} has a tokenizer of type {kind!r}; only BPE can be written to GGUF here: export to hf instead."
        )
    tokens, types = _list_tokens(document, rows)
    notes = [f"{len(tokenizer) - rows} tokens without a row in the embedding are left out."] if len(tokenizer) > rows else []
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_score_tokens(model, tokens))
        writer.add_add_space_prefix(_needs_space(folder, document))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_find_pattern(folder, document))
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
        if normalizer := document.get("normalizer"):
            notes.append(f"llama.cpp reads a text as it is, without normalizing it first ({normalizer.get('type')}).")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_special_tokens(writer, tokenizer, rows)
    return notes


def _add_special_tokens(writer: Any, tokenizer: Any, rows: int) -> None:
    """The numbers of tokens that begin, end and fill up a text, which of them every text gets, and how a chat is written."""
    for kind in SPECIAL:
        number = getattr(tokenizer, f"{kind}_token_id", None)
        if number is not None and number < rows:
            getattr(writer, f"add_{kind}_token_id")(number)
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(ids[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _list_tokens(document: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """The text and type of each of `rows` tokens."""
    model, added = document["model"], {token["id"]: token for token in document.get("added_tokens") or ()}
    by_id = {number: token for token, number in model["vocab"].items()} | {n: token["content"] for n, token in added.items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(rows)]
    return tokens, [_classify_token(number, token, added, by_id, model) for number, token in enumerate(tokens)]


def _classify_token(number: int, token: str, added: Mapping[int, Any], by_id: Mapping[int, str], model: Mapping[str, Any]) -> int:
    """GGUF's type of one token."""
    if number not in by_id:
        return UNUSED
    if model.get("byte_fallback") and token == model.get("unk_token"):
        return UNKNOWN
    if number in added:
        return CONTROL if added[number].get("special") else USER_DEFINED
    return BYTE if model.get("byte_fallback") and len(token) == 6 and token.startswith("<0x") else NORMAL


def _score_tokens(model: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Higher for tokens that are merged earlier: minus the rank of the first merge that gives a token, 0 where none does."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model.get("merges") or ()):
        ranks.setdefault("".join(merge) if isinstance(merge, list) else merge.replace(" ", ""), rank)
    return [-float(ranks[token] + 1) if token in ranks else 0.0 for token in tokens]


def _needs_space(folder: Path, document: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text; ArtifactError where the text is changed in other ways before it is read."""
    normalizer = document.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    before = document.get("pre_tokenizer") or {}
    kinds = {step.get("type") for step in steps}
    if kinds - NORMALIZERS or before.get("type") not in (None, "Metaspace"):
        changes = ", ".join(sorted(kinds - NORMALIZERS) or [str(before.get("type"))])
        raise ArtifactError(
            f"the tokenizer of {folder} changes a text by {changes} first, which llama.cpp does not; export to hf instead."
        )
    return "Prepend" in kinds or before.get("prepend_scheme", "never") != "never"


def _find_pattern(folder: Path, document: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a text is cut into words; ArtifactError for a pattern without one."""
    before = document.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    patterns = [step["pattern"].get("Regex", "") for step in steps if step.get("type") == "Split"]
    if not patterns and any(step.get("type") == "ByteLevel" and step.get("use_regex", True) for step in steps):
        return "gpt-2"
    if len(patterns) == 1 and patterns[0] in PATTERNS:
        return PATTERNS[patterns[0]]
    names = ", ".join(["gpt-2", *PATTERNS.values()])
    raise ArtifactError(
        f"the tokenizer of {folder} cuts text into words by a pattern that is none of {names}; export to hf instead."
    )
