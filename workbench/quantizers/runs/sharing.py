"""Items that several layers share and that are stored and counted once: codebooks of a scope, transforms of an input."""

import fnmatch
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Codebooks, State
from workbench.quantizers.pipeline import check_inputs, prepare_moment
from workbench.quantizers.runs.progress import LayerProgress, Place
from workbench.quantizers.runs.quantize_layer import Stats, find_moment, find_token_count
from workbench.quantizers.transforms.learned import Learned
from workbench.recipe import LayerPlan, Recipe

if TYPE_CHECKING:
    from workbench.models import ModelHandle

States = Mapping[str, State]


class Scopes:
    """The layers of a run by the codebooks they share; what a scope shares is prepared when its first layer comes."""

    def __init__(self, plan: LayerPlan, chosen: Mapping[str, Recipe]) -> None:
        self.chosen = chosen
        self.names = {name: scope for name in chosen if (scope := _find_scope(plan, name)) is not None}
        self.prepared: dict[str, list[Codebooks | None]] = {}

    def members(self, scope: str) -> list[str]:
        """The layers of a scope."""
        return [name for name, other in self.names.items() if other == scope]

    def waits(self, layer: str) -> bool:
        """Whether this layer's scope is still to be prepared."""
        return layer in self.names and self.names[layer] not in self.prepared

    def prepare(self, layer: str, model: "ModelHandle", stats: Stats | None, states: States) -> None:
        """Prepare what this layer's scope shares, from all its layers' transformed weights."""
        scope, recipe = self.names[layer], self.chosen[layer]
        weights = TransformedWeights(model, recipe, self.members(scope), stats, states)
        self.prepared[scope] = [coder.prepare(weights) for coder in recipe.coders]

    def prepare_beginning(self, model: "ModelHandle", phases: int) -> Generator[LayerProgress, None, None]:
        """Prepare what layers with learned transforms share, in the bases in which learning begins.

        A basis is then learned for the codes that it is used with, and not for those of its own matrix alone: a codebook of 256
        words for the few vectors of a narrow layer loses next to nothing, and leaves nothing to learn.
        """
        learned = {name: recipe.transform for name, recipe in self.chosen.items() if isinstance(recipe.transform, Learned)}
        for name in learned:
            if self.waits(name):
                yield Place(name, 0, len(self.chosen), 0, phases).progress("share")
                widths = {member: model.weight(member).shape[1] for member in self.members(self.names[name])}
                states = {member: learned[member].beginning(cols, self.chosen[member].seed) for member, cols in widths.items()}
                self.prepare(name, model, None, states)

    def shared(self, layer: str) -> list[Codebooks | None] | None:
        """The coders' shared parameters for this layer, None where it shares nothing."""
        return self.prepared[self.names[layer]] if layer in self.names else None

    def mark(self, layer: QuantizedLayer) -> QuantizedLayer:
        """The layer with its shared tensors named after their scope and paid for by all its layers."""
        scope = self.names.get(layer.name)
        return layer if scope is None else _replace_packed(layer, layer.packed.share(scope, len(self.members(scope))))


def _find_scope(plan: LayerPlan, layer: str) -> str | None:
    """A name for the group of layers that share codebooks with this one, None where nothing is shared."""
    rule, recipe = next((i, r) for i, (pattern, r) in enumerate(plan.rules) if fnmatch.fnmatchcase(layer, pattern))
    widest = {coder.sharing for coder in recipe.coders}
    scope_names = {"projection": layer.rsplit(".", 1)[-1], "model": "model"}
    return next((f"{rule}:{scope_names[sharing]}" for sharing in ("model", "projection") if sharing in widest), None)


def mark_transform(layer: QuantizedLayer, key: str, layers: int) -> QuantizedLayer:
    """The layer with all tensors of its transform, the outermost node, shared under `key` by the layers of one input."""
    shared = {name: (f"{key}/{name}", layers) for name in layer.packed.tensors}
    return _replace_packed(layer, replace(layer.packed, shared=shared))


def _replace_packed(layer: QuantizedLayer, packed: Packed) -> QuantizedLayer:
    """The layer in this stored form, with its ledger."""
    return replace(layer, packed=packed, ledger=build_ledger(packed, layer.nominal_bits))


@dataclass(frozen=True)
class TransformedWeights(Sequence[Tensor]):
    """The transformed float32 weights of several layers, each read when it is asked for."""

    model: "ModelHandle"
    recipe: Recipe
    layers: Sequence[str]
    stats: Stats | None
    states: States

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        name = self.layers[index]
        layer_moment = find_moment(self.model.layer(name), self.recipe, self.stats)
        moment = prepare_moment(layer_moment, find_token_count(name, self.stats), self.recipe)
        weight = self.model.weight(name)
        check_inputs(weight, moment)
        transform, w = self.recipe.transform, weight.float()
        state = self.states[name] if name in self.states else transform.fit(w, moment, self.recipe.seed)
        return transform.forward(w, state)
