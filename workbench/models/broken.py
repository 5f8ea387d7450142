"""Non-finite logits: detecting them, and the module in which they arise."""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.models.forward import read_tokens, translate_run_errors
from workbench.nonfinite import count_nonfinite


def are_logits_broken(logits: Tensor) -> bool:
    """Whether logits `[..., V]` give no distribution: a NaN, an infinity, or a row of −inf; −inf alone rules a token out."""
    if not count_nonfinite(logits):
        return False
    return bool((logits.isnan() | logits.isposinf()).any() or logits.isneginf().all(-1).any())


def describe_nonfinite_logits(module: nn.Module, ids: Tensor, name: str) -> ModelError:
    """The sentence about a model whose logits for `ids [1, T]` are not finite; one more pass finds where that begins."""
    first: list[str] = []

    def look(path: str) -> Any:
        def hook(part: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if not first and isinstance(tensor, Tensor) and tensor.is_floating_point() and count_nonfinite(tensor):
                first.append(f"; the first such values come out of {path!r} ({type(part).__name__}, {tensor.dtype})")

        return hook

    leaves = [(path, part) for path, part in module.named_modules() if path and not any(True for _ in part.children())]
    hooks = [part.register_forward_hook(look(path)) for path, part in leaves]
    try:
        with torch.inference_mode(), translate_run_errors(name):
            read_tokens(module, ids)
    finally:
        for hook in hooks:
            hook.remove()
    where = first[0].replace("torch.", "") if first else ""
    return ModelError(
        f"the logits of {name!r} are not finite{where}: the model overflows on this text; check the weights before that module, "
        f"and the recipe if the model is quantized."
    )
