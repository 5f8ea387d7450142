"""Squared gradients of a model's loss by the outputs of its layers, from one backward pass over a text.

The loss is the negative log-probability of tokens that are drawn from the model's own predictions, position by position, not of
the tokens of the text: the mean of their squared gradients is the Fisher information, which is the curvature of the divergence
from the original that quantization causes (as in YAQA, arXiv 2505.22988). Gradients by the text's own tokens, which GuidedQuant
(arXiv 2505.07004) takes, also hold how the model fails on the text, and vanish where it has learned the text by heart.
"""

import threading
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.errors import ModelError
from workbench.guided_moments import TokenWeights, split_rows
from workbench.jobs import run_steps
from workbench.models.blocks import BlockRow
from workbench.models.forward import translate_run_errors
from workbench.models.handle import ModelHandle


def measure_token_weights(
    model: ModelHandle,
    groups: Mapping[str, int],
    windows: Sequence[Tensor],
    *,
    seed: int = 0,
    on_share: Callable[[float], None] = lambda _: None,
) -> dict[str, TokenWeights]:
    """Squared gradients of the loss by the outputs of layers, token by token.

    A model that streams runs block by block, each block once more for its gradients: one block's weights are in memory.

    Args:
        model: A causal language model.
        groups: The names of the layers, with the number of groups of output rows that each is to have.
        windows: Token ids `[1, T]` each.
        seed: Draws the tokens that the model is asked for, together with each window's own tokens.
        on_share: Called with the share of the tokens that is done, 0 to 1, after each window.

    Returns:
        `tokens [tokens, groups]` and `rows [rows]` by layer; layers that no token came to are left out.

    Raises:
        ModelError: For a model that predicts no tokens, and one that cannot be differentiated.

    Example:
        >>> import workbench as wb
        >>> from workbench.models.output_gradients import measure_token_weights
        >>> model = wb.open_model("builtin")
        >>> weights = measure_token_weights(model, {"model.layers.0.mlp.down_proj": 4}, [model.encode("Tom had a red ball.")])
        >>> weights["model.layers.0.mlp.down_proj"].rows.shape
        torch.Size([256])
    """
    return run_steps(measure_token_weights_steps(model, groups, windows, seed=seed), on_share)


def measure_token_weights_steps(
    model: ModelHandle, groups: Mapping[str, int], windows: Sequence[Tensor], *, seed: int = 0
) -> Generator[float, None, dict[str, TokenWeights]]:
    """The same as a generator that yields the share of the tokens that is done after each window."""
    if not model.writes_text:
        raise ModelError(
            f"{model.source!r} is not a causal language model: without predictions of tokens there is no loss to weight its "
            f"second moments by; use recipes without guided=."
        )
    row = BlockRow(model) if model.streams else None
    modules = {name: model.module.get_submodule(name) if row is None else row.module(name) for name in groups}
    watcher, done, total = GradientWatcher(groups), 0, sum(ids.shape[1] for ids in windows)
    for ids in windows:
        with watcher.watching(modules), torch.enable_grad():
            logits = _read_logits(model, row, ids)
            loss = F.cross_entropy(logits, _draw_labels(logits, ids, seed), reduction="sum")
            if loss.requires_grad:  # not where no layer came to run
                with translate_run_errors(model.source):
                    loss.backward()
        watcher.end_window()
        done += ids.shape[1]
        yield done / total
    return watcher.weights()


def _read_logits(model: ModelHandle, row: BlockRow | None, ids: Tensor) -> Tensor:
    """Logits float32 `[T, V]` of a model in memory, or of one that streams by its blocks."""
    if row is not None:
        return row.compute_logits(ids, row.read_weights, {}, recompute=True)
    logits: Tensor = model.run(ids).logits
    return logits[0].float()


def _draw_labels(logits: Tensor, ids: Tensor, seed: int) -> Tensor:
    """A token for each position `[T]`, drawn from what the model predicts there; the same text always draws the same."""
    draw = torch.Generator().manual_seed(seed + (zlib.crc32(ids.numpy().tobytes()) << 8))
    return torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]


class GradientWatcher:
    """Hooks that square the gradients by layers' outputs, window by window; `groups` as in `measure_token_weights`.

    Passes of other threads through the same model are not counted.
    """

    def __init__(self, groups: Mapping[str, int]) -> None:
        self._thread, self._groups = threading.get_ident(), groups
        self._calls = dict.fromkeys(groups, 0)
        self._squares: dict[str, dict[int, Tensor]] = {name: {} for name in groups}
        self._tokens: dict[str, list[Tensor]] = {name: [] for name in groups}
        self._rows: dict[str, Tensor] = {}

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Hooks on `modules` for the duration of the context."""
        with ExitStack() as hooks:
            for name, module in modules.items():
                hooks.enter_context(module.register_forward_hook(partial(self._see, name)))
            yield

    def _see(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if threading.get_ident() != self._thread or not torch.is_grad_enabled():
            return None
        if not output.requires_grad:  # of the first layers: weights have no gradients
            output = output + torch.zeros((), requires_grad=True)
        # by number, since gradients come in the reverse order; a block that is run again for them adds numbers without any
        output.register_hook(partial(self._add, name, self._calls[name]))
        self._calls[name] += 1
        return output

    def _add(self, name: str, number: int, gradient: Tensor) -> None:
        squares = gradient.detach().reshape(-1, gradient.shape[-1]).float().square()
        parts = split_rows(squares.shape[1], self._groups[name])
        self._squares[name][number] = torch.stack([squares[:, rows].mean(1) for rows in parts], 1)
        total = squares.sum(0, dtype=torch.float64)
        self._rows[name] = self._rows[name] + total if name in self._rows else total

    def end_window(self) -> None:
        """Put the gradients of one window in the order of its calls."""
        for name, calls in self._squares.items():
            self._tokens[name] += [calls[number] for number in sorted(calls)]
            calls.clear()

    def weights(self) -> dict[str, TokenWeights]:
        """The weights of the layers that tokens came to."""
        tokens = {name: torch.cat(parts) for name, parts in self._tokens.items() if parts}
        reached = {name: squares for name, squares in tokens.items() if len(squares)}
        return {name: TokenWeights(one, (self._rows[name] / len(one)).float()) for name, one in reached.items()}
