"""Recipes: the parts that quantize a layer with all their settings, as one value; and plans for many layers.

Parts are frozen dataclasses that register themselves (see `registry`); this module knows none of them by name, but for those
that change nothing about activations and blocks, which recipes written before there was a choice mean.
"""

import dataclasses
import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from workbench import registry
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import RecipeError
from workbench.json_value import JsonValue, parse, read, shorten_value, wrap_value
from workbench.seeds import LARGEST_SEED, check_seed

if TYPE_CHECKING:  # what the parts promise is said above this floor
    from workbench.quantizers.contract import Activations, Assignment, Coder, Correction, Split, Transform
    from workbench.quantizers.learning.refine import Refinement

RECIPE_VERSION = 1
UNREFINED = "none"
SHRINKAGE = 0.1
PARTS = ("transform", "split", "coders", "assignment", "correction")
LATER_PARTS = ("activations", "refinement")  # which recipes of earlier releases have not
CUSTOM = "custom"  # the name of a recipe that is no preset's


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
    rare: bool = False,
) -> Any:
    """A dataclass field with what a form and an error message need: its meaning, its range or its choices.

    A form folds away a setting that is `rare`: few people change it, and its default is good for the others.
    """
    limits = {"help": help, "low": low, "high": high, "choices": choices, "rare": rare}
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class Part:
    """One named choice inside a recipe; subclasses add settings and register under a kind and a name."""

    kind: ClassVar[str]
    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_setting(f"{self.kind} {self.name!r}", field, getattr(self, field.name))

    def to_dict(self) -> dict[str, Any]:
        """`{"part": name, **settings}`."""
        return {"part": self.name, **dataclasses.asdict(self)}

    def replace(self, **settings: Any) -> Self:
        """A copy with other settings."""
        return dataclasses.replace(self, **settings)

    def code(self) -> str:
        """Python that makes this part again."""
        fields = "".join(f", {f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"wb.part({self.kind!r}, {self.name!r}{fields})"


def _check_setting(owner: str, field: dataclasses.Field, value: Any) -> None:
    """Raise RecipeError when a setting has the wrong type, is out of range or is not among its choices."""
    limits = field.metadata
    expected = type(field.default)
    right_type = isinstance(value, expected) or (expected is float and isinstance(value, int))
    if not right_type or (isinstance(value, bool) and expected is not bool):
        raise RecipeError(f"{owner}: {field.name} is {shorten_value(value)}; a value of type {expected.__name__} is needed.")
    if limits.get("choices") is not None and value not in limits["choices"]:
        raise RecipeError(
            f"{owner}: {field.name} is {shorten_value(value)}; use one of {', '.join(map(str, limits['choices']))}."
        )
    low, high = limits.get("low"), limits.get("high")
    # written so that NaN, which compares false with everything, is out of range too
    above = low is None or value >= low
    below = high is None or value <= high
    if not (above and below):
        if low is None or high is None:
            allowed = f"at least {low}" if high is None else f"at most {high}"
        else:
            allowed = f"from {low} to {high}"
        raise RecipeError(f"{owner}: {field.name} is {shorten_value(value)}; it must be {allowed}.")


def _make_null_refinement() -> "Refinement":
    """The refinement that does nothing, which a recipe has unless it names another."""
    return registry.make("refinement", UNREFINED)


def shrinkage_setting(default: float = SHRINKAGE) -> Any:
    """The setting `shrinkage` of recipes and presets."""
    what = "shrinkage of the second moment, in virtual tokens of uncorrelated inputs per column; 0 for none"
    return setting(default, what, low=0.0, high=1e6, rare=True)


def guided_setting() -> Any:
    """The setting `guided` of recipes and presets."""
    what = "groups of output rows whose second moments are weighted by the loss of the whole model; 0 for unweighted moments"
    return setting(0, what, low=0, high=4096, rare=True)


@dataclass(frozen=True)
class Recipe:
    """How one layer is quantized: transform, split, coders, assignment, correction, and refinement of its block.

    Most recipes come from `wb.recipe`; `replace` exchanges parts of one.

    Args:
        transform: The basis that weights are coded in.
        split: Which weights go to which coder.
        coders: One for each mask of the split.
        assignment: How codes are chosen.
        correction: What is changed after coding.
        activations: What happens to the layer's input when it runs.
        refinement: What is done to a whole block, where blocks are quantized in sequence.
        seed: Draws whatever a part draws.
        name: The preset it came from, "custom" without one; with `settings` it is printed as one short call.
        settings: The preset's settings, as pairs.
        shrinkage: Tokens a column of uncorrelated inputs that calibration begins with: a second moment of few tokens is mixed
            with its diagonal (see `quantizers.shrinkage`).
        guided: Groups of output rows, each with a second moment weighted by how strongly the whole model's loss depends on them
            (see `guided_moments`), for error feedback and what coders fit; 0 uses the layer's plain second moment.

    Raises:
        RecipeError: For a seed, a shrinkage or a number of groups out of range.

    Example:
        >>> import workbench as wb
        >>> recipe = wb.recipe("rtn", bits=3)
        >>> recipe.coders[0].name, recipe.assignment.name
        ('uniform', 'nearest')
        >>> recipe.replace(transform=wb.part("transform", "hadamard")).name
        'custom'
    """

    transform: "Transform[Any]"
    split: "Split"
    coders: tuple["Coder[Any, Any]", ...]
    assignment: "Assignment"
    correction: "Correction"
    activations: "Activations" = dataclasses.field(default_factory=lambda: registry.make("activations", "keep"))
    refinement: "Refinement" = dataclasses.field(default_factory=_make_null_refinement)
    seed: int = 0
    name: str = CUSTOM
    settings: tuple[tuple[str, Any], ...] = ()
    shrinkage: float = shrinkage_setting()
    guided: int = guided_setting()

    def __post_init__(self) -> None:
        check_seed(self.seed, RecipeError)
        for field in dataclasses.fields(self):
            if field.name in ("shrinkage", "guided"):
                _check_setting("recipe", field, getattr(self, field.name))

    @property
    def refines(self) -> bool:
        """Whether a block is refined after its layers are quantized."""
        return self.refinement.name != UNREFINED

    def replace(self, **parts: Any) -> "Recipe":
        """A copy with some parts exchanged; it is no longer the named preset."""
        return dataclasses.replace(self, **{"name": CUSTOM, "settings": (), **parts})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with a version."""
        # a recipe without refinement reads as it did before there was one: its hash is the key of stored results
        refinement = {"refinement": self.refinement.to_dict()} if self.refines else {}
        guided = {"guided": self.guided} if self.guided else {}  # likewise
        return {
            "version": RECIPE_VERSION,
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
            **guided,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | JsonValue) -> "Recipe":
        """The inverse of `to_dict`; an unknown version, part or field is a RecipeError.

        It keeps the name of a preset only where the preset has these parts with these settings.
        """
        value = wrap_value(data, "the recipe", RecipeError)
        value.check_version("recipe", RECIPE_VERSION)
        value.check_names("version", "name", "settings", "seed", "shrinkage", "guided", *PARTS, *LATER_PARTS)
        needed = f"it needs {', '.join(PARTS)}"
        parts: dict[str, Any] = {kind: _read_part(kind, value.get(kind, needed)) for kind in PARTS if kind != "coders"}
        parts |= {kind: _read_part(kind, later) for kind in LATER_PARTS if (later := value.find(kind)) is not None}
        coders: Any = tuple(_read_part("coder", coder) for coder in value.get("coders", needed).elements())
        seed = value.find("seed")
        strength = value.find("shrinkage")
        shrinkage = 0.0 if strength is None else strength.as_number()
        guided = value.find("guided")
        groups = 0 if guided is None else guided.as_whole()
        before = {"shrinkage": 0.0} if strength is None else {}  # recipes were written without it when there was none
        recipe = cls(
            **parts,
            coders=coders,
            seed=0 if seed is None else seed.as_whole(high=LARGEST_SEED),
            shrinkage=shrinkage,
            guided=groups,
        )
        name, settings = value.find("name"), value.find("settings")
        return recipe.named(
            CUSTOM if name is None else name.as_text(),
            {**before, **({} if settings is None else {key: setting.as_scalar() for key, setting in settings.items()})},
        )

    def named(self, name: str, settings: Mapping[str, Any]) -> "Recipe":
        """The same recipe as the preset `name` with these settings, if that has exactly these parts; else a custom one."""
        plain = self.replace()
        try:
            preset = registry.make("preset", name, **settings).recipe()
        except RecipeError:
            return plain
        return dataclasses.replace(plain, name=preset.name, settings=preset.settings) if preset.replace() == plain else plain

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The inverse of `to_json`."""
        return cls.from_dict(parse(text, "the recipe", RecipeError))

    def code(self) -> str:
        """Python that makes this recipe again, after `import workbench as wb`."""
        if self.name != CUSTOM:
            settings = "".join(f", {key}={value!r}" for key, value in self.settings)
            return f"wb.recipe({self.name!r}{settings})"
        coders = "".join(f"{coder.code()}, " for coder in self.coders)
        refinement = f"    refinement={self.refinement.code()},\n" if self.refines else ""
        shrinkage = f"    shrinkage={self.shrinkage!r},\n" if self.shrinkage != SHRINKAGE else ""
        guided = f"    guided={self.guided},\n" if self.guided else ""
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
            f"{guided}"
            f"    seed={self.seed},\n"
            ")"
        )


def parse_part(kind: str, data: Mapping[str, Any]) -> Part:
    """The inverse of `Part.to_dict`."""
    return _read_part(kind, wrap_value(data, f"the {kind}", RecipeError))


def _read_part(kind: str, value: JsonValue) -> Part:
    """A part of a recipe as it was written; RecipeError for what is none."""
    name = value.get("part", "it needs the part's name").as_text()
    fields = {field: setting.as_scalar() for field, setting in value.items() if field != "part"}
    try:
        return registry.make(kind, name, **fields)
    except RecipeError as error:
        raise RecipeError(f"{value}: {error}") from None


@dataclass(frozen=True)
class LayerPlan(ShownInCell):
    """Which recipe each layer gets: the first rule whose pattern matches the layer's name; no match keeps the layer.

    Args:
        rules: Pairs of a pattern (`*` matches anything) and a recipe.

    Example:
        >>> import workbench as wb
        >>> plan = wb.LayerPlan((("*.mlp.*", wb.recipe("rtn", bits=2)), ("*.q_proj", wb.recipe("rtn", bits=4))))
        >>> plan.recipe_for("model.layers.0.mlp.down_proj").code()
        "wb.recipe('rtn', bits=2)"
        >>> plan.recipe_for("model.layers.0.self_attn.k_proj") is None
        True
    """

    rules: tuple[tuple[str, Recipe], ...]

    @classmethod
    def uniform(cls, recipe: Recipe, pattern: str = "*") -> Self:
        """One recipe for every layer that matches `pattern`."""
        return cls(((pattern, recipe),))

    def cell_summary(self) -> CellSummary:
        """The rules, first match first."""
        rules = f"{len(self.rules)} rule" if len(self.rules) == 1 else f"{len(self.rules)} rules"
        answer = f"{rules}; the first rule whose pattern matches a layer's name applies."
        rows = [(pattern, recipe.code()) for pattern, recipe in self.rules]
        return CellSummary.of_rows("Which recipe does each layer get?", answer, ("layers", "recipe"), rows)

    def recipe_for(self, layer: str) -> Recipe | None:
        """The recipe of one layer, or None to leave it as it is."""
        return next((recipe for pattern, recipe in self.rules if fnmatch.fnmatchcase(layer, pattern)), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with a version."""
        return {"version": RECIPE_VERSION, "rules": [{"layers": p, "recipe": r.to_dict()} for p, r in self.rules]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | JsonValue) -> Self:
        """The inverse of `to_dict`."""
        value = wrap_value(data, "the plan", RecipeError)
        value.check_version("plan", RECIPE_VERSION)
        value.check_names("version", "rules")
        rules = value.get("rules", "it is a list of layers and recipes, as written by `workbench allocate`").elements()
        return cls(tuple(cls._read_rule(rule) for rule in rules))

    @staticmethod
    def _read_rule(rule: JsonValue) -> tuple[str, Recipe]:
        rule.check_names("layers", "recipe")
        needed = "a rule needs layers and recipe"
        return rule.get("layers", needed).as_text(), Recipe.from_dict(rule.get("recipe", needed))

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        return cls.from_dict(parse(text, "the plan", RecipeError))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The plan in a file, which `workbench allocate` writes."""
        return cls.from_dict(read(path, f"the plan {path}", RecipeError))

    def diff(self, other: "LayerPlan", layers: Iterable[str]) -> dict[str, tuple[Recipe | None, Recipe | None]]:
        """Of `layers`, those whose recipe differs in the other plan: (here, there); None keeps the layer."""
        pairs = {name: (self.recipe_for(name), other.recipe_for(name)) for name in layers}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
