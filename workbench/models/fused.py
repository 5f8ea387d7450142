"""Fusing a model: rotations of its residual stream and heads are multiplied into the weights, so that none run online.

With R orthogonal and an RMSNorm without gains, rms(x R) = rms(x): a stream turned by R runs through the whole model if every
matrix that reads it is turned back on its input side, W R, and every one that writes it is turned on its output side, Rᵀ W.
The layout is that of QuaRot (arXiv 2404.00456): random Hadamard matrices for the stream and for each head between v and o; the
input of down_proj, behind a nonlinearity, is out of reach. Here they have any width (see `formats.transforms`).
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.kernels.formats.transforms import hadamard
from workbench.memory import spill
from workbench.models import architecture
from workbench.models.anatomy import Anatomy, read_anatomy
from workbench.models.handle import ModelHandle
from workbench.seeds import check_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Map = Callable[[Tensor], Tensor]  # acts on the last dimension, row by row
NUMBERS_AT_ONCE = 1 << 22  # numbers worked on at a time, in float64


@dataclass(frozen=True)
class Rewrite:
    """What happens to one tensor: `inputs` act on its columns, then `outputs` on its rows (on all of a vector)."""

    inputs: tuple[Map, ...] = ()
    outputs: tuple[Map, ...] = ()

    def __call__(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The rewritten tensor in `dtype`; arithmetic is in float64, a piece at a time."""
        if tensor.ndim == 1:
            return _apply_maps(tensor[None], self.inputs + self.outputs, dtype)[0]
        tensor = _apply_maps(tensor, self.inputs, dtype) if self.inputs else tensor
        return _apply_maps(tensor.mT, self.outputs, dtype).mT.contiguous() if self.outputs else tensor.to(dtype)


def _apply_maps(rows: Tensor, maps: tuple[Map, ...], dtype: torch.dtype) -> Tensor:
    """All maps, one after the other, on some rows at a time."""
    out = torch.empty(rows.shape, dtype=dtype)
    size = max(NUMBERS_AT_ONCE // rows.shape[-1], 1)
    for start in range(0, len(rows), size):
        piece = rows[start : start + size].double()
        for linear_map in maps:
            piece = linear_map(piece)
        out[start : start + size] = piece
    return out


class FusedModel(ModelHandle):
    """A model that computes what its `base` computes, from other weights; all else is as for the base.

    `facts` say how it was fused: seed, residual, and `online`, the matrices whose inputs were not rotated. `weight` gives
    float32, since a rotated weight is on no narrower grid; other tensors keep the stored type, in which they will be saved.
    """

    is_rewritten = True

    def __init__(self, base: ModelHandle, rewrites: Mapping[str, Rewrite], facts: Mapping[str, Any]) -> None:
        super().__init__(base.source, base.folder, base.config, base._tensors, base._layers, base._optional)
        self.base, self.facts, self.in_memory = base, dict(facts), base.in_memory
        self._rewrites = dict(rewrites)

    def __repr__(self) -> str:
        apart = f"; the output head is stored separately from the embedding, {self.untied_bytes:,} bytes more"
        return f"<FusedModel of {self.base!r}{apart if self.untied_bytes else ''}>"

    def code(self) -> str:
        """Python that makes this model again."""
        return f"wb.fuse({self.base.code()}, seed={self.facts['seed']}, residual={self.facts['residual']})"

    @property
    def fingerprint(self) -> str:
        """That of the base with how it was fused."""
        return hashlib.sha256(f"{self.base.fingerprint} {sorted(self.facts.items())}".encode()).hexdigest()[:16]

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base's."""
        return self.base.tokenizer

    def weight(self, name: str) -> Tensor:
        """One layer's rewritten weight `[out, in]`, float32."""
        return self.tensor(f"{name}.weight", torch.float32)

    def bias(self, name: str) -> Tensor | None:
        """One layer's rewritten bias `[out]` in its stored dtype, or None."""
        stored = self.base.bias(name)
        return None if stored is None else self.rewritten(f"{name}.bias", stored)

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Any tensor by the module's name, a layer's weight too, rewritten; in its stored dtype by default."""
        layer = name.removesuffix(".weight")
        stored = self.base.weight(layer) if layer in self._layers else self.base.tensor(name)
        return self.rewritten(name, stored, dtype)

    def rewritten(self, name: str, stored: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """What becomes of a stored tensor, in its own dtype by default."""
        rewrite = self._rewrites.get(name)
        return stored.to(dtype or stored.dtype) if rewrite is None else rewrite(stored, dtype or stored.dtype)

    def _stored_names(self, replaced: Collection[str] = ()) -> list[str]:
        """Those of the base; a head that was tied to the embedding and no longer equals it is there too."""
        names = self.base._stored_names(replaced)
        return names + sorted(self._rewrites.keys() - set(names) - set(replaced))

    def _keep_on_disk(self, name: str, tensor: Tensor) -> Tensor:
        return spill(tensor) if name in self._rewrites else super()._keep_on_disk(name, tensor)

    def changed_tensors(self, layers: Collection[str]) -> dict[str, Tensor]:
        """Those of `other_tensors` that are not the base's."""
        return {name: tensor for name, tensor in self.other_tensors(layers).items() if name in self._rewrites}

    @cached_property
    def untied_bytes(self) -> int:
        """What the model takes more than its base: bytes of a head that was tied to the embedding."""
        module: Any = architecture.build_split_module(self.config)
        apart = [name for name in module.all_tied_weights_keys if name in self._rewrites]
        return sum(tensor.nbytes for tensor in map(self.tensor, apart))

    def _load_module(self) -> nn.Module:
        module = architecture.build_split_module(self.config)
        architecture.fill(module, ((name, self._read_stored(name)) for name in self.other_names(())))
        return module

    def _load_plain(self) -> nn.Module:
        return self._load_module()  # a fused model has no experts

    def _read_stored(self, name: str) -> Tensor:
        """A tensor as the module holds it, a layer's weight in float32."""
        layer = self._layers.get(name.removesuffix(".weight"))
        return self.tensor(name) if layer is None else layer.orient(self.weight(layer.name))


def fuse(model: ModelHandle, *, seed: int = 0, residual: bool = True) -> FusedModel:
    """Rotate a model's weights so that it computes the same function at no extra cost, with fewer outliers to quantize.

    Rotated are the residual stream (inputs of q, k, v, gate, up; outputs of o, down) and each head between v and o. The gains
    of the norms go into the layers that follow; with tied embeddings the output head therefore becomes a matrix of its own,
    which costs bytes (`untied_bytes`).

    Args:
        model: A model from `wb.open_model`.
        seed: Draws the signs of the Hadamard matrices.
        residual: Whether the residual stream is rotated; without it stream, norms and embeddings stay as they are.

    Returns:
        The fused model, which is used as any other.

    Raises:
        ModelError: For models of another shape (LayerNorm, norms behind the layers, experts).

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> fused = wb.fuse(model)
        >>> fused.untied_bytes
        262144
        >>> wb.compare(model, fused, wb.text("evaluation"), tokens=64).kl < 1e-6
        True
    """
    check_seed(seed, ModelError)
    shape = read_anatomy(architecture.build_split_module(model.config), model.source)
    rewrites: dict[str, Rewrite] = {}
    online = ["down_proj"]
    if residual:
        rewrites = _build_stream_rewrites(model, shape, seed)
    else:
        online += ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]
    for index, block in enumerate(shape.blocks):
        turn = partial(rotate_heads, signs=draw_signs(block.head_dim, seed + 1 + index))
        for name in ("self_attn.v_proj.weight", "self_attn.v_proj.bias"):
            before = rewrites.get(block.part(name), Rewrite())
            rewrites[block.part(name)] = Rewrite(before.inputs, (*before.outputs, turn))
        after = rewrites.get(block.part("self_attn.o_proj.weight"), Rewrite())
        rewrites[block.part("self_attn.o_proj.weight")] = Rewrite((turn, *after.inputs), after.outputs)
    present = {name: rewrite for name, rewrite in rewrites.items() if name == f"{shape.head}.weight" or model.holds(name)}
    return FusedModel(model, present, {"seed": seed, "residual": residual, "online": online})


def fuse_from_facts(model: ModelHandle, facts: Mapping[str, Any]) -> ModelHandle:
    """The model fused as `facts` say (those of a `QuantizedModel`); as it is where they are empty or it is fused so already."""
    if not facts or (isinstance(model, FusedModel) and model.facts == facts):
        return model
    return fuse(model, seed=facts["seed"], residual=facts["residual"])


def _build_stream_rewrites(model: ModelHandle, shape: Anatomy, seed: int) -> dict[str, Rewrite]:
    """Everything that reads or writes the residual stream, with the gains of the norms multiplied into what reads them."""
    turn = partial(hadamard, signs=draw_signs(shape.width, seed))
    rewrites = {f"{shape.embedding}.weight": Rewrite(inputs=(turn,))}

    def read(norm: str, *layers: str) -> None:
        gain = model.tensor(f"{norm}.weight").double()
        rewrites[f"{norm}.weight"] = Rewrite(outputs=(torch.ones_like,))
        for layer in layers:
            rewrites[f"{layer}.weight"] = Rewrite(inputs=(gain.mul, turn))

    for block in shape.blocks:
        for norm, readers in block.readers.items():
            read(norm, *readers)
        for writer in ("self_attn.o_proj", "mlp.down_proj"):
            for name in ("weight", "bias"):
                rewrites[block.part(f"{writer}.{name}")] = Rewrite(outputs=(turn,))
    read(shape.norm, shape.head)
    return rewrites


def rotate_heads(x: Tensor, signs: Tensor) -> Tensor:
    """x D H for each head, the heads lying side by side in the last dimension."""
    return hadamard(x.reshape(*x.shape[:-1], -1, len(signs)), signs).reshape(x.shape)


def draw_signs(width: int, seed: int) -> Tensor:
    """Random ±1 `[width]`."""
    return torch.randint(2, (width,), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
