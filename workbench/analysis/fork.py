"""The fork: the first token at which a quantized model goes its own way, which layer is to blame, and whether it finds back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from workbench.analysis.divergence import score
from workbench.analysis.replay import swap_of
from workbench.errors import ModelError
from workbench.models.boundaries import Boundaries
from workbench.models.handle import ModelHandle
from workbench.quantized import QuantizedLayer

if TYPE_CHECKING:
    import pandas as pd

TOKENS = 80


@dataclass(frozen=True)
class Recovery:
    """Of `continuations` that the quantized model draws after a position, how many the original finds as likely as its own.

    `forced` begin with the original's token at the fork, `left` with the quantized model's own. A continuation has recovered
    when its mean loss under the original is at most the highest among as many continuations that the original draws itself.
    """

    forced: float
    left: float
    continuations: int
    tokens: int
    seed: int


class ForkFinder:
    """A prompt, the original's greedy continuation of it, and what a quantized model makes of every token on the way.

    Both read the original's text ("teacher-forced"): up to the first token that the quantized model would not have chosen, this
    is what it would have written. `ids [1, T]` are prompt and continuation, `prompt` counts the prompt's tokens.
    """

    def __init__(
        self, model: ModelHandle, layers: Mapping[str, QuantizedLayer], prompt: str = "Once upon a time", tokens: int = TOKENS
    ) -> None:
        if not layers:
            raise ModelError("no quantized layers, so nothing can part; quantize a layer or the model first.")
        self.model, self.layers, self.lm = model, dict(layers), model.language_model()
        start = self.lm.encode(prompt)
        written = list(self.lm.new_tokens(start, min(tokens, self.lm.context - start.shape[1])))
        if not written:
            raise ModelError(f"the original ends its text right after the prompt {prompt!r}; give another prompt.")
        self.prompt, self.ids = start.shape[1], torch.cat([start, torch.tensor([written])], 1)
        self.swaps: dict[str, Tensor | nn.Module] = {}
        for name, layer in layers.items():
            swap = swap_of(model, name, layer)
            assert swap is not None
            self.swaps[name] = swap
        self.original = Boundaries(model, [self.ids])
        self.changed = Boundaries(model, [self.ids], self.swaps)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a token after the prompt: position (from 1), token (text), kl, chosen (what the quantized model would write),
        agrees. KL is that of the prediction of this token, in nats."""
        import pandas as pd

        _, ids, kl, _, top, _, _ = score(0, self.ids, self.original.logits(0), self.changed.logits(0))
        own = slice(self.prompt - 1, None)
        before = [self.ids[0, : self.prompt + index].tolist() for index in range(len(ids[own]))]
        tokens, chosen = ([self._added(*pair) for pair in zip(before, side[own], strict=True)] for side in (ids, top))
        agrees = (ids == top)[own]
        numbers = np.arange(1, len(agrees) + 1)
        return pd.DataFrame({"position": numbers, "token": tokens, "kl": kl[own], "chosen": chosen, "agrees": agrees})

    @cached_property
    def fork(self) -> int | None:
        """Position (from 1, after the prompt) of the first token that differs; None where both write the same."""
        return first_difference(self.table["agrees"])

    def blame(self) -> "pd.DataFrame":
        """One row a quantized layer, the most guilty first: name, block, matrix, kl_restored, lead_restored, kl_alone, lead_gain,
        holds.

        At the fork: KL with this layer put back to full precision and all others quantized, and the original token's lead over
        the likeliest other token then, in nats (above zero the fork is gone from here); `lead_gain` is what putting it back
        gives the original token, `kl_alone` the KL with only this layer quantized, and `holds` says that with it restored all
        tokens up to the fork are the original's. Those come first. ModelError where there is no fork.
        """
        import pandas as pd

        at = self._place("blame")
        before = self.original.logits(0)[0, at - 1]
        after = self.changed.logits(0)[0, at - 1]
        wanted = int(self.ids[0, at])
        rows = []
        prefix = [self.ids[:, :at]]  # later tokens change nothing here
        changed, original = Boundaries(self.model, prefix, self.swaps), Boundaries(self.model, prefix)
        for name in self.layers:
            way = changed.logits(0, {name: None})[0, self.prompt - 1 :]
            restored = way[-1]
            alone = original.logits(0, {name: self.swaps[name]})[0, -1]
            layer = self.model.layer(name)
            rows.append(
                {
                    "name": name,
                    "block": layer.block,
                    "matrix": layer.matrix,
                    "kl_restored": divergence_at(before, restored),
                    "lead_restored": lead(restored, wanted),
                    "kl_alone": divergence_at(before, alone),
                    "lead_gain": lead(restored, wanted) - lead(after, wanted),
                    "holds": bool((way.argmax(-1) == self.ids[0, self.prompt : at + 1]).all()),
                }
            )
        return pd.DataFrame(rows).sort_values(["holds", "lead_gain"], ascending=False, ignore_index=True)

    def restored(self, layers: Sequence[str]) -> int | None:
        """Where the fork is once these layers are back at full precision: a later position, the same one, or None for nowhere."""
        logits = self.changed.logits(0, dict.fromkeys(layers))[0, self.prompt - 1 : -1]
        return first_difference(logits.argmax(-1).numpy() == self.ids[0, self.prompt :].numpy())

    def rewind(self, continuations: int = 8, tokens: int = 24, *, temperature: float = 0.8, seed: int = 0) -> Recovery:
        """Force the original's token at the fork and let the quantized model go on, `continuations` times; see `Recovery`.

        Continuations are drawn at `temperature` with seeds from `seed` on. ModelError where there is no fork.
        """
        at = self._place("rewind")
        own = self.changed.logits(0)[0, at - 1].argmax()
        forced, left = self.ids[:, : at + 1], torch.cat([self.ids[:, :at], own.view(1, 1)], 1)

        def losses(start: Tensor, swaps: Mapping[str, Tensor | nn.Module]) -> list[float]:
            drawn = []
            for index in range(continuations):
                with self.model.swapped(swaps):
                    new = list(self.lm.new_tokens(start, tokens, temperature, seed + index))
                drawn.append(self._loss(start, new))
            return drawn

        worst = max(losses(forced, {}))
        rates = [float(np.mean([loss <= worst for loss in losses(start, self.swaps)])) for start in (forced, left)]
        return Recovery(rates[0], rates[1], continuations, tokens, seed)

    def _added(self, before: list[int], token: int) -> str:
        """What a token adds to the text."""
        return self.lm.settled([*before, int(token)])[len(self.lm.settled(before)) :]

    def _loss(self, start: Tensor, new: list[int]) -> float:
        """Mean loss of the new tokens under the original, nats; an end right away is as likely as it gets."""
        if not new:
            return 0.0
        ids = torch.cat([start, torch.tensor([new])], 1)
        log_p = self.lm.logits(ids)[0, start.shape[1] - 1 : -1].log_softmax(-1)
        return -float(log_p.gather(1, torch.tensor(new)[:, None]).mean())

    def _place(self, what: str) -> int:
        """Index of the fork's token in `ids`."""
        if self.fork is None:
            raise ModelError(f"both models write the same {len(self.table)} tokens; there is no fork to {what}.")
        return self.prompt + self.fork - 1


def first_difference(agrees: "Sequence[bool] | np.ndarray | pd.Series") -> int | None:
    """Position, from 1, of the first token that does not agree."""
    wrong = np.flatnonzero(~np.asarray(agrees))
    return int(wrong[0]) + 1 if len(wrong) else None


def lead(logits: Tensor, token: int) -> float:
    """How far a token is ahead of the likeliest other one in `logits [V]`, nats; below zero where it is behind."""
    others = torch.cat([logits[:token], logits[token + 1 :]])
    return float(logits[token] - others.max())


def divergence_at(original: Tensor, changed: Tensor) -> float:
    """KL(original ‖ changed) of two rows of logits `[V]`, nats."""
    p, q = original.double().log_softmax(-1), changed.double().log_softmax(-1)
    return float(torch.where(p.isneginf(), torch.zeros_like(p), p.exp() * (p - q)).sum())
