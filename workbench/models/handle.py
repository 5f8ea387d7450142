"""ModelHandle, the result of `open_model`: a table of layers, one weight at a time, and a running model on demand."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import ModelError, ShapeError
from workbench.exchange.reading.integer_codes import Codes, arrange_rows
from workbench.memory import spill
from workbench.models import architecture
from workbench.models.checkpoint import check_finite
from workbench.models.context import find_context_length
from workbench.models.forward import read_tokens, translate_run_errors
from workbench.models.language_model import LanguageModel, encode
from workbench.models.layers import Layer, describe_unknown_layer, find_block_name, list_rows, select_layers, tabulate_layers
from workbench.models.lora import ADAPTED
from workbench.models.streaming import needs_streaming
from workbench.models.tensor_map import TensorMap

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from workbench.models.lora import Adapter
    from workbench.models.perplexity import PerplexityResult
    from workbench.models.text import Text


class ModelHandle(ShownInCell):
    """An opened model. Reading layers and weights loads nothing else; the whole model is loaded on first use.

    `source` is what it was opened by, `folder` where its files lie, `config` transformers' configuration. `optional` are layers
    that are quantized only where somebody names them. `lock` is held while layers are swapped and during each forward pass.
    `in_memory` says that there are no weight files to open elsewhere, `is_rewritten` that it was fused (see `fused`).
    """

    in_memory = is_rewritten = False

    def __init__(
        self,
        source: str,
        folder: Path,
        config: "PretrainedConfig",
        tensors: TensorMap,
        layers: dict[str, Layer],
        optional: dict[str, Layer],
    ) -> None:
        self.source, self.folder, self.config = source, folder, config
        self._tensors, self._layers, self._optional = tensors, layers, optional
        self.replays: bool | None = None  # whether its blocks can be run on from kept states; `Boundaries` tries it once
        self.lock = RLock()
        self._suffix = ""  # the adapter that is merged into it, in its name

    def __repr__(self) -> str:
        parameters = sum(layer.rows * layer.cols for layer in self._layers.values())
        return f"<ModelHandle {self.source!r}: {len(self._layers)} layers, {parameters:,} weights in them>"

    def cell_summary(self) -> CellSummary:
        """How many layers it has, and of which shapes."""
        layers = self._layers.values()
        weights = sum(layer.rows * layer.cols for layer in layers)
        answer = f"{len(layers)} layers in {len(self.block_names)} blocks, {weights:,} weights in them."
        kinds = Counter((layer.matrix, f"{layer.rows:,} × {layer.cols:,}", layer.dtype, f"{layer.bits:.2f}") for layer in layers)
        rows = [(*kind, count) for kind, count in kinds.items()]
        columns = ("matrix", "shape", "stored as", "bits per weight", "layers")
        return CellSummary.of_rows(f"What is in {self.source}?", answer, columns, rows)

    @property
    def location(self) -> str:
        """What another process opens this model by."""
        return str(self.folder) + self._suffix

    def merge(self, adapter: "Adapter") -> None:
        """Read every weight with its part of a LoRA adapter added, from now on; before anything was read."""
        self._tensors.adapter, self._suffix = adapter, f"{ADAPTED}{adapter.folder.absolute()}"
        self.source += self._suffix

    def code(self) -> str:
        """Python that opens this model again, after `import workbench as wb`."""
        return f"wb.open_model({self.source!r})"

    @property
    def layer_names(self) -> list[str]:
        """Names of all linear layers inside the transformer blocks, in the model's order."""
        return list(self._layers)

    @property
    def optional_names(self) -> list[str]:
        """Names of routers, output head and token embedding, which patterns match only where they spell their last part."""
        return list(self._optional)

    @property
    def router_names(self) -> list[str]:
        """Names of the routers of mixtures of experts, in the model's order."""
        return [name for name, layer in self._optional.items() if layer.role == "router"]

    @property
    def head_name(self) -> str | None:
        """The output head among the optional layers."""
        return next((name for name, layer in self._optional.items() if layer.role == "head"), None)

    @property
    def embedding_name(self) -> str | None:
        """The token embedding among the optional layers."""
        return next((name for name, layer in self._optional.items() if layer.role == "embedding"), None)

    @property
    def tied_head(self) -> str | None:
        """The output head where it multiplies with the embedding's own matrix: whoever quantizes the embedding quantizes both."""
        head = self.head_name
        return head if head is not None and self.embedding_name is not None and self.is_tied(head) else None

    def select(self, patterns: str) -> list[str]:
        """The layers that one of these patterns, separated by commas, matches, optional ones last; see `optional_names`."""
        return select_layers(self._layers, self._optional, patterns)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any byte of the weights, of config.json or of the tokenizer's files."""
        return self._tensors.fingerprint

    def layers(self, *, optional: bool = False) -> "pd.DataFrame":
        """One row a layer: name, block, matrix, rows, cols, dtype, stored_bits (a weight), parameters; `optional` ones too."""
        return tabulate_layers([*self._layers.values(), *(self._optional.values() if optional else ())])

    def layer_rows(self) -> list[dict[str, Any]]:
        """The rows of `layers` as plain values."""
        return list_rows(self._layers.values())

    def layer(self, name: str) -> Layer:
        """What is known about one layer; an unknown name raises ModelError with the nearest one."""
        layer = self._layers.get(name) or self._optional.get(name)
        if layer is None:
            raise describe_unknown_layer(name, self.layer_names, self._optional)
        return layer

    def weight(self, name: str) -> Tensor:
        """One layer's weight `[out, in]` in its stored dtype, read from its file; ModelError when it is not finite."""
        layer = self.layer(name)
        stored = self.tensor(layer.tensor)
        file = self._tensors.file(layer.tensor if self.holds(layer.tensor) else self._twins[layer.tensor])
        check_finite(f"layer {name!r} of {file}", stored)
        return layer.orient(stored)

    def codes(self, name: str) -> Codes | str:
        """A layer's weight `[out, in]` as the codes that another program chose, or the reason why there are none stored here."""
        layer = self.layer(name)
        if not self.holds(layer.tensor):
            return "it is tied to another tensor"
        codes = self._tensors.codes(layer.tensor)
        return codes if isinstance(codes, str) else arrange_rows(codes, layer.orient)

    def bias(self, name: str) -> Tensor | None:
        """One layer's bias `[out]` in its stored dtype, or None."""
        tensor = f"{self.layer(name).name}.bias"
        return self._tensors.read(tensor) if self._tensors.holds(tensor) else None

    def other_tensors(self, layers: Collection[str]) -> dict[str, Tensor]:
        """Every tensor that the module needs beside the weights of `layers`, by the module's name, in its stored dtype.

        Of tied tensors only one is given, unless the checkpoint holds both and they differ. Raises ModelError where the
        checkpoint lacks one: nothing is left out in silence.
        """
        if not self.streams:
            return {name: self.tensor(name) for name in self.other_names(layers)}
        return {name: self._keep_on_disk(name, self.tensor(name)) for name in self.other_names(layers)}

    def _keep_on_disk(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor that is not in memory: as it lies in its file, or in one of its own where it was made from others."""
        return spill(tensor) if self._tensors.converts(name) else tensor

    def other_names(self, layers: Collection[str]) -> list[str]:
        """The names of `other_tensors`; only tied tensors that are stored twice are read for it."""
        architecture.check_complete(self._tensors)
        return self._stored_names({f"{name}.weight" for name in layers})

    def _stored_names(self, replaced: Collection[str] = ()) -> list[str]:
        """The tensors that are stored, tied ones once, without those that are replaced."""
        names = [name for name in self._tensors.names if self._tensors.holds(name) and name not in replaced]
        for tied, source in self._tensors.tied.items():
            if tied in names and (source in names or source in replaced) and self._tensors.equal(tied, source):
                names.remove(tied)
            if tied in replaced and not self._tensors.holds(source):
                names.append(source)  # stored only under the name of its twin, which is replaced
        return names

    def is_tied(self, name: str) -> bool:
        """Whether a layer has no weight of its own, but another tensor's: an output head that is tied to the embedding."""
        weight = self.layer(name).tensor
        source = self._tensors.tied.get(weight)
        return source is not None and (weight not in self._stored_names() or not self._tensors.holds(source))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of the model by the module's name, tied ones once: what `QuantizedModel.coverage` counts."""
        twins = {tied: source for tied, source in self._tensors.tied.items() if not self._tensors.holds(source)}
        return {twins.get(name, name): self._tensors.shape(name) for name in self._stored_names()}

    def holds(self, name: str) -> bool:
        """Whether the checkpoint has a tensor for this name of the module."""
        return self._tensors.holds(name)

    def tensor(self, name: str) -> Tensor:
        """Any tensor by the module's name, in its stored dtype; one that is stored only as another's twin is read from there."""
        if self.holds(name):
            return self._tensors.read(name)
        tied = self.tied_tensor(name)
        if tied is None:
            raise ModelError(f"{self.source!r} has no tensor {name!r}.")
        return tied

    @property
    def _twins(self) -> dict[str, str]:
        """The name of the tensor that each tied one is tied to, either way."""
        return {source: tied for tied, source in self._tensors.tied.items()} | self._tensors.tied

    def tied_tensor(self, name: str) -> Tensor | None:
        """The tensor that the module ties `name` to (an output head to the embedding, or back), in its stored dtype, or None."""
        source = self._twins.get(name)
        return self._tensors.read(source) if source is not None and self._tensors.holds(source) else None

    @property
    def module(self) -> nn.Module:
        """The whole model, float32, eval, without gradients: loaded on first use, or read as it runs where it `streams`."""
        with self.lock:
            return self._module

    @cached_property
    def _module(self) -> nn.Module:
        if self.streams:
            module = architecture.load_streamed(self.config, self.other_names(()), self.block_names, self._read_stored)
        else:
            module = self._load_module()
        return architecture.set_generation(module, self.folder)

    def _load_module(self) -> nn.Module:
        """The module with all weights in memory."""
        return architecture.load_module(self.config, self._tensors)

    def _load_plain(self) -> nn.Module:
        """The module as transformers builds it, its experts in stacks, with all weights in memory."""
        return architecture.load_module(self.config, self._tensors, split=False)

    def to_transformers(self) -> "PreTrainedModel":
        """The model as plain transformers has it, for anything that is built on it.

        Returns:
            A model in float32 with all its weights in memory, which are its own: to train or edit it does not change this handle.

        Raises:
            ModelError: Where a weight is missing or not finite.
        """
        module = architecture.set_generation(self._load_plain(), self.folder).requires_grad_(requires_grad=True)
        return cast("PreTrainedModel", module)

    def _read_stored(self, name: str) -> Tensor:
        """A tensor as the module holds it; ModelError when it is not finite."""
        tensor = self.tensor(name)
        check_finite(f"weight {name!r}", tensor)
        return tensor

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weight files, or of the tensors of a model that was opened from memory."""
        return self._tensors.checkpoint.stored_bytes

    @property
    def decoded_bytes(self) -> int:
        """The same, with what another program quantized counted as the values that it is decoded to."""
        return self._tensors.checkpoint.decoded_bytes

    def count_decoded_bytes(self, name: str) -> float:
        """Bytes of one layer's weight as it is read."""
        tensor = self.layer(name).tensor
        return self._tensors.decoded_bytes(tensor if self.holds(tensor) else self._twins[tensor])

    @cached_property
    def streams(self) -> bool:
        """Whether the module reads each block's weights as it comes to it instead of holding all of them in memory."""
        return needs_streaming(self.decoded_bytes)

    def run(self, ids: Tensor) -> Any:
        """The module's output for token ids `[1, T]`, without a cache; ModelError where its family needs more than text."""
        with self.lock, translate_run_errors(self.source):
            return read_tokens(self.module, ids)

    def run_blocks(
        self, windows: Iterable[Tensor], last: str | None = None
    ) -> Iterator[tuple[dict[str, nn.Module], Callable[[int], None]]]:
        """Run windows of token ids through the model with one block's weights in memory; see `BlockRow.run_through`."""
        from workbench.models.blocks import BlockRow

        return BlockRow(self).run_through(windows, last)

    @cached_property
    def block_names(self) -> list[str]:
        """The module names of the blocks that hold layers, in the model's order."""
        return list(dict.fromkeys(map(find_block_name, self._layers)))

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The model's tokenizer."""
        return architecture.load_tokenizer(self.folder)

    @property
    def context(self) -> int:
        """How many tokens the model reads at most."""
        return self._context

    @cached_property
    def _context(self) -> int:
        return find_context_length(self._tensors.module, self.config)

    def encode(self, text: str) -> Tensor:
        """Token ids `[1, T]`."""
        return encode(self.tokenizer, text, self.config)

    @property
    def writes_text(self) -> bool:
        """Whether this is a causal language model; encoders are not."""
        return architecture.is_causal(self.config)

    def language_model(self) -> LanguageModel:
        """The model as something that reads and writes text; ModelError for encoders."""
        if not self.writes_text:
            what = ", ".join(self.config.architectures or ["unnamed"])
            raise ModelError(
                f"{self.source!r} ({what}) is not a causal language model: its layers can be quantized, but it generates no text."
            )
        with self.lock:
            return self._language_model

    @cached_property
    def _language_model(self) -> LanguageModel:
        return LanguageModel(self._module, self.tokenizer, self.source, lock=self.lock)

    def generate(self, prompt: str, **settings: Any) -> str:
        """See `LanguageModel.generate`."""
        return self.language_model().generate(prompt, **settings)

    def stream(self, prompt: str, **settings: Any) -> Iterator[str]:
        """See `LanguageModel.stream`."""
        return self.language_model().stream(prompt, **settings)

    def perplexity(
        self, text: "Text", tokens: int | None = None, on_progress: Callable[[float, float], None] = lambda *_: None
    ) -> "PerplexityResult":
        """See `perplexity.perplexity`."""
        from workbench.models.perplexity import perplexity

        return perplexity(self.language_model(), text, tokens, on_progress)

    @contextmanager
    def swapped(self, replacements: Mapping[str, Tensor | nn.Module]) -> Iterator["ModelHandle"]:
        """Run the model with some layers replaced; on leaving, also by an exception, the very same objects are back.

        A tensor `[out, in]` replaces the layer's weight (its bias stays), a module replaces the layer and maps
        `[..., in]` to `[..., out]`; a parameter beside the layers' weights (a norm's gains, a bias) is replaced by its own
        name. Other threads that use the model wait until all is back. Raises ModelError for an unknown name and ShapeError for
        a wrong shape, before anything is replaced.
        """
        with self.lock, ExitStack() as undo:
            module = self.module
            for name, new in replacements.items():
                self._check_replacement(module, name, new)
            for name, new in replacements.items():
                self._replace(module, name, new, undo)
                head = self.tied_head if name == self.embedding_name and isinstance(new, Tensor) else None
                if head is not None and head not in replacements:
                    self._replace(module, head, new, undo)
            yield self

    def _check_replacement(self, module: nn.Module, name: str, new: Tensor | nn.Module) -> None:
        """Raise where the name is nobody's or a tensor of this shape has no place there."""
        is_layer = name in self._layers or name in self._optional
        parameter = None if is_layer else dict(module.named_parameters(remove_duplicate=False)).get(name)
        shape = [self.layer(name).rows, self.layer(name).cols] if parameter is None else list(parameter.shape)
        if isinstance(new, Tensor) and list(new.shape) != shape:
            what, kind = ("layer", "weight") if parameter is None else ("parameter", "tensor")
            raise ShapeError(f"{what} {name!r} is {shape}; a {kind} of {list(new.shape)} cannot replace it.")

    def _replace(self, module: nn.Module, name: str, new: Tensor | nn.Module, undo: ExitStack) -> None:
        """Put `new` in the place of a layer, its weight, or another parameter, and push the step back onto `undo`."""
        layer = self._layers.get(name) or self._optional.get(name)
        parameter_name = f"{name}.weight" if layer is not None and isinstance(new, Tensor) else name
        if isinstance(new, Tensor):
            plain = new.detach().to(torch.float32)
            new = nn.Parameter(plain if layer is None else layer.orient(plain), requires_grad=False)
        path, _, child = parameter_name.rpartition(".")
        owner = module.get_submodule(path)
        undo.callback(setattr, owner, child, getattr(owner, child))
        setattr(owner, child, new)
