"""What happens to a layer's input when it runs; importing the package registers all of them."""

from workbench.quantizers.activations.keep import KeepActivations
from workbench.quantizers.activations.per_token import RoundPerToken

__all__ = ["KeepActivations", "RoundPerToken"]
