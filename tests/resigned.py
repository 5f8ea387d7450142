"""Saved models that were changed after they were saved, with digests that fit: what only the declarations of formats can notice.

Run as a program with a folder, the number of the first change and how many there are, it tries them one after the other and
writes a line for each: a crash of the compiled loops ends this process, and the tests see at which change.
"""

import itertools
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import workbench as wb
from tests.battery.cases import VARIANTS, correlated, gaussian, quantize, recipe_with
from tests.tiny_models import SHAPE
from tests.unit.kernels.conftest import Draw
from tests.unit.kernels.test_numba import ACCEPTED, distance, none, plane
from workbench import presets
from workbench.artifact import digest, load, save
from workbench.artifact.folder_layout import LEDGER, MODEL, RECIPE
from workbench.artifact.tensor_file import write_tensors
from workbench.errors import WorkbenchError
from workbench.kernels import formats
from workbench.kernels.kernel_mode import Mode
from workbench.kernels.matmul.numba import backend
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.matmul.packed_module import PackedEmbedding
from workbench.kernels.packing import n_of_m
from workbench.kernels.packing.bitpack import pack
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.models import ModelHandle, open_model
from workbench.models.builtin import BUILTIN_FOLDER
from workbench.quantized import QuantizedLayer, QuantizedModel

SIZE = 48  # rows and columns of every layer
LAYER, OTHER = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"
OPTIONAL = ("model.embed_tokens", "model.layers.0.mlp.gate", "lm_head")
BOUND = 2e-4  # of the norm of the output, as compiled sums promise
LONGEST_SENTENCE = 600


def offset(draw: Draw) -> Packed:
    child = draw.uniform(2, 16, zero=True)
    return Packed("offset", draw.rows, draw.cols, {"offset": draw.half(draw.rows, 3)}, {"span": 16}, (child,))


def rows(draw: Draw) -> Packed:
    owner = torch.arange(draw.rows) % 3 == 0
    children = (Draw(int((~owner).sum()), draw.cols).uniform(2, 16, zero=True), Draw(int(owner.sum()), draw.cols).dense())
    return Packed("rows", draw.rows, draw.cols, {"map": pack(owner, 1)}, children=children)


def groups(draw: Draw) -> Packed:
    owner = torch.arange(draw.rows * 6).view(draw.rows, 6) % 2
    full = owner.repeat_interleave(8, 1)
    children = (plane(draw, full == 0), draw.uniform(4, 16, zero=False, mask=full == 1))
    return Packed("masked", draw.rows, draw.cols, {"map": pack(owner, 1)}, {"map": "groups", "span": 8}, children)


def chosen(draw: Draw) -> Packed:
    owner = torch.arange(draw.cols).expand(draw.rows, draw.cols) % 4 < 2
    stream = n_of_m.pack(owner, 2, 4)
    return Packed(
        "masked",
        draw.rows,
        draw.cols,
        {"map": stream},
        {"map": "n-of-m", "n": 2, "m": 4},
        (none(draw, ~owner), plane(draw, owner)),
    )


FORMS: dict[str, Callable[[Draw], Packed]] = {
    **ACCEPTED,
    "dense": lambda draw: draw.dense(),
    "low-rank": lambda draw: draw.low_rank(),
    "offset": offset,
    "rows": rows,
    "transposed": lambda draw: Packed("transposed", draw.rows, draw.cols, children=(draw.dense(),)),
    "fourier": lambda draw: Packed("fourier", draw.rows, draw.cols, children=(draw.uniform(4, 16, zero=True),)),
    "rounded": lambda draw: Packed("rounded-input", draw.rows, draw.cols, {}, {"bits": 8}, (draw.uniform(4, 16, zero=True),)),
    "masked-groups": groups,
    "masked-2-of-4": chosen,
}


def battery() -> Iterator[tuple[str, Packed]]:
    """A matrix in every variant of every part that the battery knows."""
    for name, part in VARIANTS.items():
        yield name, quantize(recipe_with(part), gaussian(SIZE, SIZE), correlated(SIZE)).packed.share("all", 1)


def write_model(folder: Path) -> ModelHandle:
    """A Llama of one block whose layers are all `SIZE` × `SIZE`."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": SIZE, "intermediate_size": SIZE, "num_hidden_layers": 1, "num_key_value_heads": 4, "head_dim": 12}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SHAPE, **sizes})).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN_FOLDER / name, folder)
    return open_model(folder)


def save_forms(model: ModelHandle, trees: dict[str, Packed], root: Path) -> list[Path]:
    """A saved model for each tree, which is that of its first layer; another layer is in sign planes."""
    recipe, folders = recipe_with(VARIANTS["coder-keep"]), []
    second = Draw(SIZE, SIZE, seed=5).planes(1, SIZE, extras=False)
    for name, tree in trees.items():
        layers = {
            layer: QuantizedLayer(layer, packed, recipe, build_ledger(packed, 1.0), 0.5)
            for layer, packed in ((LAYER, tree), (OTHER, second))
        }
        made = QuantizedModel(model.source, layers, wb.LayerPlan.uniform(recipe))
        folders.append(save(made, root / f"{len(folders):03}-{name.replace('=', '-').replace(',', '-')}", model))
    return folders


def save_optional(root: Path) -> list[Path]:
    """Saved mixtures whose embedding, router or head is quantized: matrices that are looked up, or are not linear layers."""
    import transformers

    torch.manual_seed(0)
    mixture = transformers.MixtralConfig(**SHAPE, num_local_experts=4)
    transformers.MixtralForCausalLM(mixture).save_pretrained(root / "mixture")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN_FOLDER / name, root / "mixture")
    model, folders = open_model(root / "mixture"), []
    for layer, recipe in itertools.product(OPTIONAL, ("rtn:bits=4", "ternary", "btc:bits=0.8,compensation=False")):
        quantized = wb.quantize_model(model, presets.parse(recipe), layers=layer)
        folders.append(save(quantized, root / f"{layer}-{len(folders)}", model))
    return folders


# changes: each takes the document of a tree's node, the file's tensors and a source of chance, and says what it did

Change = Callable[[dict[str, Any], dict[str, Tensor], random.Random], str | None]
ODD: list[Any] = [-1, 0, 1, 2, 3, 7, 9, 17, 1 << 20, 1 << 31, 1 << 40, 10**30, 4.0, 0.5, "8", "", None, True, [], [1, 48], {}]


def nodes(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """A node and all below it."""
    return [tree, *(node for child in tree["children"] for node in nodes(child))]


def named(node: dict[str, Any], chance: random.Random) -> str | None:
    """The file's name of one of a node's tensors."""
    return node["tensors"][chance.choice(sorted(node["tensors"]))] if node["tensors"] else None


def reshaped(tensor: Tensor, chance: random.Random) -> tuple[str, Tensor]:
    """The tensor with another shape or size."""
    flat = tensor.reshape(-1)
    many = torch.cat([flat] * 999)
    ways = {
        "cut to nothing": flat[:0],
        "empty in its own dimensions": tensor[:0],
        "one value short": flat[:-1],
        "half": flat[: len(flat) // 2],
        "one value more": torch.cat([flat, flat[:1]]),
        "one row short": tensor[:-1],
        "flat": flat,
        "one dimension more": tensor[None],
        "one dimension more at its end": tensor[..., None],
        "turned": tensor.mT if tensor.ndim > 1 else tensor[:, None],
        "a number": flat[:1].reshape(()) if len(flat) else flat,
        "huge": many,
    }
    way = chance.choice(sorted(ways))
    return way, ways[way]


def retyped(tensor: Tensor, chance: random.Random) -> tuple[str, Tensor]:
    """The same values, or the same bytes, in another type."""
    kinds = [torch.uint8, torch.int8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
    kind = chance.choice(kinds)
    if chance.random() < 0.5 and tensor.ndim and tensor.nbytes % torch.empty(0, dtype=kind).element_size() == 0:
        return f"bytes as {kind}", tensor.reshape(-1).view(torch.uint8).view(kind)
    return f"values as {kind}", tensor.to(kind)


def refilled(tensor: Tensor, chance: random.Random) -> tuple[str, Tensor]:
    """The same type and shape with other values."""
    draw = torch.Generator().manual_seed(chance.randrange(1 << 30))
    filled = torch.randint(0, 256, (max(tensor.nbytes, 1),), generator=draw, dtype=torch.uint8)[: tensor.nbytes]
    ways = {"random bytes": filled.view(tensor.dtype).reshape(tensor.shape), "zeros": torch.zeros_like(tensor)}
    ways["all bits one"] = torch.full((tensor.nbytes,), 255, dtype=torch.uint8).view(tensor.dtype).reshape(tensor.shape)
    if tensor.is_floating_point():
        for value in (torch.nan, torch.inf, -torch.inf, torch.finfo(tensor.dtype).max, torch.finfo(tensor.dtype).tiny):
            one = tensor.clone().reshape(-1)
            one[chance.randrange(max(len(one), 1)) :][:1] = value
            ways[f"one {value}"] = one.reshape(tensor.shape)
    way = chance.choice(sorted(ways))
    return way, ways[way]


def change_tensor(how: Callable[[Tensor, random.Random], tuple[str, Tensor]]) -> Change:
    """Another tensor in the place of one."""

    def change(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str | None:
        key = named(node, chance)
        if key is None:
            return None
        way, tensors[key] = how(tensors[key], chance)
        return f"{key}: {way}"

    return change


def drop_tensor(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str | None:
    """One tensor less, in the tree or in the file."""
    if not node["tensors"]:
        return None
    name = chance.choice(sorted(node["tensors"]))
    key = node["tensors"][name]
    if chance.random() < 0.5:
        del node["tensors"][name]
    else:
        tensors.pop(key)
    return f"{key} dropped"


def swap_tensor(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str | None:
    """One tensor read from where another one lies, of this layer, of the other one or of neither."""
    if not node["tensors"]:
        return None
    name = chance.choice(sorted(node["tensors"]))
    node["tensors"][name] = chance.choice(sorted(tensors))
    return f"{name} read from {node['tensors'][name]}"


def add_tensor(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str:
    """A tensor that nobody asked for, in the tree or beside it."""
    name = chance.choice(["mean", "column_scale", "zero", "middle", "gain", "signs", "left", "extra", "weight"])
    if chance.random() < 0.3:
        tensors[f"{LAYER}.{name}"] = torch.ones(3)
        return f"a tensor {name} beside the layer"
    node["tensors"][name] = key = f"{LAYER}||{name}-more"
    tensors[key] = chance.choice([torch.ones(SIZE).half(), torch.ones(SIZE, 1).half(), torch.ones(6, dtype=torch.uint8)])
    return f"{name} added"


def change_fact(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str:
    """A fact with another value, missing or added."""
    if not node["facts"]:
        node["facts"][chance.choice(["bits", "span", "more"])] = 8
        return "a fact added"
    name = chance.choice(sorted(node["facts"]))
    if chance.random() < 0.1:
        del node["facts"][name]
        return f"{name} dropped"
    before = node["facts"][name]
    near = [before - 1, before + 1, 2 * before, before // 2] if isinstance(before, int) else ["columns", "groups", "n-of-m"]
    node["facts"][name] = chance.choice(ODD + near + near)
    return f"{name} = {str(node['facts'][name])[:40]}"


def change_shape(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str:
    """Other numbers of rows or columns."""
    name = chance.choice(["rows", "cols"])
    node[name] = chance.choice([*ODD, SIZE - 1, SIZE + 1, 2 * SIZE, SIZE // 2])
    return f"{name} = {str(node[name])[:40]}"


def change_tree(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str:
    """Another format, other children, another nesting, or no tree at all."""
    way = chance.randrange(9)
    if way < 3:
        names = [
            "planes",
            "uniform",
            "masked",
            "sum",
            "permuted",
            "hadamard",
            "dense",
            "zero",
            "rows",
            "trellis",
            "",
            "pickle",
            3,
        ]
        node["format"] = chance.choice(names)
        return f"format {node['format']}"
    if way == 3:
        node["children"] = node["children"][:-1] if node["children"] else [dict(node)]
    elif way == 4:
        node["children"] = [*node["children"], *(node["children"][:1] or [dict(node)])]
    elif way == 5:
        node["children"] = chance.choice([None, {}, "ab", [None], [[]], [3], []])
    elif way == 6:
        node["shared"] = chance.choice([None, {"scale": ["a", 0]}, {"nothing": ["a", 1]}, {"scale": "ab"}, {"signs": ["a", 2.5]}])
    elif way == 7:
        inner = dict(node)
        for _ in range(chance.choice([1, 40, 300])):
            inner = {**inner, "format": "sum", "tensors": {}, "facts": {}, "shared": {}, "children": [inner]}
        node.update(inner)
    else:
        del node[chance.choice(sorted(node))]
    return f"tree changed in way {way}"


def change_other(node: dict[str, Any], tensors: dict[str, Tensor], chance: random.Random) -> str:
    """A tensor beside the layers, changed or gone."""
    key = chance.choice(sorted(name for name in tensors if "|" not in name))
    way = chance.choice([reshaped, retyped, refilled])
    if chance.random() < 0.2:
        tensors.pop(key)
        return f"{key} dropped"
    what, tensors[key] = way(tensors[key], chance)
    return f"{key}: {what}"


CHANGES: list[Change] = [
    *(change_tensor(reshaped), change_tensor(retyped), change_tensor(refilled)),
    *(change_fact, change_shape, change_tree, drop_tensor, swap_tensor, add_tensor, change_other),
    *(change_tensor(reshaped), change_tensor(refilled), change_fact),
]


def contents(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the recipe of a saved folder."""
    return load_file(folder / MODEL), json.loads((folder / RECIPE).read_text())


def changed(source: Path, target: Path, number: int) -> str:
    """Write change `number` of a saved folder with digests that fit; what was changed, in words."""
    tensors, recipe = contents(source)
    chance = random.Random(number)
    layer = LAYER if LAYER in recipe["layers"] else next(iter(recipe["layers"]))
    tree, said = recipe["layers"][layer]["packed"], None
    while said is None:
        said = CHANGES[number % len(CHANGES)](chance.choice(nodes(tree)), tensors, chance)
        number += said is None
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    sign(target, tensors, recipe)
    return said


def sign(folder: Path, tensors: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write tensors and recipe into a saved folder and make every digest fit."""
    write_tensors(folder / MODEL, tensors)
    (folder / RECIPE).write_text(json.dumps(recipe))
    document = json.loads((folder / LEDGER).read_text())
    document["bytes"], document["header"] = (folder / MODEL).stat().st_size, digest.hash_header(folder / MODEL)
    document["tensors"] = {name: digest.hash_tensor(tensor) for name, tensor in tensors.items()}
    document["files"][RECIPE] = digest.hash_file(folder / RECIPE)
    (folder / LEDGER).write_text(json.dumps({**document, "sha256": digest.hash_json(document)}))


def outcome(folder: Path) -> str:
    """What becomes of a folder: "refused: " and one sentence, or "runs"; AssertionError where compiled products differ."""
    try:
        model = load(folder)
    except WorkbenchError as error:
        sentence = str(error)
        assert "\n" not in sentence, sentence
        assert len(sentence) < LONGEST_SENTENCE, sentence
        return f"refused: {sentence}"
    with torch.inference_mode():
        model.module(torch.arange(4).view(1, 4))
    for part in model.module.modules():
        if isinstance(part, PackedEmbedding):
            ids = torch.arange(part.packed.rows)
            assert torch.equal(part(ids).nan_to_num(), formats.decode(part.packed).nan_to_num()), (
                "rows are not those of the matrix"
            )
        if isinstance(part, PackedLinear) and backend.describe_refusal(part.packed, 3) is None:
            x = torch.randn(3, part.packed.cols, generator=torch.Generator().manual_seed(1))
            expected = formats.linear(x, part.packed)
            for cache in ("decoded", "none"):
                y = backend.prepare(part.packed, Mode(cache=cache))(x)
                if expected.isfinite().all():
                    size = expected.norm().clamp(min=1e-30)
                    assert (y - expected).norm() < BOUND * size or distance(y, x, part.packed) < BOUND, (
                        "numba is not the reference"
                    )
    return "runs"


def attempt(source: Path, target: Path, number: int) -> dict[str, Any]:
    """One change, tried; what became of it, also where that is an exception that it should not be."""
    said = changed(source, target, number)
    try:
        return {"number": number, "source": source.name, "change": said, "outcome": outcome(target)}
    except Exception as error:  # noqa: BLE001  every kind of exception is what is looked for
        return {"number": number, "source": source.name, "change": said, "outcome": f"raised {type(error).__name__}: {error}"}


def main(root: Path, first: int, last: int) -> None:
    """Try the changes from `first` to `last` of the folders below `root`, and print a line before and after each."""
    folders = sorted(path for path in root.iterdir() if path.name != "changed")
    for number in range(first, last):
        for step in ("begins", "ends"):
            line = {"begins": number} if step == "begins" else attempt(folders[number % len(folders)], root / "changed", number)
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def plain(tree: Packed) -> Packed:
    """A tree whose tensors share no memory, as files want them."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in tree.tensors.items()}
    return replace(tree, tensors=tensors, children=tuple(map(plain, tree.children)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
