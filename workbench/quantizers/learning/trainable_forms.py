"""Trainable stored forms: scales and other stored floats, and codes through the values that are rounded to them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from workbench.kernels import formats
from workbench.kernels.formats.format import find
from workbench.kernels.formats.rotation import ANGLES
from workbench.kernels.formats.transforms import Transformed, strip_transforms
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed

HALVINGS = 4
PACE = 0.4  # of loose signs: at the pace of other numbers too many flip at once
PATHS = 0.1  # of what paths are nearest to: a path that moves elsewhere loses what fitted it to the errors before it
Key = tuple[str, str]  # the layer, and the path of a tensor in its tree; ("", key) for a tensor that layers share


@dataclass(frozen=True)
class Trained:
    """One stored tensor: `start` + `size` · `step`, where `step` is trained from zero so that one rate suits every tensor."""

    start: Tensor
    size: float
    dtype: torch.dtype
    step: nn.Parameter

    @classmethod
    def from_stored(cls, stored: Tensor, size: float | None = None) -> "Trained":
        """From the values that are stored now; `size` is their root mean square unless given."""
        start = stored.detach().float()
        size = size or start.square().mean().sqrt().item() or 1.0
        return cls(start, size, stored.dtype, nn.Parameter(torch.zeros_like(start)))

    def value(self) -> Tensor:
        """Float32, with a gradient."""
        return self.start + self.size * self.step

    def rounded(self) -> Tensor:
        """In the type in which it is stored; what is too large for it becomes the largest number there is."""
        largest = torch.finfo(self.dtype).max
        return self.value().detach().clamp(-largest, largest).to(self.dtype)


class StoredForms:
    """The stored forms of several layers whose floats are trained, and their codes too where `codes` is set.

    A float tensor that layers share is one number to train if all of them are here, and stays as it is otherwise. Where
    `weights` are given, a layer's codes are those nearest to a latent matrix, which begins between its weight and the values
    that its codes stand for; its gradient is that of these values (the straight-through estimator, arXiv 1308.3432). Signs
    that a format lets loose are those of latent numbers of their own, and get the gradients of the signs.
    """

    def __init__(self, trees: Mapping[str, Packed], weights: Mapping[str, Tensor] | None = None) -> None:
        self.trees = dict(trees)
        self.floats = _collect_trained_floats(trees)
        weights = weights or {}
        self.signs = {
            key: sign for name in weights for key, sign in _collect_loose_signs(name, trees[name], weights[name]).items()
        }
        loose = {layer for layer, _ in self.signs}
        matrices = {name: weight for name, weight in weights.items() if name not in loose}
        self.latent = {name: _make_trained_latent(trees[name], weight) for name, weight in matrices.items()}
        self.chosen: dict[str, Packed] = {}

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [trained.step for trained in (*self.floats.values(), *self.signs.values(), *self.latent.values())]

    def tree(self, layer: str, *, rounded: bool, choose: bool = True) -> Packed:
        """A layer's form as it is now: floats in float32 with gradients, or rounded as stored.

        Codes are chosen anew, or without `choose` those of the last time.
        """
        tree = self.fill(layer, self.trees[layer], "", rounded)
        if layer not in self.latent:
            return tree
        target = self.latent[layer].value()
        if choose or layer not in self.chosen:
            self._choose(layer, target)
        tree = replace_codes(tree, self.chosen[layer])
        return tree if rounded else _attach_gradient(tree, target)

    def choose_codes(self) -> None:
        """Choose the codes of all layers anew."""
        for layer, latent in self.latent.items():
            self._choose(layer, latent.value())

    @torch.no_grad()
    def _choose(self, layer: str, target: Tensor) -> None:
        """Choose a layer's codes: those nearest to `target`, with floats as they are stored."""
        inner = find_coded_node(self.fill(layer, self.trees[layer], "", rounded=True))
        self.chosen[layer] = formats.recode_nearest(inner, target)

    def fill(self, layer: str, node: Packed, path: str, rounded: bool) -> Packed:
        """A node and what is below it, with floats as they are now."""
        tensors = dict(node.tensors)
        for name in tensors:
            key = _build_key(layer, path, node, name)
            if key in self.floats:
                tensors[name] = self.floats[key].rounded() if rounded else self.floats[key].value()
            if key in self.signs:
                lean = self.signs[key].value()
                hard = torch.where(lean >= 0, 1.0, -1.0)
                tensors[name] = bitpack.pack(lean.detach() >= 0, 1) if rounded else hard + lean - lean.detach()
        children = tuple(self.fill(layer, child, f"{path}{i}.", rounded) for i, child in enumerate(node.children))
        return replace(node, tensors=tensors, children=children)


def _collect_trained_floats(trees: Mapping[str, Packed]) -> dict[Key, Trained]:
    """Every float tensor of the trees that no layer outside them shares."""
    nodes = [(layer, path, node) for layer, tree in trees.items() for path, node in tree.walk()]
    occurrences: dict[str, int] = {}
    for _, _, node in nodes:
        for shared, _ in node.shared.values():
            occurrences[shared] = occurrences.get(shared, 0) + 1
    trained: dict[Key, Trained] = {}
    for layer, path, node in nodes:
        for name, tensor in node.tensors.items():
            complete = name not in node.shared or node.shared[name][1] == occurrences[node.shared[name][0]]
            key = _build_key(layer, path, node, name)
            if tensor.is_floating_point() and complete and key not in trained:
                # how large an angle is says nothing of how far it has to go
                trained[key] = Trained.from_stored(tensor, 1.0 if node.format == "rotated" and name in ANGLES else None)
    return trained


def _collect_loose_signs(layer: str, tree: Packed, weight: Tensor) -> dict[Key, Trained]:
    """The signs that the form below the tree's transforms lets loose, each as a number that is positive for +1."""
    node, goal, path = strip_transforms(tree, weight)
    leanings = {_build_key(layer, path, node, name): lean for name, lean in find(node).loose(node, goal).items()}
    return {key: Trained(lean, PACE, lean.dtype, nn.Parameter(torch.zeros_like(lean))) for key, lean in leanings.items()}


def _make_trained_latent(tree: Packed, weight: Tensor) -> Trained:
    """The latent matrix of a layer's codes as a number to train."""
    trained = Trained.from_stored(compute_latent(tree, weight))
    return replace(trained, size=trained.size * PATHS) if find(find_coded_node(tree)).paths else trained


def _build_key(layer: str, path: str, node: Packed, name: str) -> Key:
    """What a stored tensor is called here."""
    return ("", node.shared[name][0]) if name in node.shared else (layer, f"{path}{name}")


def find_coded_node(tree: Packed) -> Packed:
    """The node below all transforms, whose codes are in their own basis."""
    while issubclass(find(tree), Transformed):
        (tree,) = tree.children
    return tree


def compute_latent(tree: Packed, weight: Tensor) -> Tensor:
    """As near to `weight`, in the basis of the codes, as its nearest codes are still those of the tree, `[rows, cols]`.

    A weight that hardly chose its code will hardly resist another one. Where no point between the two keeps the codes of a
    row, or of the columns that a code runs down, the row or column is what they stand for.
    """
    tree, weight, _ = strip_transforms(tree, weight)
    values = formats.decode(tree)
    for _ in range(HALVINGS):
        moved = formats.decode(formats.recode_nearest(tree, weight)) != values
        weight = torch.where(moved, (weight + values) / 2, weight)
    for along in (1, 0):
        moved = (formats.decode(formats.recode_nearest(tree, weight)) != values).any(along, keepdim=True)
        weight = torch.where(moved, values, weight)
    return weight


def _replace_coded_node(tree: Packed, inner: Packed) -> Packed:
    """The tree with another node below its transforms."""
    if not issubclass(find(tree), Transformed):
        return inner
    return replace(tree, children=(_replace_coded_node(tree.children[0], inner),))


def replace_codes(tree: Packed, chosen: Packed) -> Packed:
    """The tree with the codes (the integer tensors) of `chosen`, which has the shape of its node below all transforms."""

    def take(node: Packed, other: Packed) -> Packed:
        codes = {name: tensor for name, tensor in other.tensors.items() if not tensor.is_floating_point()}
        children = tuple(take(a, b) for a, b in zip(node.children, other.children, strict=True))
        return replace(node, tensors={**node.tensors, **codes}, children=children)

    return _replace_coded_node(tree, take(find_coded_node(tree), chosen))


def _attach_gradient(tree: Packed, target: Tensor) -> Packed:
    """The tree plus a zero whose gradient is that of the values below its transforms, handed on to `target`."""
    zero = Packed("dense", tree.rows, tree.cols, {"weight": target - target.detach()})
    return _replace_coded_node(tree, Packed("sum", tree.rows, tree.cols, children=(find_coded_node(tree), zero)))
