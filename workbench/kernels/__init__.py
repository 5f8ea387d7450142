"""How quantized matrices are stored, what they decode to, and the backends that multiply with them.

Importing the package registers every format, since a tree without its formats can be neither decoded nor counted.
"""

from workbench.kernels import reference

__all__ = ["reference"]
