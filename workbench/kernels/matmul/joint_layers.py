"""Packed layers that read the same input, multiplied in one call: queries, keys and values, or both halves of a gated unit."""

from collections.abc import Sequence

from torch import Tensor, nn

from workbench.kernels.kernel_mode import Product
from workbench.kernels.matmul.composed import Shaped
from workbench.kernels.matmul.packed_linear import PackedLinear

JOINT = "_joint_layers"  # the attribute of the first layer


class JointLayers:
    """Some layers with one input `[1, cols]`.

    Args:
        layers: The layers, in the order of the outputs.
        product: What multiplies with all of their rows at once; None leaves each to itself.
    """

    def __init__(self, layers: Sequence[nn.Module], product: Product | None) -> None:
        self.layers, self._product = tuple(layers), product
        self._packed = [layer for layer in layers if isinstance(layer, PackedLinear)]
        self._rows = [layer.out_features for layer in self._packed]
        self._alone = [layer.prepare(1) for layer in self._packed] if product is not None else []

    @property
    def is_one_call(self) -> bool:
        """Whether all layers are multiplied at once."""
        return self._product is not None

    def is_current(self) -> bool:
        """Whether each layer would still run on its part of the product, or on nothing in common."""
        return self._product is not None and all(
            layer.prepare(1) is part for layer, part in zip(self._packed, self._alone, strict=True)
        )

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """The output of each layer, `[1, rows]`; layers that somebody watches run one by one."""
        if self._product is None or any(layer._forward_hooks or layer._forward_pre_hooks for layer in self.layers):
            return [layer(x) for layer in self.layers]
        outputs = self._product(x).split(self._rows, 1)
        return [y if layer.bias is None else y + layer.bias for y, layer in zip(outputs, self._packed, strict=True)]


def join_layers(layers: Sequence[nn.Module]) -> JointLayers:
    """Layers that are packed in the same form share their memory from now on, and are multiplied at once; others stay apart.

    Those that were joined before stay so: the first of them remembers it.
    """
    joint = vars(layers[0]).get(JOINT)
    if joint is None or joint.layers != tuple(layers) or not joint.is_current():
        joint = JointLayers(layers, _join_products(layers))
        vars(layers[0])[JOINT] = joint
    return joint


def _join_products(layers: Sequence[nn.Module]) -> Product | None:
    """The product of all layers, each of which then reads its part of it."""
    packed = [layer for layer in layers if type(layer) is PackedLinear and "forward" not in vars(layer)]
    if len(packed) < len(layers):
        return None
    shaped = [layer.prepare(1) for layer in packed]
    inner = [one.product for one in shaped if isinstance(one, Shaped) and one.backend == "numba"]
    if len(inner) < len(layers):
        return None
    from workbench.kernels.matmul.numba.joint_signs import join_signs

    if (joined := join_signs(inner)) is None:
        return None
    joint, alone = joined
    for layer, part in zip(packed, alone, strict=True):
        layer.replace_product("numba", Shaped(part, layer.out_features, layer.in_features, "numba"))
    return joint
