"""Context length of a model: from its configuration, and from the rows of its position embedding."""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig

UNLIMITED_CONTEXT = 2048
LIMITS = ("max_position_embeddings", "max_target_positions", "max_seq_len")  # families' names for the number of positions


def find_context_length(module: nn.Module, config: "PretrainedConfig") -> int:
    """Most tokens the model reads at once; 2048 for models without positions to run out of (ALiBi, recurrent, XLNet's −1)."""
    text = config.get_text_config()
    values = (getattr(text, name, None) for name in LIMITS)
    limit = next((value for value in values if isinstance(value, int) and value > 0), UNLIMITED_CONTEXT)
    ahead = 1 if isinstance(getattr(text, "ngram", None), int) else 0  # ProphetNet predicts with the position of the next token
    return min((limit, *(rows - ahead for rows in _count_position_rows(module))))


def _count_position_rows(module: nn.Module) -> list[int]:
    """Rows of tables of positions that begin after a row for padding, as RoBERTa's: 512 of its 514."""
    return [
        part.num_embeddings - part.padding_idx - 1
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) and part.padding_idx is not None and "position" in name.rpartition(".")[2]
    ]
