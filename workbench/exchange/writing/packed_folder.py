"""Folders of packed integers for other engines: compressed-tensors (pack-quantized) and GPTQ.

Both hold scale · (code − zero) with codes in one stream of bits a row, 32 of them to `bits` words of 32 bits:

                       compressed-tensors                 GPTQ
    codes              weight_packed [rows, words]        qweight [words, rows]
    scales, fp16       weight_scale [rows, groups]        scales [groups, rows]
    zeros              weight_zero_point [words, groups]  qzeros [groups, words], less 1 in format v1
    group of a column  in order                           g_idx [cols]
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workbench.exchange.writing.grid_codes import GridCodes, read_grid
from workbench.exchange.writing.model_folder import Planned, PlannedTensor, plan_dequantized, plan_outcome
from workbench.exchange.writing.source import Source
from workbench.kernels.packing import bitpack
from workbench.models.config_file import QUANT_METHOD

Engine = Literal["compressed-tensors", "gptq"]
WIDTHS: dict[Engine, tuple[int, ...]] = {"compressed-tensors": (2, 3, 4, 5, 6, 7, 8), "gptq": (2, 3, 4, 8)}
HALF = torch.float16  # of scales and of everything that is not packed


@dataclass(frozen=True)
class Scheme:
    """What layers share: bits of a code, columns of a group (0 for a row), whether zeros are stored, and columns out of order."""

    bits: int
    group: int
    symmetric: bool
    ordered: bool


@dataclass(frozen=True)
class IntegerLayer:
    """A layer as codes of `scheme.bits` bits; `shift` is added to its codes and zeros, which widens a grid around 0."""

    grid: GridCodes
    scheme: Scheme
    shift: int

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return self.grid.scale.shape[1]

    def pack_codes(self) -> Tensor:
        """Int32 `[rows, words]`, the columns in the order of the inputs."""
        codes = self.grid.codes() + self.shift
        if self.grid.order is not None:
            codes = codes[:, torch.argsort(self.grid.order)]
        return pack_rows(codes, self.scheme.bits)

    def zeros(self) -> Tensor:
        """Int16 `[rows, groups]`."""
        return self.grid.zero + self.shift

    def index_groups(self) -> Tensor:
        """The group of each input, int32 `[cols]`."""
        groups = torch.arange(self.grid.packed.cols, dtype=torch.int32) // self.grid.span
        return groups if self.grid.order is None else groups[torch.argsort(self.grid.order)]


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """Codes `[rows, cols]` as one stream of bits a row, int32 `[rows, cols · bits / 32]`."""
    return bitpack.pack(codes.contiguous(), bits).view(torch.int32).view(len(codes), -1)


def plan_packed(source: Source, engine: Engine) -> tuple[list[Planned], dict[str, Any]]:
    """What becomes of each tensor, and the entry `quantization_config`; layers that an engine cannot hold are float16."""
    layers: dict[str, IntegerLayer] = {}
    reasons: dict[str, str] = {}
    for name in filter(source.find_layer, source.names):
        layer = _read_layer(source, name, engine)
        if isinstance(layer, str):
            reasons[name] = layer
        else:
            layers[name] = layer
    first_zero = any(int(layer.zeros().min()) == 0 for layer in layers.values())
    plan = []
    for name in source.stacked_names:
        if name in layers:
            plan.append(_plan_layer(source, name, layers[name], engine, 0 if first_zero else 1))
        else:
            reason = next((reasons[part] for part in source.parts(name) if part in reasons), "")
            plan.append(plan_dequantized(source, name, reason, HALF))
    schemes = {name.removesuffix(".weight"): layer.scheme for name, layer in layers.items()}
    if engine == "compressed-tensors":
        return plan, describe_compressed_tensors(source, schemes)
    return plan, describe_gptq(source, schemes, "gptq_v2" if first_zero else "gptq")


def _read_layer(source: Source, name: str, engine: Engine) -> IntegerLayer | str:
    """A layer as integers, or why an engine cannot hold it."""
    layer, path = source.find_layer(name), name.removesuffix(".weight")
    assert layer is not None, "only quantized layers are asked for"
    part = source.split_module.get_submodule(path)
    if not isinstance(part, nn.Linear) or any(name in source.parts(stack) for stack in source.stacks):
        return f"it is {'an expert in a stack' if isinstance(part, nn.Linear) else f'no nn.Linear but {type(part).__name__}'}"
    grid = read_grid(layer.packed)
    return grid if isinstance(grid, str) else fit_grid(grid, engine)


def fit_grid(grid: GridCodes, engine: Engine) -> IntegerLayer | str:
    """A grid in codes of a width that an engine reads, or why it has none."""
    rows, cols = grid.packed.rows, grid.packed.cols
    if grid.has_offset:
        return "what stands for 0 among its codes is no whole number"
    if grid.order is not None and engine == "compressed-tensors":
        return "its columns are stored in another order"
    bits = next(width for width in WIDTHS[engine] if width >= grid.bits)
    shift = (1 << (bits - 1)) - int(grid.zero[0, 0]) if grid.is_symmetric else 0
    group = 0 if grid.span >= cols else grid.span
    if (cols * bits) % 32 or (rows * bits) % 32 or cols % (group or cols):
        return f"{rows} × {cols} codes of {bits} bits in groups of {group or cols} do not fill words of 32 bits and whole groups"
    return IntegerLayer(grid, Scheme(bits, group, grid.is_symmetric, grid.order is not None), shift)


def _plan_layer(source: Source, name: str, layer: IntegerLayer, engine: Engine, less: int) -> Planned:
    """The tensors of one packed layer; `less` is taken off each zero in GPTQ."""
    path, grid, bits = name.removesuffix(".weight"), layer.grid, layer.scheme.bits
    rows, cols, groups = grid.packed.rows, grid.packed.cols, layer.groups
    words, zero_words = cols * bits // 32, rows * bits // 32
    entries: list[tuple[str, torch.dtype, tuple[int, ...], Callable[[], Tensor]]]
    if engine == "compressed-tensors":
        entries = [
            ("weight_packed", torch.int32, (rows, words), layer.pack_codes),
            ("weight_scale", HALF, (rows, groups), lambda: grid.scale),
            ("weight_shape", torch.int64, (2,), lambda: torch.tensor([rows, cols])),
        ]
        if not layer.scheme.symmetric:
            entries.append(("weight_zero_point", torch.int32, (zero_words, groups), lambda: pack_rows(layer.zeros().mT, bits).mT))
    else:
        entries = [
            ("qweight", torch.int32, (words, rows), lambda: layer.pack_codes().mT),
            ("qzeros", torch.int32, (groups, zero_words), lambda: pack_rows(layer.zeros().mT - less, bits)),
            ("scales", HALF, (groups, rows), lambda: grid.scale.mT),
            ("g_idx", torch.int32, (cols,), layer.index_groups),
        ]
    tensors = [PlannedTensor(f"{path}.{suffix}", dtype, shape, build) for suffix, dtype, shape, build in entries]
    loss = f"run without rounding of inputs to {grid.input_bits} bits" if grid.input_bits else ""
    return plan_outcome(source, name, tensors, (rows, cols), f"W{bits}A16", loss)


def describe_compressed_tensors(source: Source, schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    """The entry `quantization_config` of a pack-quantized model."""
    linear = [name for name, part in source.module.named_modules() if isinstance(part, nn.Linear)]
    groups: dict[Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        groups.setdefault(scheme, []).append(name)
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{number}": {
                "targets": ["Linear"] if len(groups) == 1 else names,
                "weights": describe_weights(scheme),
                "input_activations": None,
                "output_activations": None,
                "format": "pack-quantized",
            }
            for number, (scheme, names) in enumerate(groups.items())
        },
        "ignore": [name for name in linear if name not in schemes],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def describe_weights(scheme: Scheme) -> dict[str, Any]:
    """How weights are stored, in the words of compressed-tensors."""
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "group" if scheme.group else "channel",
        "group_size": scheme.group or None,
        "dynamic": False,
    }


def describe_gptq(source: Source, schemes: Mapping[str, Scheme], checkpoint_format: str) -> dict[str, Any]:
    """The entry `quantization_config` of a GPTQ model: what most layers share, and `dynamic` for the others."""
    common = Counter(schemes.values()).most_common(1)[0][0] if schemes else Scheme(4, 0, symmetric=True, ordered=False)
    dynamic: dict[str, dict[str, Any]] = {}
    for name in list_block_layers(source):
        if name not in schemes:
            dynamic[f"-:^{re.escape(name)}$"] = {}
        elif schemes[name] != common:
            dynamic[f"+:^{re.escape(name)}$"] = describe_scheme(schemes[name])
    module: Any = source.split_module
    head = module.get_output_embeddings()
    heads = [name for name, part in module.named_modules() if head is not None and part is head]
    return {
        "quant_method": "gptq",
        **describe_scheme(common),
        "checkpoint_format": checkpoint_format,
        "pack_dtype": "int32",
        "lm_head": any(name in schemes for name in heads),
        "dynamic": dynamic,
        "meta": {"quantizer": [QUANT_METHOD]},
    }


def describe_scheme(scheme: Scheme) -> dict[str, Any]:
    """What GPTQ says of layers of one scheme."""
    return {
        "bits": scheme.bits,
        "group_size": scheme.group or -1,
        "sym": scheme.symmetric,
        "desc_act": scheme.ordered,
    }


def list_block_layers(source: Source) -> Sequence[str]:
    """The linear layers inside of numbered blocks."""
    parts = source.split_module.named_modules()
    return [name for name, part in parts if isinstance(part, nn.Linear) and re.search(r"\.\d+\.", name)]
