"""Number of blocks: in the configuration, and in the checkpoint by the names of its tensors."""

import re
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from workbench.errors import ModelError, WorkbenchWarning
from workbench.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# num_hidden_layers counts something else here: blocks that run several times, halves or groups of blocks, vision stages
# (measured on the default configuration of every type that transformers 5.24 has)
COUNTS_OTHERWISE = {"albert", "funnel", "hrm_text", "longcat_flash", "efficientnet", "mask2former", "oneformer"}
PREDICTION_BLOCKS = ("num_nextn_predict_layers", "num_mtp_layers")


def check_block_count(config: "PretrainedConfig", checkpoint: Checkpoint) -> None:
    """ModelError where the configuration asks for more blocks than the checkpoint holds; before any of them is built."""
    configured, present = _read_block_count(config), len(_find_main_stack(checkpoint.entries)[1])
    if configured is None or configured <= present or config.get_text_config().model_type in COUNTS_OTHERWISE:
        return
    raise ModelError(
        f"{checkpoint.folder / 'config.json'} asks for {configured} blocks (num_hidden_layers), but the weights beside it "
        f"hold {present}; the two do not belong together, or the download is incomplete."
    )


def warn_of_unused_blocks(config: "PretrainedConfig", module: nn.Module, checkpoint: Checkpoint) -> None:
    """Warn where the checkpoint holds blocks that the configuration leaves out, beside those that only predict ahead."""
    configured, (stack, present) = _read_block_count(config), _find_main_stack(checkpoint.entries)
    if configured is None or config.get_text_config().model_type in COUNTS_OTHERWISE:
        return
    text, patterns = config.get_text_config(), getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    ahead = max((int(getattr(text, name, None) or 0) for name in PREDICTION_BLOCKS), default=0)
    built = _find_main_stack(module.state_dict())[1]
    unused = {index for index in present if index >= configured + ahead} - built
    unused -= {index for index in unused if any(re.search(pattern, f"{stack}.{index}.") for pattern in patterns)}
    if unused and len(built) == configured:
        warnings.warn(
            f"{checkpoint.folder / 'config.json'} asks for {configured} blocks (num_hidden_layers), but the weights beside it "
            f"hold {len(present)}; the last {len(unused)} are left out.",
            WorkbenchWarning,
            stacklevel=3,
        )


def _read_block_count(config: "PretrainedConfig") -> int | None:
    """The number of blocks that a configuration asks for, where it is one number."""
    try:
        text: Any = config.get_text_config()
    except ValueError:  # several text models in one
        return None
    configured = getattr(text, "num_hidden_layers", None)
    return configured if isinstance(configured, int) else None


def _find_main_stack(names: Iterable[str]) -> tuple[str, set[int]]:
    """The largest stack of numbered blocks among names of tensors: what stands before the number, and all its numbers."""
    stacks: dict[str, set[int]] = {"": set()}
    for name in names:
        parts = name.split(".")
        index = next((index for index, part in enumerate(parts[:-1]) if part.isdecimal()), None)
        if index is not None:
            stacks.setdefault(".".join(parts[:index]), set()).add(int(parts[index]))
    return max(stacks.items(), key=lambda stack: len(stack[1]))
