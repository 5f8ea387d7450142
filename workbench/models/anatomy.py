"""Tensors of a model that can be fused: RMSNorms, the layers that read them, and the layers that add to the residual stream.

Known is one shape, by its parts rather than by its name: blocks of RMSNorm, q/k/v/o_proj, RMSNorm, gate/up/down_proj.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from workbench.errors import ModelError

SUPPORTED = (
    "only models can be fused whose blocks are RMSNorm, q/k/v/o_proj, RMSNorm, gate/up/down_proj (Llama, Mistral, Qwen2, Qwen3); "
    "for this one use the transform 'hadamard' or 'learned' of a recipe, which run online"
)
BLOCK_PARTS = {
    "": {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj"},
}
READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
HARMLESS = {"q_norm", "k_norm", "rotary_emb", "act_fn"}  # they touch neither the residual stream nor what v hands to o


class AnatomyError(ModelError):
    """A model of another shape; `why` says what is different."""

    def __init__(self, source: str, module: nn.Module, why: str) -> None:
        super().__init__(f"{source!r} ({type(module).__name__}) cannot be fused: {why}. {SUPPORTED}.")
        self.why = why


@dataclass(frozen=True)
class Block:
    """Module names of one block, and the width of its attention heads."""

    name: str
    head_dim: int

    def part(self, name: str) -> str:
        """The full name of a module inside the block."""
        return f"{self.name}.{name}"

    @property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """The layers that read each norm, by the full names of both."""
        return {self.part(norm): tuple(map(self.part, readers)) for norm, readers in READERS.items()}


@dataclass(frozen=True)
class Anatomy:
    """Module names: what writes the residual stream first, the blocks, the last norm and the output head behind it."""

    embedding: str
    blocks: tuple[Block, ...]
    norm: str
    head: str
    width: int


def read_anatomy(module: nn.Module, source: str) -> Anatomy:
    """The anatomy of a module (parameters may be on the meta device); AnatomyError says what is not as it has to be."""

    def refuse(why: str) -> AnatomyError:
        return AnatomyError(source, module, why)

    prefix = getattr(module, "base_model_prefix", "")
    base: Any = getattr(module, prefix, None)
    for name in ("embed_tokens", "layers", "norm"):
        if not hasattr(base, name):
            raise refuse(f"it has no {prefix or 'model'}.{name}")
    head = getattr(module, "lm_head", None)
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise refuse("it has no output head lm_head without a bias")
    blocks = []
    for index, block in enumerate(base.layers):
        name = f"{prefix}.layers.{index}"
        for owner, needed in BLOCK_PARTS.items():
            children = {child for child, _ in block.get_submodule(owner).named_children()} - HARMLESS
            if children != needed:
                raise refuse(f"{name}{owner and '.' + owner} has {', '.join(sorted(children))}")
        norms = (block.input_layernorm, block.post_attention_layernorm)
        if not all(map(_is_rms_norm, norms)):
            raise refuse(f"a norm of {name} ({type(norms[0]).__name__}) is not x / rms(x) · gain")
        heads = block.self_attn
        width, value = heads.o_proj.in_features, heads.v_proj.out_features
        if heads.q_proj.out_features != width or width % heads.head_dim or value % heads.head_dim:
            raise refuse(f"{name}.self_attn does not pass its heads of {heads.head_dim} from v_proj to o_proj unchanged")
        blocks.append(Block(name, heads.head_dim))
    if not _is_rms_norm(base.norm):
        raise refuse(f"its last norm ({type(base.norm).__name__}) is not x / rms(x) · gain")
    return Anatomy(f"{prefix}.embed_tokens", tuple(blocks), f"{prefix}.norm", "lm_head", head.in_features)


def _is_rms_norm(norm: nn.Module) -> bool:
    """Whether a module is x / rms(x) · weight, by trying it: Gemma multiplies with 1 + weight, LayerNorm takes a mean away."""
    if set(dict(norm.named_parameters())) != {"weight"}:
        return False
    width = norm.get_parameter("weight").numel()
    draw = torch.Generator().manual_seed(0)
    x, gain = torch.randn(2, width, generator=draw) + 1, torch.randn(width, generator=draw)
    with torch.no_grad():
        output = torch.func.functional_call(norm, {"weight": gain}, (x,))
    expected = x / x.square().mean(-1, keepdim=True).sqrt() * gain
    return torch.allclose(output, expected, rtol=1e-3, atol=1e-4)
