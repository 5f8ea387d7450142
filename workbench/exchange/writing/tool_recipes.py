"""How layers are quantized, as a recipe that other tools run themselves; what they have no equivalent of is told by layer.

llm-compressor reads a recipe in YAML, of which JSON is a part; GPTQModel a `QuantizeConfig`; llama-quantize takes a type for each
tensor. Each of them fits its own grids: the recipe asks for the same form, not for the same codes.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.artifact import PackedModel
from workbench.atomic import write_file
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import ArtifactError
from workbench.exchange.writing.packed_folder import WIDTHS, Scheme, describe_scheme, describe_weights, list_block_layers
from workbench.exchange.writing.source import Source, open_source
from workbench.models import ModelHandle
from workbench.outputs import check_file
from workbench.recipe import Recipe

Tool = Literal["llm-compressor", "gptqmodel", "llama-quantize"]
MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # llama.cpp's names in a block
GGUF_TYPES = {(4, True): "q4_0", (4, False): "q4_1", (5, True): "q5_0", (5, False): "q5_1", (8, True): "q8_0"}
GGUF_GROUP, TRIT_GROUP, SIGN_GROUP = 32, 256, 128  # columns of a block
EVERYTHING_ELSE = "weight=f16"  # the last pattern, as the first that matches decides


@dataclass(frozen=True)
class GridRequest:
    """A layer's recipe in other tools' words: the grid of its codes, and how they are chosen."""

    scheme: Scheme
    feedback: bool = False
    damping: float = 0.01
    static_order: bool = False
    searched: bool = False


@dataclass(frozen=True)
class ToolRecipe(ShownInCell):
    """A written recipe: how many layers it quantizes, and why it leaves others out, by name."""

    path: Path
    tool: str
    layers: int
    missing: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        left = "".join(f"\nnot in it: {name}, because {why}" for name, why in self.missing.items())
        return f"{self.path}: a recipe for {self.tool}, {self.layers} layers{left}"

    def cell_summary(self) -> CellSummary:
        """What it leaves out."""
        answer = f"{self.layers} layers are quantized, {len(self.missing)} are left out, in {self.path}."
        rows = list(self.missing.items())
        return CellSummary.of_rows(f"What does the recipe for {self.tool} hold?", answer, ("left out", "because"), rows)


def write_recipe(
    source: str | Path | ModelHandle | PackedModel, path: str | Path, *, tool: Tool, strict: bool = False
) -> ToolRecipe:
    """Write how a saved model was quantized as a recipe of another tool.

    ArtifactError for an unknown tool, for a model without quantized layers, where no layer has an equivalent, and with `strict`
    where any has none.
    """
    if tool not in get_args(Tool):
        raise ArtifactError(f"unknown tool {tool!r} to write a recipe for; use {', '.join(get_args(Tool))}.")
    target, model = check_file(path), open_source(source)
    if not model.layers:
        raise ArtifactError(f"{model.name!r} has no quantized layers; give a folder that wb.save wrote.")
    requests: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, layer in model.layers.items():
        answer = READERS[tool](name, layer.recipe)
        (missing if isinstance(answer, str) else requests)[name] = answer if isinstance(answer, str) else answer[0]
    if missing and (strict or not requests):
        name, why = next(iter(missing.items()))
        raise ArtifactError(f"{len(missing)} of {len(model.layers)} layers have no equivalent in {tool}: {name}, because {why}.")
    write_file(target, WRITERS[tool](model, requests))
    return ToolRecipe(target, tool, len(requests), missing)


def read_grid_request(recipe: Recipe) -> GridRequest | str:
    """A recipe of codes on a uniform grid, or why it is none."""
    parts = {
        "transform": (recipe.transform.name, "identity"),
        "split": (recipe.split.name, "whole"),
        "correction": (recipe.correction.name, "none"),
        "activations": (recipe.activations.name, "keep"),
        "refinement": (recipe.refinement.name, "none"),
    }
    for kind, (name, plain) in parts.items():
        if name != plain:
            return f"its {kind} {name!r} has no equivalent"
    coder: Any = recipe.coders[0]
    if coder.name != "uniform" or coder.zero != "integer":
        return f"its coder {coder.name!r}{' with real zeros' if coder.name == 'uniform' else ''} has no equivalent"
    assignment: Any = recipe.assignment
    if assignment.name == "nearest":
        return GridRequest(Scheme(coder.bits, coder.group, coder.symmetric, ordered=False), searched=coder.clip != "none")
    if assignment.name != "column-feedback":
        return f"its assignment {assignment.name!r} has no equivalent"
    moment = assignment.order == "moment"
    scheme = Scheme(coder.bits, coder.group, coder.symmetric, ordered=moment and not assignment.fit_first)
    static = moment and assignment.fit_first
    return GridRequest(scheme, feedback=True, damping=assignment.damping, static_order=static, searched=coder.clip != "none")


def _read_for_compressor(_name: str, recipe: Recipe) -> tuple[GridRequest] | str:
    """For llm-compressor, which orders columns only with groups that stay in order."""
    request = read_grid_request(recipe)
    if isinstance(request, str):
        return request
    if request.scheme.ordered:
        return "columns in another order with groups in that order are no longer supported"
    return (request,) if request.scheme.bits in WIDTHS["compressed-tensors"] else f"{request.scheme.bits} bits are not supported"


def _read_for_gptqmodel(_name: str, recipe: Recipe) -> tuple[GridRequest] | str:
    """For GPTQModel, which always feeds errors back."""
    request = read_grid_request(recipe)
    if isinstance(request, str):
        return request
    if not request.feedback:
        return "it rounds to nearest, and GPTQModel feeds errors back"
    return (request,) if request.scheme.bits in WIDTHS["gptq"] else f"{request.scheme.bits} bits are not supported"


def _read_for_llama(name: str, recipe: Recipe) -> tuple[str] | str:
    """For llama-quantize: the type of a tensor."""
    block = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    if block is None or block[2] not in MATRICES:
        return "llama.cpp has no tensor of that name in a block"
    coder: Any = recipe.coders[0]
    plain = recipe.transform.name == "identity" and recipe.split.name == "whole" and recipe.correction.name == "none"
    if plain and coder.name == "ternary" and (coder.planes, coder.group) == (1, TRIT_GROUP):
        return (rf"blk\.{block[1]}\.{MATRICES[block[2]]}=tq1_0",)
    if plain and coder.name == "sign" and (coder.planes, coder.group, coder.mean) == (1, SIGN_GROUP, False):
        return (rf"blk\.{block[1]}\.{MATRICES[block[2]]}=q1_0",)
    request = read_grid_request(recipe)
    if isinstance(request, str):
        return request
    scheme = request.scheme
    if request.feedback:
        return "it feeds errors back, and llama-quantize rounds to nearest"
    if scheme.group != GGUF_GROUP or (scheme.bits, scheme.symmetric) not in GGUF_TYPES:
        form = "symmetric" if scheme.symmetric else "asymmetric"
        return f"no type has {scheme.bits} bits, {form}, in groups of {scheme.group or 'a row'}"
    return (rf"blk\.{block[1]}\.{MATRICES[block[2]]}={GGUF_TYPES[scheme.bits, scheme.symmetric]}",)


def _format_compressor(_source: Source, requests: Mapping[str, GridRequest]) -> str:
    """A stage for each way of choosing codes, with a group for each form; only names that end in `_stage` are read."""
    stages: dict[tuple[str, str], dict[str, Any]] = {}
    groups: dict[GridRequest, list[str]] = {}
    for name, request in requests.items():
        groups.setdefault(request, []).append(name)
    for request, names in groups.items():
        weights = {**describe_weights(request.scheme), "observer": "mse" if request.searched else "minmax"}
        entry = {"targets": names, "weights": weights, "input_activations": None, "output_activations": None}
        kind, settings = "QuantizationModifier", {}
        if request.feedback:
            settings = {"dampening_frac": request.damping, "actorder": "static" if request.static_order else None}
            kind = "GPTQModifier"
        modifier = stages.setdefault((kind, json.dumps(settings)), {"config_groups": {}, **settings})
        modifier["config_groups"][f"group_{len(modifier['config_groups'])}"] = entry
    document = {
        f"quantization_{number}_stage": {"quantization_modifiers": {kind: modifier}}
        for number, ((kind, _), modifier) in enumerate(stages.items())
    }
    return json.dumps(document, indent=2) + "\n"


def _format_gptqmodel(source: Source, requests: Mapping[str, GridRequest]) -> str:
    """The arguments of a QuantizeConfig: those of most layers, and `dynamic` for the others."""
    common = Counter(requests.values()).most_common(1)[0][0]
    dynamic: dict[str, Any] = {}
    for name in list_block_layers(source):
        if name not in requests:
            dynamic[f"-:^{re.escape(name)}$"] = {}
        elif requests[name] != common:
            dynamic[f"+:^{re.escape(name)}$"] = _describe_for_gptqmodel(requests[name])
    return json.dumps({**_describe_for_gptqmodel(common), "dynamic": dynamic}, indent=2) + "\n"


def _describe_for_gptqmodel(request: GridRequest) -> dict[str, Any]:
    """The settings of some layers."""
    return {
        **describe_scheme(request.scheme),
        "desc_act": request.scheme.ordered or request.static_order,
        "static_groups": request.static_order,
        "damp_percent": request.damping,
    }


def _format_llama(source: Source, requests: Mapping[str, str]) -> str:
    """A command with the type of each tensor; all others stay in 16 bits.

    llama-quantize looks at the patterns only where the type of the whole file is a quantized one: it is that of most layers.
    """
    lines = [f"  --tensor-type '{line}' \\" for line in (*requests.values(), EVERYTHING_ELSE)]
    common = Counter(line.rpartition("=")[2] for line in requests.values()).most_common(1)[0][0].upper()
    first = f"# model-f16.gguf: workbench export {source.name} --to gguf --out model-f16.gguf"
    others = "  --token-embedding-type f16 --output-tensor-type f16 \\"
    return "\n".join([first, "llama-quantize \\", *lines, others, f"  model-f16.gguf model.gguf {common}", ""])


READERS: dict[Tool, Callable[[str, Recipe], tuple[Any] | str]] = {
    "llm-compressor": _read_for_compressor,
    "gptqmodel": _read_for_gptqmodel,
    "llama-quantize": _read_for_llama,
}
WRITERS: dict[Tool, Callable[[Source, Mapping[str, Any]], str]] = {
    "llm-compressor": _format_compressor,
    "gptqmodel": _format_gptqmodel,
    "llama-quantize": _format_llama,
}
