"""The fork: the first token at which a quantized model diverges, the layers to blame, and whether it recovers."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from workbench.analysis.predictions.divergence import score
from workbench.analysis.predictions.isolated_effects import Quantized, build_replacements, get_layers, match_basis
from workbench.analysis.predictions.sensitivity import Measured
from workbench.errors import ModelError
from workbench.intervals import Interval, compute_binomial_interval
from workbench.jobs import run_steps
from workbench.models.boundaries import Boundaries
from workbench.models.handle import ModelHandle
from workbench.seeds import check_seed

if TYPE_CHECKING:
    import pandas as pd

CONTINUATION_TOKENS = 80


@dataclass(frozen=True)
class Recovery:
    """Of `continuations` that the quantized model draws after a position, how many the original finds as likely as its own.

    `forced` begin with the original's token at the fork, `left` with the quantized model's own. A continuation has recovered
    when its mean loss under the original is at most the highest among as many continuations that the original draws itself: of
    n more of the original's own, n/(n+1) would. Intervals are 95 % binomial ones (Clopper-Pearson).
    """

    forced: float
    left: float
    continuations: int
    tokens: int
    seed: int

    @property
    def forced_interval(self) -> Interval:
        """Where the rate after the original's token may lie."""
        return compute_binomial_interval(round(self.forced * self.continuations), self.continuations)

    @property
    def left_interval(self) -> Interval:
        """Where the rate after the quantized model's token may lie."""
        return compute_binomial_interval(round(self.left * self.continuations), self.continuations)


@dataclass(frozen=True)
class Guilt:
    """Layers whose full precision together takes the fork away, none of which can be left out; one where one is enough.

    `moved` is where the fork is with them restored (None: nowhere), `leads` the original's narrowest lead on the way to the fork
    as they were found, one after the other, nats.
    """

    layers: tuple[str, ...]
    moved: int | None
    leads: tuple[float, ...]


class ForkFinder:
    """Find the first token at which a quantized model goes its own way, and the layers that are to blame.

    Both models read the original's greedy continuation of a prompt ("teacher-forced"): up to the first token that the quantized
    model would not have chosen, this is what it would have written. `ids [1, T]` are prompt and continuation, `prompt` counts the
    prompt's tokens. What a `QuantizedModel` changed beside its layers takes part (see `analysis.applied`).

    Args:
        model: The original model, from `wb.open_model`.
        quantized: What `wb.quantize_model` made, or quantized layers by name.
        prompt: What the text begins with.
        tokens: How many tokens the original writes at most.

    Raises:
        ModelError: Where no layer is quantized, or where the original writes nothing after the prompt.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=1), layers="*.0.*")
        >>> finder = wb.ForkFinder(model, small, "Once upon a time", tokens=24)
        >>> finder.fork  # the second token is the first that differs
        2
        >>> finder.table["token"].tolist()[:2]
        [',', ' there']
    """

    def __init__(
        self, model: ModelHandle, quantized: Quantized, prompt: str = "Once upon a time", tokens: int = CONTINUATION_TOKENS
    ) -> None:
        if not get_layers(quantized):
            raise ModelError("no layer is quantized, so the texts cannot diverge; quantize a layer or the model first.")
        self.model = model = match_basis(model, quantized)
        self.layers, self.lm = dict(get_layers(quantized)), model.language_model()
        start = self.lm.encode(prompt)
        written = list(self.lm.new_tokens(start, min(tokens, self.lm.context - start.shape[1])))
        if not written:
            raise ModelError(f"the original ends its text right after the prompt {prompt!r}; give another prompt.")
        self.prompt, self.ids = start.shape[1], torch.cat([start, torch.tensor([written])], 1)
        self.swaps = build_replacements(model, quantized)
        self.original = Boundaries(model, [self.ids])
        self.changed = Boundaries(model, [self.ids], self.swaps)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a token after the prompt: position (from 1), token (text), kl, chosen (what the quantized model would write),
        agrees. KL is that of the prediction of this token, in nats."""
        import pandas as pd

        _, ids, kl, _, top, _, _ = score(0, self.ids, self.original.logits(0), self.changed.logits(0))
        generated = slice(self.prompt - 1, None)
        before = [self.ids[0, : self.prompt + index].tolist() for index in range(len(ids[generated]))]
        tokens, chosen = ([self._added(*pair) for pair in zip(before, side[generated], strict=True)] for side in (ids, top))
        agrees = (ids == top)[generated]
        numbers = np.arange(1, len(agrees) + 1)
        return pd.DataFrame({"position": numbers, "token": tokens, "kl": kl[generated], "chosen": chosen, "agrees": agrees})

    @cached_property
    def fork(self) -> int | None:
        """Position (from 1, after the prompt) of the first token that differs; None where both write the same."""
        return _find_first_difference(self.table["agrees"])

    def blame(self) -> "pd.DataFrame":
        """One row a quantized layer (and other changed parameter), the most guilty first: name, block, matrix, kl_restored,
        lead_restored, lead_gain, holds, kl_alone.

        `lead_restored` is the original tokens' narrowest lead over the likeliest other token from the prompt to the fork, in
        nats, with this layer back at full precision and all others quantized; `lead_gain` is what that is more than before.
        Above zero the layer alone takes the fork away from here (`holds`). At the fork: KL with the layer restored, and
        `kl_alone` with only this layer quantized. ModelError where there is no fork.
        """
        import pandas as pd

        at = self._position("blame")
        before, expected, quantized = self.original.logits(0)[0, at - 1], self.ids[0, self.prompt : at + 1], self._narrowest([])
        original = Boundaries(self.model, [self.ids[:, :at]])
        rows = []
        for name in self.swaps:
            way, alone = self._way([name]), original.logits(0, {name: self.swaps[name]})[0, -1]
            (block, matrix), restored = original.locate(name), float(_compute_leads(way, expected).min())
            rows.append(
                {
                    "name": name,
                    "block": block,
                    "matrix": matrix,
                    "kl_restored": _compute_kl(before, way[-1]),
                    "lead_restored": restored,
                    "lead_gain": restored - quantized,
                    "holds": restored > 0,
                    "kl_alone": _compute_kl(before, alone),
                }
            )
        return pd.DataFrame(rows).sort_values("lead_gain", ascending=False, ignore_index=True)

    def guilty(self) -> Guilt:
        """The smallest set of layers found that takes the fork away when they are restored together.

        Greedy: the layer whose restoration widens the original's narrowest lead most joins, until all tokens up to the fork are
        the original's; then every layer that can do without goes back. ModelError where there is no fork.
        """
        return run_steps(self.guilty_steps(), None)

    def guilty_steps(self) -> Generator[Measured, None, Guilt]:
        """The same as a generator that yields a step for each layer that joins, for a job that can be stopped."""
        self._position("blame")
        guilty: list[str] = []
        gained: list[float] = []
        while len(guilty) < len(self.swaps) and (not gained or gained[-1] <= 0):
            rest = [name for name in self.swaps if name not in guilty]
            lead = {name: self._narrowest([*guilty, name]) for name in rest}
            guilty.append(max(rest, key=lambda name: lead[name]))
            gained.append(lead[guilty[-1]])
            yield Measured(f"{len(guilty)} restored", len(guilty) - 1, len(self.swaps))
        for name in guilty[:-1]:
            without = [other for other in guilty if other != name]
            if self._narrowest(without) > 0:
                guilty = without
        return Guilt(tuple(guilty), self.restored(guilty), tuple(gained))

    def restored(self, layers: Sequence[str]) -> int | None:
        """Where the fork is once these layers are back at full precision: a later position, the same one, or None for nowhere."""
        logits = self.changed.logits(0, dict.fromkeys(layers))[0, self.prompt - 1 : -1]
        return _find_first_difference(logits.argmax(-1).numpy() == self.ids[0, self.prompt :].numpy())

    def rewind(self, continuations: int = 8, tokens: int = 24, *, temperature: float = 0.8, seed: int = 0) -> Recovery:
        """Force the original's token at the fork and let the quantized model go on, `continuations` times; see `Recovery`.

        Continuations are drawn at `temperature` with seeds from `seed` on. ModelError where there is no fork.
        """
        return run_steps(self.rewind_steps(continuations, tokens, temperature=temperature, seed=seed), None)

    def rewind_steps(
        self, continuations: int = 8, tokens: int = 24, *, temperature: float = 0.8, seed: int = 0
    ) -> Generator[Measured, None, Recovery]:
        """The same as a generator that yields a step for each continuation, for a job that can be stopped."""
        check_seed(seed, ModelError)
        at = self._position("rewind")
        choice = self.changed.logits(0)[0, at - 1].argmax()
        forced, left = self.ids[:, : at + 1], torch.cat([self.ids[:, :at], choice.view(1, 1)], 1)

        sides: dict[str, tuple[Tensor, Mapping[str, Tensor | nn.Module]]] = {
            "the original": (forced, {}),
            "forced": (forced, self.swaps),
            "left": (left, self.swaps),
        }
        losses: dict[str, list[float]] = {side: [] for side in sides}
        for index in range(continuations):
            for number, (side, (start, swaps)) in enumerate(sides.items()):
                with self.model.swapped(swaps):
                    new = list(self.lm.new_tokens(start, tokens, temperature, seed + index))
                losses[side].append(self._loss(start, new))
                yield Measured(f"continuation {index + 1}, {side}", 3 * index + number, 3 * continuations)
        worst = max(losses["the original"])
        forced_rate, left_rate = (float(np.mean([loss <= worst for loss in losses[side]])) for side in ("forced", "left"))
        return Recovery(forced_rate, left_rate, continuations, tokens, seed)

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

    def _way(self, restored: Sequence[str]) -> Tensor:
        """Logits `[fork, V]` of every token from the prompt's end to the fork, with these layers restored."""
        return self._to_the_fork.logits(0, dict.fromkeys(restored))[0, self.prompt - 1 :]

    @cached_property
    def _to_the_fork(self) -> Boundaries:
        """The quantized model up to the fork: later tokens change nothing there."""
        return Boundaries(self.model, [self.ids[:, : self._position("blame")]], self.swaps)

    def _narrowest(self, restored: Sequence[str]) -> float:
        """The original tokens' narrowest lead on the way to the fork with these layers restored, nats."""
        way = self._way(restored)
        return float(_compute_leads(way, self.ids[0, self.prompt : self.prompt + len(way)]).min())

    def _position(self, what: str) -> int:
        """Index of the fork's token in `ids`."""
        if self.fork is None:
            raise ModelError(f"both models write the same {len(self.table)} tokens; there is no fork to {what}.")
        return self.prompt + self.fork - 1


def _find_first_difference(agrees: "Sequence[bool] | np.ndarray | pd.Series") -> int | None:
    """Position, from 1, of the first token that does not agree."""
    wrong = np.flatnonzero(~np.asarray(agrees))
    return int(wrong[0]) + 1 if len(wrong) else None


def _compute_leads(logits: Tensor, tokens: Tensor) -> Tensor:
    """How far each of `tokens [n]` is ahead of the likeliest other one in `logits [n, V]`, nats; negative where behind."""
    chosen = logits.gather(1, tokens[:, None])
    return (chosen - logits.scatter(1, tokens[:, None], -torch.inf).max(1, keepdim=True).values)[:, 0]


def _compute_kl(original: Tensor, changed: Tensor) -> float:
    """KL(original ‖ changed) of two rows of logits `[V]`, nats."""
    p, q = original.double().log_softmax(-1), changed.double().log_softmax(-1)
    return float(torch.where(p.isneginf(), torch.zeros_like(p), p.exp() * (p - q)).sum())
