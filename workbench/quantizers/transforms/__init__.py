"""Changes of basis of a layer's input; importing the package registers all of them."""

from workbench.quantizers.transforms.column_scale import ColumnScale
from workbench.quantizers.transforms.hadamard import RandomizedHadamard
from workbench.quantizers.transforms.identity import Identity
from workbench.quantizers.transforms.learned import Learned
from workbench.quantizers.transforms.permutation import Permutation

__all__ = ["ColumnScale", "Identity", "Learned", "Permutation", "RandomizedHadamard"]
