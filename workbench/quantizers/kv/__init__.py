"""Key-value caches: schemes that store a block of tokens' keys and values with the coders that weights use.

Importing the package registers every scheme under the kind "kv".
"""

from workbench.quantizers.kv import plain, rotated, vidkv, zipcache
from workbench.quantizers.kv.scheme import Scheme, list_schemes, make_scheme, parse

__all__ = ["Scheme", "list_schemes", "make_scheme", "parse", "plain", "rotated", "vidkv", "zipcache"]
