"""The basis in which a layer's weights are coded: a stored tree without its transforms, and a weight after them."""

from torch import Tensor

from workbench import registry
from workbench.errors import ShapeError
from workbench.kernels.formats.rounding import ROUNDED
from workbench.kernels.formats.transforms import Transformed, strip_transforms
from workbench.kernels.packing.packed import Packed


def extract_coded_basis(packed: Packed, weight: Tensor, path: str = "") -> tuple[Packed, Tensor, str]:
    """The node inside all transforms of `packed`, `weight [rows, cols]` in its basis (W'), and the node's path (see `walk`)."""
    if tuple(weight.shape) != (packed.rows, packed.cols):
        raise ShapeError(f"a weight of shape {list(weight.shape)} does not fit codes of [{packed.rows}, {packed.cols}].")
    return strip_transforms(packed, weight, path)


def is_transformed(packed: Packed) -> bool:
    """Whether the weights were coded in another basis than the model's."""
    node = packed.children[0] if packed.format == ROUNDED else packed  # rounding is of inputs
    return issubclass(registry.find("format", node.format), Transformed)
