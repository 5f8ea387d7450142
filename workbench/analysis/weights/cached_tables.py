"""Tables for figures of one matrix: each is computed once and cached on disk by the content of the matrix."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workbench.analysis.weights.weight_sketch import Histogram, Levels, compute_histogram, find_layer_levels
from workbench.kernels.packing.packed import Packed
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1  # another one where a table comes to hold other numbers
LIGHT = 1 << 20  # weights up to which tables are worked out anew in milliseconds, and not kept


class Portrait:
    """One matrix `[rows, cols]` and the tables about it.

    `content` is what the matrix is made of, for `workbench.store.compute_key`; `read` gives the matrix itself when something
    has to be computed from it.
    """

    def __init__(
        self, shape: tuple[int, int], content: Callable[[], Sequence[Any]], read: Callable[[], Tensor], store: Store | None = None
    ) -> None:
        self.shape, self._content, self._read = shape, content, read
        self._store = store or Store()

    @cached_property
    def content_key(self) -> str:
        """The content of the matrix, as 64 hex digits."""
        return compute_key("portrait", VERSION, *self._content())

    @cached_property
    def weight(self) -> Tensor:
        """The matrix, read when it is first asked for; float32 or as it is stored."""
        return self._read()

    @property
    def is_light(self) -> bool:
        """Whether its tables take milliseconds."""
        return self.shape[0] * self.shape[1] <= LIGHT

    def has(self, name: str, *others: str) -> bool:
        """Whether a table is at hand."""
        return not self.is_light and self._store.get(compute_key(self.content_key, name, *others)) is not None

    def table(self, name: str, find: Callable[[Tensor], "pd.DataFrame"], *others: str) -> "pd.DataFrame":
        """The table of numbers `find(weight)`, kept under `name` and what else it depends on (another matrix's key)."""
        import pandas as pd

        if self.is_light:
            return find(self.weight)
        entry_key = compute_key(self.content_key, name, *others)
        if (entry := self._store.get(entry_key)) is None:
            table = find(self.weight)
            columns = {str(column): torch.from_numpy(table[column].to_numpy(copy=True)) for column in table}
            self._store.put(
                entry_key, columns, {"columns": list(columns)}, kind="table", what=f"{name} of a matrix of {list(self.shape)}"
            )
            return table
        return pd.DataFrame({column: entry.tensors[column].numpy() for column in entry.facts["columns"]})


def list_packed_content(packed: Packed) -> list[Any]:
    """All that is stored of a matrix, for a key: formats, sizes, facts and tensors of the tree."""
    content: list[Any] = []
    for path, node in packed.walk():
        facts: Mapping[str, Any] = dict(node.facts)
        content += [path, node.format, node.rows, node.cols, facts]
        content += [part for name, tensor in sorted(node.tensors.items()) for part in (name, tensor)]
    return content


def load_histogram(portrait: Portrait, limit: float) -> Histogram:
    """The histogram of a matrix between −`limit` and `limit`."""
    import pandas as pd

    table = portrait.table("histogram", lambda w: pd.DataFrame({"counts": compute_histogram(w, limit=limit).counts}), repr(limit))
    counts = table["counts"].to_numpy()
    return Histogram(counts, -limit, limit, portrait.shape[0] * portrait.shape[1] - int(counts.sum()))


def load_levels(portrait: Portrait, packed: Packed) -> Levels | None:
    """The typical levels of a stored matrix, as `weight_sketch.layer_levels` finds them; None where there are none to draw."""
    import pandas as pd

    def find(_: Tensor) -> pd.DataFrame:
        found_levels = find_layer_levels(packed)
        none = Levels(np.empty(0), np.empty(0), np.empty(0), groups=0)
        return pd.DataFrame(vars(found_levels or none))

    table = portrait.table("levels", find)
    if table.empty:
        return None
    values, low, high = (table[name].to_numpy() for name in ("values", "low", "high"))
    return Levels(values, low, high, int(table["groups"].iloc[0]))
