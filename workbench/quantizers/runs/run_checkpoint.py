"""Checkpoints of a long run in a store, under the hash of their inputs: a killed run resumes from there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench import store as stores
from workbench.artifact.folder_layout import deserialize_tree, make_tensor_key, serialize_tree
from workbench.kernels.packing.packed import build_ledger
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import State
from workbench.quantizers.learning.descent import Memory
from workbench.quantizers.runs.block_refinement import RefinedBlock
from workbench.recipe import Recipe
from workbench.store import Store


@dataclass(frozen=True)
class Finished:
    """What a run has finished so far. `made_from` are the JSON facts that decide its results; without a store nothing is kept."""

    store: Store | None
    made_from: Mapping[str, Any]

    def key(self, what: str, name: str) -> str:
        """Where one result lies."""
        return stores.compute_key(dict(self.made_from), what, name)

    def layer(self, name: str, what: str = "layer") -> QuantizedLayer | None:
        """A finished layer, or None; `what` is "layer" as it was quantized, "refined" as it is after refinement."""
        entry = self.store.get(self.key(what, name)) if self.store else None
        if entry is None:
            return None
        packed = deserialize_tree(entry.facts["packed"], entry.tensors)
        facts = {field: entry.facts[field] for field in ("relative_error", "output_error", "seconds", "tokens")}
        recipe = Recipe.from_dict(entry.facts["recipe"])
        return QuantizedLayer(name, packed, recipe, build_ledger(packed, entry.facts["nominal_bits"]), **facts)

    def keep_layer(self, layer: QuantizedLayer, what: str = "layer") -> None:
        """Keep a finished layer; `what` as above."""
        if self.store is None:
            return
        tensors = {
            make_tensor_key(layer.name, path, node, t): v for path, node in layer.packed.walk() for t, v in node.tensors.items()
        }
        facts = {
            "packed": serialize_tree(layer.name, layer.packed),
            "recipe": layer.recipe.to_dict(),
            "nominal_bits": layer.nominal_bits,
            "relative_error": layer.relative_error,
            "output_error": layer.output_error,
            "seconds": layer.seconds,
            "tokens": layer.tokens,
        }
        about = f"{layer.name} by {layer.recipe.name}, {layer.bits_per_weight:.2f} bits"
        self.store.put(self.key(what, layer.name), tensors, facts, kind=f"quantized {what}", what=about)

    def block(self, name: str, layers: Sequence[str]) -> RefinedBlock | None:
        """A refined block with these layers, or None."""
        vectors = self.store.get(self.key("vectors", name)) if self.store else None
        by_layer = {layer: self.layer(layer, "refined") for layer in layers}
        complete = {layer: result for layer, result in by_layer.items() if result is not None}
        return None if vectors is None or len(complete) < len(layers) else RefinedBlock(complete, vectors.tensors, vectors.facts)

    def keep_block(self, name: str, block: RefinedBlock) -> None:
        """Keep a refined block."""
        if self.store is not None:
            for layer in block.layers.values():
                self.keep_layer(layer, "refined")
            self.store.put(self.key("vectors", name), block.vectors, block.facts, kind="refined vectors", what=name)

    def descent(self, name: str) -> tuple[Memory | None, Mapping[str, Any]]:
        """How far the training of `name` has come, or None, and what is known of it besides."""
        entry = self.store.get(self.key("descent", name)) if self.store else None
        return (None, {}) if entry is None else (Memory.from_tensors(entry.tensors, entry.facts), entry.facts)

    def keep_descent(self, name: str, memory: Memory, beside: Mapping[str, Any]) -> None:
        """Keep how far the training of `name` has come, and JSON facts beside it."""
        if self.store is not None:
            tensors, facts = memory.to_tensors()
            what = f"{name}, step {memory.step}"
            self.store.put(self.key("descent", name), tensors, {**facts, **beside}, kind="training", what=what)

    def drop_descent(self, name: str) -> None:
        """Forget a training that has ended."""
        if self.store is not None:
            self.store.remove(self.key("descent", name))

    def states(self, block: str, chosen: Mapping[str, Recipe]) -> dict[str, State] | None:
        """What the transforms of a block's layers found out, or None; `chosen` has the recipe of every layer."""
        entry = self.store.get(self.key("states", block)) if self.store else None
        if entry is None:
            return None
        by_layer = {name: {t: entry.tensors[key] for t, key in keys.items()} for name, keys in entry.facts["states"].items()}
        return {name: chosen[name].transform.read_state(tensors) for name, tensors in by_layer.items()}

    def keep_states(self, block: str, states: Mapping[str, State]) -> None:
        """Keep what the transforms of a block's layers found out."""
        if self.store is None:
            return
        by_layer = {name: state.tensors() for name, state in states.items()}
        keys = {name: {t: f"{name}|{t}" for t in tensors} for name, tensors in by_layer.items()}
        # layers of one input hold the same tensors, and a file's tensors must be apart
        stored = {keys[name][t]: value.clone() for name, tensors in by_layer.items() for t, value in tensors.items()}
        self.store.put(self.key("states", block), stored, {"states": keys}, kind="learned transforms", what=block)
