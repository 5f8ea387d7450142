"""The interface of schemes for key-value caches, and schemes by name: `make_scheme("zipcache", bits=4)` or `zipcache:bits=4`."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from workbench import registry
from workbench.errors import RecipeError
from workbench.kernels.packing.packed import Packed
from workbench.recipe import Part


@dataclass(frozen=True)
class Scheme(Part):
    """How one block of a layer's cache is stored. Subclasses are frozen dataclasses of settings that register under "kv".

    A block is `block` tokens of all heads side by side, float32 `[tokens, channels]`; keys come after their positions were
    rotated in. `source` is the paper with its arXiv id, `note` what differs here; `watches` says that it needs to know how
    much attention each token got.
    """

    source: ClassVar[str] = ""
    note: ClassVar[str] = ""
    watches: ClassVar[bool] = False

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """The stored forms of both; `saliency [tokens]` is zero where the scheme does not watch."""
        raise NotImplementedError

    @property
    def nominal_bits(self) -> float:
        """Bits per value as the paper counts them: codes only."""
        raise NotImplementedError

    def at(self, bits: int) -> "Scheme":
        """The same scheme at so many bits, where it has that setting."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return make_scheme(self.name, **{**values, "bits": bits}) if "bits" in values else self

    def spelled(self) -> str:
        """The scheme as `parse` reads it: its name, its bits, and other settings that are not the default."""
        values = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name == "bits" or getattr(self, f.name) != f.default]
        return ":".join(filter(None, (self.name, ",".join(f"{name}={value}" for name, value in values))))


def list_schemes() -> list[str]:
    """All schemes, sorted."""
    return registry.list_names("kv")


def make_scheme(name: str, **settings: Any) -> Scheme:
    """A scheme by name; RecipeError names the nearest scheme, setting or value for one that does not exist."""
    return registry.make("kv", name, **settings)


def parse(text: str) -> Scheme:
    """The scheme spelled `name` or `name:key=value,key=value`; RecipeError says what cannot be read."""
    name, _, rest = text.partition(":")
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(registry.find("kv", name.strip()))}
    settings: dict[str, Any] = {}
    for pair in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals:
            raise RecipeError(f"scheme {text!r}: {pair!r} is not key=value; write for example {name}:bits=2.")
        try:
            settings[key] = kinds.get(key, str)(value)
        except ValueError:
            raise RecipeError(f"kv {name!r}: {key} is {value!r}; a number is needed.") from None
    return make_scheme(name.strip(), **settings)
