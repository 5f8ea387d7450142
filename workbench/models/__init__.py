"""Language models: open one, list its linear layers, read or replace a weight, run it. Only this folder imports transformers.

transformers takes seconds to import, so it is imported inside functions (see `architecture`), never at the top of a file.
"""

from workbench.models.fused import FusedModel as FusedModel
from workbench.models.fused import fuse as fuse
from workbench.models.handle import ModelHandle as ModelHandle
from workbench.models.opening import open_model as open_model
