"""Whatever stands in a file or an address that others wrote: it is read, or refused in one sentence; never another exception."""

import ast
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.mutations import mutated, mutated_value
from workbench import presets
from workbench.analysis.decisions.quant_card import collect_card_facts
from workbench.analysis.decisions.quant_card_diff import diff_cards
from workbench.analysis.decisions.scaling_law import read_training_tokens
from workbench.artifact import digest
from workbench.artifact.loading import read_quantized_model
from workbench.errors import WorkbenchError
from workbench.models import ModelHandle
from workbench.models.architecture import read_config
from workbench.models.checkpoint import INDEX, Checkpoint
from workbench.models.folder_kinds import check_folder
from workbench.recipe import LayerPlan, Recipe
from workbench.session import Session, SharedModel, session_file
from workbench.views.decisions.quant_card import Card
from workbench.widgets.shell.page import decode_address, read_address

Read = Callable[[bytes], object]
FEW, MANY = 30, 600  # of each kind: in the default tier, in the complete one
LONGEST = 900  # characters of a sentence
CALLS = {"wb.recipe", "wb.Recipe", "wb.part", "wb.open_model", "wb.Explorer", "Session", "Job"}
METHODS = {"select", "use", "ask", "mark", "restore", "run_here", "result"}


@dataclass(frozen=True)
class Kind:
    """A valid document of one kind, and what reads it."""

    document: Any
    read: Read
    damage: Callable[[Any, random.Random], bytes] = mutated


def check_code(code: str) -> None:
    """Shown code calls nothing but the workbench, with plain values."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name in CALLS or name.rsplit(".", 1)[-1] in METHODS, code
        assert not isinstance(node, ast.Lambda | ast.NamedExpr | ast.JoinedStr | ast.BoolOp | ast.BinOp | ast.comprehension), code


def read_recipe(content: bytes) -> None:
    recipe = Recipe.from_json(content)
    check_code(recipe.code())
    assert Recipe.from_json(recipe.to_json()) == recipe
    if recipe.name != "custom":
        assert wb.recipe(recipe.name, **dict(recipe.settings)) == recipe
        assert presets.parse(presets.spell(recipe)) == recipe


def read_spelled(content: bytes) -> None:
    check_code(presets.parse(json.loads(content)).code())


def spelled(document: str, draw: random.Random) -> bytes:
    """A recipe's word with something exchanged."""
    marks = [":", ",", "=", "bits", "name=1", "kind=x", "9" * 5000, "nan", "1e999", "-1", "é", ",bits=2", "scope=", " ", "true"]
    words = list(document)
    for _ in range(draw.choice([1, 2, 3])):
        words[draw.randrange(len(words))] = draw.choice(marks)
    return json.dumps("".join(words)).encode()


class Damaged:
    """A model folder or an artifact, of which one file is written over each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, read: Callable[[Path], object]) -> Read:
        """Write this file, and read the folder."""

        def written(content: bytes) -> object:
            before = (self.folder / name).read_bytes() if (self.folder / name).is_file() else None
            (self.folder / name).write_bytes(content)
            try:
                return read(self.folder)
            finally:
                (self.folder / name).unlink()
                if before is not None:
                    (self.folder / name).write_bytes(before)

        return written

    def put_signed(self, name: str) -> Read:
        """Write a document of an artifact so that all digests fit, and load the artifact."""
        ledger = json.loads((self.folder / "ledger.json").read_bytes())

        def written(content: bytes) -> object:
            if name == "ledger.json":
                signed = sign(content)
                return self.put(name, read_quantized_model)(signed)
            (self.folder / "ledger.json").write_bytes(sign(json.dumps(ledger).encode()))
            fits = {**ledger, "files": {**ledger["files"], name: digest_of(content)}}
            read = self.put(name, read_quantized_model)
            return self.put("ledger.json", lambda _: read(content))(sign(json.dumps(fits).encode()))

        return written


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sign(content: bytes) -> bytes:
    """The same ledger with a digest that fits, where it is one."""
    try:
        document = json.loads(content)
        return json.dumps({**document, "sha256": digest.hash_json(document)}).encode()
    except (ValueError, TypeError, RecursionError):
        return content


def outside_of_trees(document: Any, draw: random.Random) -> bytes:
    """Damage to recipe.json that leaves the stored trees alone: what formats declare is checked elsewhere."""
    trees = {name: layer["packed"] for name, layer in document["layers"].items()}
    bare = {**document, "layers": {name: {**layer, "packed": {}} for name, layer in document["layers"].items()}}
    if draw.random() < 0.1:
        return draw.choice([b"{", b"[" * 5000, b"\xff", b'{"version": 2, "version": 2}', b"9" * 5000, b"null"])
    changed = mutated_value(bare, draw)
    layers = changed.get("layers") if isinstance(changed, dict) else None
    for name, layer in layers.items() if isinstance(layers, dict) else ():
        if isinstance(layer, dict) and layer.get("packed") == {}:
            layer["packed"] = trees.get(name, {})
    return json.dumps(changed).encode()


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    return wb.open_model(shutil.copytree(tiny_models["llama"], tmp_path_factory.mktemp("damaged") / "llama"))


@pytest.fixture(scope="module")
def kinds(model: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    """Every kind of document that others may write, with what reads it."""
    shared, root = SharedModel(model), tmp_path_factory.mktemp("foreign")
    layer = model.layer_names[0]
    composed = wb.recipe("rtn", bits=3, group=32).replace(correction=wb.part("correction", "low-rank", rank=2), seed=3)
    named = wb.recipe("btc", bits=1.1, repair=False)
    plan = LayerPlan((("*.mlp.*", named), ("*", composed)))
    session = Session(shared, recipe=wb.recipe("rtn", bits=2, group=32))
    session.select(model.layer_names[-1])
    session.use(composed)
    session.undo()
    session.use(wb.recipe("pb-llm", share=0.2))
    session.mark(channels=[3, 4], layers=[layer])
    session.ask("Lily said “hello”.")
    session.restore(session.state() | {"prompt": "again"})
    quantized = wb.quantize_model(model, wb.recipe("rtn", bits=2, group=32), layers="*.0.*")
    artifact = Damaged(wb.save(quantized, root / "artifact", model))
    folder = Damaged(model.folder)
    facts = collect_card_facts(artifact.folder, model, wb.text("evaluation"), tokens=64)
    config, ledger, recipe = (
        json.loads((path / name).read_bytes())
        for path, name in (
            (model.folder, "config.json"),
            (artifact.folder, "ledger.json"),
            (artifact.folder, "recipe.json"),
        )
    )
    index = {"metadata": {}, "weight_map": dict.fromkeys(Checkpoint(model.folder).entries, "model-1.safetensors")}
    sharded = Damaged(root / "sharded")
    shutil.copytree(model.folder, sharded.folder)
    (sharded.folder / "model.safetensors").rename(sharded.folder / "model-1.safetensors")

    def read_plan(content: bytes) -> None:
        (root / "plan.json").write_bytes(content)
        for name in model.layer_names:
            chosen = LayerPlan.read(root / "plan.json").recipe_for(name)
            check_code("" if chosen is None else chosen.code())

    def read_session(content: bytes) -> None:
        other = Session(shared)
        session_file.restore_session(other, content)
        check_code(session_file.write_session_code(other))
        check_code(f"{other.recipe.code()}")
        _ = [other.history.words(number) for number in range(len(other.history.steps))]
        assert session_file.encode_session(other)

    def read_card(content: bytes) -> None:
        for name, text in (("card.json", content), ("card.html", b'<script type="application/json" id="card">' + content)):
            (root / name).write_bytes(text)
            card = Card.read(root / name)
            assert diff_cards(facts, card.facts).answer
            assert diff_cards(card.facts, facts).table() is not None
            assert card.answer
            assert card.figures()

    def read_query(content: bytes) -> None:
        arguments = {name: [value.encode("utf-8", "surrogateescape")] for name, value in json.loads(content).items()}
        other = Session(shared)
        read_address(other, decode_address(arguments))
        check_code(session_file.write_session_code(other))

    def query(document: Any, draw: random.Random) -> bytes:
        changed = {name: str(value) for name, value in document.items() if draw.random() < 0.7}
        if draw.random() < 0.4:
            changed["recipe"] = mutated(composed.to_dict(), draw).decode("utf-8", "surrogateescape")
        if draw.random() < 0.3:
            changed[draw.choice(["layer", "prompt", "tab", "tokens"])] = draw.choice(["\udcff\udcfe", "x" * 5000, "1,2", "\x00"])
        if draw.random() < 0.5:
            changed[draw.choice(["channels", "rows", "codes"])] = draw.choice(["9" * 5000, "-1", "1,,2", "x", "²", "٣", "1" * 17])
        return json.dumps(changed).encode()

    steps = [{"name": "one", "tokens_seen": 5}, {"name": "two", "tokens_seen": 6}]
    return {
        "recipe": Kind(composed.to_dict(), read_recipe),
        "named recipe": Kind(named.to_dict(), read_recipe),
        "spelled recipe": Kind("btc:bits=1.1,repair=no,scope=model", read_spelled, spelled),
        "plan": Kind(plan.to_dict(), read_plan),
        "session": Kind(json.loads(session_file.encode_session(session)), read_session),
        "card": Kind(facts, read_card),
        "config": Kind(config, folder.put("config.json", read_config)),
        "index": Kind(index, sharded.put(INDEX, lambda place: (check_folder(place), Checkpoint(place)))),
        "training": Kind({"stages": steps}, folder.put("training.json", lambda _: read_training_tokens(model))),
        "ledger": Kind(ledger, artifact.put_signed("ledger.json")),
        "saved recipe": Kind(recipe, artifact.put_signed("recipe.json"), outside_of_trees),
        "address": Kind({"layer": layer, "recipe": "rtn:bits=3", "prompt": "Tom", "channels": "3,17"}, read_query, query),
    }


KINDS = (
    *("recipe", "named recipe", "spelled recipe", "plan", "session", "card"),
    *("config", "index", "training", "ledger", "saved recipe", "address"),
)


def raw_exceptions(name: str, kind: Kind, count: int) -> list[str]:
    """What escaped as something else than one sentence, of so many damaged documents."""
    escaped = []
    for number in range(count):
        content = kind.damage(kind.document, random.Random(f"{name} {number}"))
        try:
            kind.read(content)
        except WorkbenchError as error:
            sentence = str(error)
            if not sentence or len(sentence) > LONGEST:
                escaped.append(f"{number}: a sentence of {len(sentence)} characters: {sentence[:200]}")
        except Exception as error:  # noqa: BLE001  what is looked for
            escaped.append(f"{number}: {type(error).__name__}: {error} for {content[:200]!r}")
    return escaped


@pytest.mark.parametrize("name", KINDS)
def test_what_is_valid_is_read(kinds: dict[str, Kind], name: str) -> None:
    kinds[name].read(json.dumps(kinds[name].document).encode())


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_document_is_read_or_refused_in_one_sentence(kinds: dict[str, Kind], name: str) -> None:
    assert raw_exceptions(name, kinds[name], FEW) == []


@pytest.mark.complete
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_documents_are_read_or_refused_in_one_sentence(kinds: dict[str, Kind], name: str) -> None:
    assert raw_exceptions(name, kinds[name], MANY) == []


def test_a_raw_exception_would_be_seen(kinds: dict[str, Kind]) -> None:
    """A reader as it was before there was one door."""
    naive = Kind(kinds["plan"].document, lambda content: [rule["layers"] for rule in json.loads(content)["rules"]])
    escaped = "\n".join(raw_exceptions("plan", naive, MANY))
    for error in ("UnicodeDecodeError", "JSONDecodeError", "RecursionError", "KeyError", "TypeError", "Exceeds the limit"):
        assert error in escaped


def test_every_kind_is_damaged(kinds: dict[str, Kind]) -> None:
    assert tuple(kinds) == KINDS
