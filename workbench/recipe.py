"""A recipe is a value: which parts quantize a layer, with every number that matters; and a plan for many layers.

Parts are frozen dataclasses that register themselves (see `registry`); this module knows none of them by name, but for those
that change nothing about activations and blocks, which recipes written before there was a choice mean.
"""

import dataclasses
import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from workbench import registry
from workbench.errors import RecipeError

VERSION = 1
UNREFINED = "none"
SHRINKAGE = 0.1


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A dataclass field with what a form and an error message need: its meaning, its range or its choices."""
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Part:
    """One named choice inside a recipe; subclasses add settings and register under a kind and a name."""

    kind: ClassVar[str]
    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_setting(f"{self.kind} {self.name!r}", field, getattr(self, field.name))

    def to_dict(self) -> dict[str, Any]:
        """`{"part": name, **settings}`."""
        return {"part": self.name, **dataclasses.asdict(self)}

    def code(self) -> str:
        """Python that makes this part again."""
        fields = "".join(f", {f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"wb.part({self.kind!r}, {self.name!r}{fields})"


def check_setting(owner: str, field: dataclasses.Field, value: Any) -> None:
    """Raise RecipeError when a setting has the wrong type, is out of range or is not among its choices."""
    limits = field.metadata
    wanted = type(field.default)
    right_type = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not right_type or (isinstance(value, bool) and wanted is not bool):
        raise RecipeError(f"{owner}: {field.name} is {value!r}; a value of type {wanted.__name__} is needed.")
    if limits.get("choices") is not None and value not in limits["choices"]:
        raise RecipeError(f"{owner}: {field.name} is {value!r}; use one of {', '.join(map(str, limits['choices']))}.")
    low, high = limits.get("low"), limits.get("high")
    # written so that NaN, which compares false with everything, is out of range too
    above = low is None or value >= low
    below = high is None or value <= high
    if not (above and below):
        if low is None or high is None:
            allowed = f"at least {low}" if high is None else f"at most {high}"
        else:
            allowed = f"from {low} to {high}"
        raise RecipeError(f"{owner}: {field.name} is {value!r}; it must be {allowed}.")


def no_refinement() -> Part:
    """The refinement that does nothing, which a recipe has unless it names another."""
    return registry.make("refinement", UNREFINED)


def shrinkage_setting(default: float = SHRINKAGE) -> Any:
    """The setting `shrinkage` of recipes and presets."""
    what = "tokens a column of uncorrelated inputs that calibration begins with, so that few tokens do no harm; 0 for none"
    return setting(default, what, low=0.0, high=1e6)


@dataclass(frozen=True)
class Recipe:
    """How one layer is quantized: transform · split · coders (one for each mask of the split) · assignment · correction ·
    refinement (of a whole block, where blocks are quantized in sequence).

    `activations` says what happens to the layer's input when it runs. `shrinkage` is the strength at which a second moment of few
    tokens is mixed with its diagonal (see `quantizers.shrinkage`).
    `name` and `settings` remember the preset it came from, so that it can be printed as one short call.
    """

    transform: Part
    split: Part
    coders: tuple[Part, ...]
    assignment: Part
    correction: Part
    activations: Part = dataclasses.field(default_factory=lambda: registry.make("activations", "keep"))
    refinement: Part = dataclasses.field(default_factory=no_refinement)
    seed: int = 0
    name: str = "custom"
    settings: tuple[tuple[str, Any], ...] = ()
    shrinkage: float = shrinkage_setting()

    def __post_init__(self) -> None:
        check_setting("recipe", next(field for field in dataclasses.fields(self) if field.name == "shrinkage"), self.shrinkage)

    @property
    def refines(self) -> bool:
        """Whether a block is refined after its layers are quantized."""
        return self.refinement.name != UNREFINED

    def replace(self, **parts: Any) -> "Recipe":
        """A copy with some parts exchanged; it is no longer the named preset."""
        return dataclasses.replace(self, **{"name": "custom", "settings": (), **parts})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with a version."""
        # a recipe without refinement reads as it did before there was one: its hash is the key of stored results
        refinement = {"refinement": self.refinement.to_dict()} if self.refines else {}
        return {
            "version": VERSION,
            "name": self.name,
            "settings": dict(self.settings),
            "seed": self.seed,
            "transform": self.transform.to_dict(),
            "split": self.split.to_dict(),
            "coders": [coder.to_dict() for coder in self.coders],
            "assignment": self.assignment.to_dict(),
            "correction": self.correction.to_dict(),
            "activations": self.activations.to_dict(),
            "shrinkage": self.shrinkage,
            **refinement,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; an unknown version, part or field is a RecipeError."""
        if data.get("version") != VERSION:
            raise RecipeError(unread("recipe", data))
        try:
            return cls(
                transform=part_from_dict("transform", data["transform"]),
                split=part_from_dict("split", data["split"]),
                coders=tuple(part_from_dict("coder", coder) for coder in data["coders"]),
                assignment=part_from_dict("assignment", data["assignment"]),
                correction=part_from_dict("correction", data["correction"]),
                activations=part_from_dict("activations", data.get("activations", {"part": "keep"})),
                refinement=part_from_dict("refinement", data.get("refinement", {"part": UNREFINED})),
                seed=data.get("seed", 0),
                name=data.get("name", "custom"),
                settings=tuple(data.get("settings", {}).items()),
                shrinkage=data.get("shrinkage", 0.0),  # recipes were written without when there was none
            )
        except KeyError as error:
            needed = "transform, split, coders, assignment, correction"
            raise RecipeError(f"the recipe has no {error.args[0]!r}; it needs {needed}.") from None

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        return cls.from_dict(parsed("recipe", text))

    def code(self) -> str:
        """Python that makes this recipe again, after `import workbench as wb`."""
        if self.name != "custom":
            settings = "".join(f", {key}={value!r}" for key, value in self.settings)
            return f"wb.recipe({self.name!r}{settings})"
        coders = "".join(f"{coder.code()}, " for coder in self.coders)
        refinement = f"    refinement={self.refinement.code()},\n" if self.refines else ""
        shrinkage = f"    shrinkage={self.shrinkage!r},\n" if self.shrinkage != SHRINKAGE else ""
        return (
            "wb.Recipe(\n"
            f"    transform={self.transform.code()},\n"
            f"    split={self.split.code()},\n"
            f"    coders=({coders.rstrip()}),\n"
            f"    assignment={self.assignment.code()},\n"
            f"    correction={self.correction.code()},\n"
            f"    activations={self.activations.code()},\n"
            f"{refinement}"
            f"{shrinkage}"
            f"    seed={self.seed},\n"
            ")"
        )


def part_from_dict(kind: str, data: dict[str, Any]) -> Part:
    """The inverse of `Part.to_dict`."""
    fields = dict(data)
    return registry.make(kind, fields.pop("part"), **fields)


def parsed(what: str, text: str) -> dict[str, Any]:
    """JSON text as a document; RecipeError where it is none."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"the {what} is not JSON: {error}.") from None
    if not isinstance(data, dict):
        raise RecipeError(f"the {what} is a JSON {type(data).__name__}; it must be an object with a version.")
    return data


def unread(what: str, data: dict[str, Any]) -> str:
    """One sentence for a document of a version that is not known here."""
    return f"{what} version {data.get('version')!r} is not known here; this workbench reads version {VERSION}."


@dataclass(frozen=True)
class LayerPlan:
    """Which recipe each layer gets: the first rule whose pattern matches the layer's name; no match keeps the layer."""

    rules: tuple[tuple[str, Recipe], ...]

    @classmethod
    def uniform(cls, recipe: Recipe, pattern: str = "*") -> Self:
        """One recipe for every layer that matches `pattern`."""
        return cls(((pattern, recipe),))

    def recipe_for(self, layer: str) -> Recipe | None:
        """The recipe of one layer, or None to leave it as it is."""
        return next((recipe for pattern, recipe in self.rules if fnmatch.fnmatchcase(layer, pattern)), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with a version."""
        return {"version": VERSION, "rules": [{"layers": p, "recipe": r.to_dict()} for p, r in self.rules]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        if data.get("version") != VERSION:
            raise RecipeError(unread("plan", data))
        if "rules" not in data:
            raise RecipeError("the plan has no 'rules', a list of layers and recipes; `workbench allocate` writes one.")
        return cls(tuple((rule["layers"], Recipe.from_dict(rule["recipe"])) for rule in data["rules"]))

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        return cls.from_dict(parsed("plan", text))

    def diff(self, other: "LayerPlan", layers: Iterable[str]) -> dict[str, tuple[Recipe | None, Recipe | None]]:
        """Of `layers`, those whose recipe differs in the other plan: (here, there); None keeps the layer."""
        pairs = {name: (self.recipe_for(name), other.recipe_for(name)) for name in layers}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
