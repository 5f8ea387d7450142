"""PackedModel: a loaded artifact. It evaluates and generates text like an opened model, with packed layers."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from workbench.artifact.folder_layout import find_model_file
from workbench.bits import BitLedger
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import ModelError
from workbench.kernels.matmul.packed_linear import warm_up
from workbench.kernels.matmul.packed_matrix import count_resident_bytes
from workbench.models import architecture
from workbench.models.language_model import LanguageModel
from workbench.models.layers import describe_unknown_layer
from workbench.quantized import QuantizedLayer, QuantizedModel

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from workbench.models.perplexity import PerplexityResult
    from workbench.models.text import Text


class PackedModel(ShownInCell):
    """A quantized model that runs.

    `quantized` is what was saved (its layers, plan and calibration), `module` is what runs, `file_ledger` itemises
    the file of all tensors over all weights of the model, `fingerprint` is that of the original.
    """

    def __init__(
        self, folder: Path, quantized: QuantizedModel, module: nn.Module, file_ledger: BitLedger, fingerprint: str
    ) -> None:
        self.folder, self.quantized, self.module = folder, quantized, module
        self.file_ledger, self.fingerprint = file_ledger, fingerprint

    def __repr__(self) -> str:
        bits = self.quantized.describe_bits(self.bits_overall)
        size = f"{len(self.quantized.layers)} packed layers, {self.bytes:,} bytes; {bits}"
        return f"<PackedModel {self.source!r}: {size}>"

    def cell_summary(self) -> CellSummary:
        """What its file stores, item by item."""
        answer = f"{self.bytes:,} bytes; {self.quantized.describe_bits(self.bits_overall)}."
        items = self.file_ledger.cell_summary()
        return CellSummary(f"What is stored for {self.source}?", answer, items.headers, items.rows, items.more)

    @property
    def source(self) -> str:
        """What the original model was opened by."""
        return self.quantized.source

    @property
    def ledger(self) -> BitLedger:
        """What the quantized weights cost."""
        return self.quantized.ledger

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight over the quantized layers."""
        return self.quantized.bits_per_weight

    @property
    def nominal_bits(self) -> float:
        """Nominal bits per weight over the quantized layers."""
        return self.quantized.nominal_bits

    @property
    def coverage(self) -> float | None:
        """The share of the model's weights that are quantized, which the figures above count."""
        return self.quantized.coverage

    @property
    def bits_overall(self) -> float:
        """Stored bits per weight over all weights of the model: the whole file."""
        return self.file_ledger.bits_per_weight

    @property
    def bytes(self) -> int:
        """Size of packed.safetensors: packed layers, all other tensors, and the header."""
        return find_model_file(self.folder).stat().st_size

    @property
    def resident_bytes(self) -> int:
        """Bytes that weights take in memory now, decoded copies included; other tensors are held in float32."""
        return count_resident_bytes([self.module])

    def warm_up(self, on_progress: Callable[[float, float], None] = lambda *_: None) -> None:
        """Compile kernels and prepare all layers now; see `matmul.packed_linear.warm_up`."""
        warm_up(self.module, on_progress)

    @property
    def layer_names(self) -> list[str]:
        """Names of the quantized layers."""
        return list(self.quantized.layers)

    def layers(self) -> "pd.DataFrame":
        """One row a quantized layer: name, rows, cols, bits_per_weight, nominal_bits, relative_error, output_error, seconds."""
        return self.quantized.table()

    def layer(self, name: str) -> QuantizedLayer:
        """One quantized layer; an unknown name raises ModelError with the nearest one."""
        if name not in self.quantized.layers:
            raise describe_unknown_layer(name, self.layer_names)
        return self.quantized.layers[name]

    def weight(self, name: str) -> Tensor:
        """The matrix that a layer's stored form decodes to, float32 `[rows, cols]`."""
        return self.layer(name).weight()

    def to_transformers(self) -> "PreTrainedModel":
        """The transformers model that runs here, its layers packed: not a copy, it is `module` itself."""
        return cast("PreTrainedModel", self.module)

    def language_model(self) -> LanguageModel:
        """The model as something that reads and writes text; ModelError for encoders."""
        return self._language_model

    @cached_property
    def _language_model(self) -> LanguageModel:
        if not architecture.is_causal(architecture.read_config(self.folder, packed=True)):
            raise ModelError(f"{self.source!r} is not a causal language model: its layers are packed, but it generates no text.")
        return LanguageModel(self.module, architecture.load_tokenizer(self.folder), self.folder.name)

    def encode(self, text: str) -> Tensor:
        """Token ids `[1, T]`."""
        return self._language_model.encode(text)

    def logits(self, ids: Tensor) -> Tensor:
        """Logits `[1, T, vocabulary]` of token ids `[1, T]`."""
        return self._language_model.logits(ids)

    def generate(self, prompt: str, tokens: int = 100, **settings: Any) -> str:
        """See `LanguageModel.generate`."""
        return self._language_model.generate(prompt, tokens, **settings)

    def stream(self, prompt: str, tokens: int = 100, **settings: Any) -> Iterator[str]:
        """See `LanguageModel.stream`."""
        return self._language_model.stream(prompt, tokens, **settings)

    def perplexity(
        self, text: "Text", tokens: int | None = None, on_progress: Callable[[float, float], None] = lambda *_: None
    ) -> "PerplexityResult":
        """See `models.perplexity.perplexity`."""
        from workbench.models.perplexity import perplexity

        return perplexity(self._language_model, text, tokens, on_progress)
