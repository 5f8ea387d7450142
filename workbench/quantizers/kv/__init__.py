"""Key-value caches: schemes that store a block of tokens' keys and values with the coders that weights use.

Importing the package registers every scheme under the kind "kv".
"""

from workbench.quantizers.kv import plain, rotated, vidkv, zipcache
from workbench.quantizers.kv.scheme import Scheme, names, parse, scheme

__all__ = ["Scheme", "names", "parse", "plain", "rotated", "scheme", "vidkv", "zipcache"]
