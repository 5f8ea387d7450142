"""The basis in which a layer's weights are coded: a stored tree without its transforms, and a weight after them."""

from torch import Tensor

from workbench import registry
from workbench.errors import ShapeError
from workbench.kernels.formats.rounding import ROUNDED
from workbench.kernels.formats.transforms import Transformed, strip_transforms
from workbench.kernels.packing.packed import Packed


def extract_coded_basis(packed: Packed, weight: Tensor, path: str = "") -> tuple[Packed, Tensor, str]:
    """Take a stored matrix and its original weight to the basis in which the weights were coded, behind all transforms.

    Args:
        packed: A stored matrix, the `packed` of what `wb.quantize` gave.
        weight: The original weight `[rows, cols]`.
        path: The path of `packed` in a larger tree (see `Packed.walk`).

    Returns:
        The node inside all transforms, the weight `[rows, cols]` in its basis, and the node's path.

    Raises:
        ShapeError: For a weight of another shape.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.mlp.down_proj"
        >>> recipe = wb.recipe("rtn", bits=4).replace(transform=wb.part("transform", "hadamard"))
        >>> packed, weight = wb.quantize(model, layer, recipe).packed, model.weight(layer).float()
        >>> node, rotated, _ = wb.measures.coded_basis(packed, weight)
        >>> packed.format, node.format
        ('hadamard', 'uniform')
        >>> abs(rotated.norm() / weight.norm() - 1).item() < 1e-5  # a rotation keeps lengths
        True
    """
    if tuple(weight.shape) != (packed.rows, packed.cols):
        raise ShapeError(f"a weight of shape {list(weight.shape)} does not fit codes of [{packed.rows}, {packed.cols}].")
    return strip_transforms(packed, weight, path)


def is_transformed(packed: Packed) -> bool:
    """Whether the weights were coded in another basis than the model's."""
    node = packed.children[0] if packed.format == ROUNDED else packed  # rounding is of inputs
    return issubclass(registry.find("format", node.format), Transformed)
