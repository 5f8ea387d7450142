"""An importance matrix of llama.cpp as calibration: the diagonal of each layer's second moment, without correlations."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.calibration import CalibrationStats, Source
from workbench.errors import ModelError
from workbench.exchange.reading.imatrix import InputSquares, read_imatrix_file
from workbench.input_sums import LayerStats
from workbench.models.gguf_names import map_layer_names

if TYPE_CHECKING:
    from workbench.models import ModelHandle


class ImportanceStats(CalibrationStats):
    """Statistics of which only the mean squares are known: moments are diagonal, `mean` and `absmax` NaN.

    A moment is made when it is asked for: those of all layers together would fill the memory.
    """

    diagonal = True

    def __init__(self, squares: Mapping[str, InputSquares], source: Source) -> None:
        super().__init__({}, [source])
        self._squares = dict(squares)

    def __getitem__(self, layer: str) -> LayerStats:
        entry = self._squares[layer]
        unknown = torch.full_like(entry.mean, torch.nan)
        return LayerStats(torch.diag(entry.mean), unknown, unknown, entry.tokens)

    def __iter__(self) -> Iterator[str]:
        return iter(self._squares)

    def __len__(self) -> int:
        return len(self._squares)

    @property
    def sparse(self) -> dict[str, int]:
        """None: a diagonal is well known after few tokens."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Plain facts for a saved artifact, with the sentence that correlations are not known."""
        return super().facts() | {"diagonal": True}


def read_imatrix(model: "ModelHandle", path: str | Path) -> ImportanceStats:
    """Read an importance matrix of llama.cpp as the calibration of a model.

    Args:
        model: A model from `wb.open_model`, of which `llama-imatrix` read the same weights.
        path: The file, in the old binary form (`.dat`) or in GGUF.

    Returns:
        Statistics for `wb.quantize_model(model, recipe, stats)`, for recipes that weigh inputs but need no correlations of them.

    Raises:
        ModelError: Where the file is damaged, or does not fit the layers of the model.

    Example:
        >>> import workbench as wb
        >>> try:
        ...     wb.read_imatrix(wb.open_model("builtin"), "nowhere.dat")
        ... except wb.errors.ModelError as error:
        ...     print(error)
        'nowhere.dat' cannot be read: No such file or directory.
    """
    path = Path(path).expanduser()
    squares = read_imatrix_file(path)
    names = map_layer_names(model)
    chosen = {name: squares[stored] for name, stored in names.items() if stored in squares}
    if not chosen:
        raise ModelError(
            f"{path} names none of the {len(model.layer_names)} layers of {model.source!r}, but {next(iter(squares))!r} and "
            f"{len(squares) - 1} others; it is of another model."
        )
    for name, entry in chosen.items():
        if len(entry.mean) != model.layer(name).cols:
            sizes = f"{len(entry.mean):,} inputs for {name!r}, which has {model.layer(name).cols:,}"
            raise ModelError(f"{path} has {sizes}; it is of another model.")
    tokens = max(entry.tokens for entry in chosen.values())
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return ImportanceStats(chosen, Source(f"importance matrix {path.name}", fingerprint, tokens, 0))
