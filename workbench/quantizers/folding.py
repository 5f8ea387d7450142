"""Folding learned diagonals into the norms before them: the norm's gains take over the effect of Λ and D± on a layer's input.

x Λ D with x = z γ for a norm's gains γ is z (γ Λ D). Both are then neither stored with the layers nor run. D± folds exactly, Λ
where gains are stored in float32; rounding its product to 16 bits would not be the same function. Behind a nonlinearity and
between v and o they stay online.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import build_ledger
from workbench.models import architecture
from workbench.models.anatomy import read_anatomy
from workbench.quantized import QuantizedLayer, QuantizedModel

if TYPE_CHECKING:
    from workbench.models import ModelHandle

DIAGONAL = ("signs", "gain")  # D± and Λ


def fold(model: "ModelHandle", quantized: QuantizedModel) -> QuantizedModel:
    """The same function with the learned Λ and D± of inputs that come from a norm in its gains (`changed_tensors`).

    `model` is the one that was quantized. A folded layer decodes to the matrix that meets the changed gains. Norms whose readers
    do not all have the same learned diagonal stay as they are. Raises ModelError for models of another shape (see `models.fuse`).
    """
    shape = read_anatomy(architecture.build_split_module(model.config), model.source)
    layers, changed = dict(quantized.layers), dict(quantized.changed_tensors)
    for block in shape.blocks:
        for norm, names in block.readers.items():
            key = f"{norm}.weight"
            gains = changed[key] if key in changed else model.tensor(key)
            folded = _find_common_diagonal(layers, names, gains.dtype)
            if folded:
                changed[key] = (gains.double() * _compute_diagonal(folded, len(gains))).to(gains.dtype)
                layers |= {name: _remove_diagonal(layers[name], folded) for name in names}
    return replace(quantized, layers=layers, changed_tensors=changed)


def _find_common_diagonal(layers: Mapping[str, QuantizedLayer], names: Sequence[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """The parts of the diagonal that all these layers have and that fold into gains of this type."""
    outermost = [layers[name].packed for name in names if name in layers and layers[name].packed.format == "rotated"]
    if len(outermost) < len(names):
        return {}
    first = outermost[0].tensors
    parts = [part for part in DIAGONAL if part in first and (part == "signs" or dtype == torch.float32)]
    return {
        part: first[part]
        for part in parts
        if all(part in packed.tensors and torch.equal(packed.tensors[part], first[part]) for packed in outermost)
    }


def _compute_diagonal(parts: Mapping[str, Tensor], cols: int) -> Tensor:
    """The diagonal `[cols]` of these parts, float64."""
    gain = parts["gain"].double() if "gain" in parts else torch.ones(cols, dtype=torch.float64)
    return gain * (2 * bitpack.unpack(parts["signs"], 1, cols) - 1) if "signs" in parts else gain


def _remove_diagonal(layer: QuantizedLayer, parts: Mapping[str, Tensor]) -> QuantizedLayer:
    """The layer without these parts of its transform, and without the transform where nothing is left of it."""
    packed = layer.packed
    other_tensors = {name: tensor for name, tensor in packed.tensors.items() if name not in parts}
    shared = {name: key for name, key in packed.shared.items() if name in other_tensors}
    inner = (
        replace(packed, tensors=other_tensors, shared=shared)
        if other_tensors or packed.facts.get("hadamard")
        else packed.children[0]
    )
    return replace(layer, packed=inner, ledger=build_ledger(inner, layer.nominal_bits))
