"""A model's blocks in sequence: transforms learned per block, layers quantized on the outputs of quantized layers.

First pass, where a transform has to see inputs before what layers share is prepared, or is learned on full-precision inputs:
every block runs on these. Second pass: a layer's input comes through all quantized layers before it, those of its own block
included; where its assignment repairs, it aims at the output that the original model has there. A block's transforms are
learned before its first layer, on the inputs that it then has. In memory: one block's weights, and the text's hidden states in
both models.
"""

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.calibration import is_sparse, iterate_windows, list_gaps
from workbench.guided_moments import TokenWeights
from workbench.models.block_pass import BlockPass, Call, extract_hidden_states
from workbench.models.blocks import BlockRow
from workbench.quantized import MODEL_REFINEMENT, QuantizedLayer
from workbench.quantizers.contract import Snapshot, State
from workbench.quantizers.distance import compute_relative_error
from workbench.quantizers.learning.basis import Basis
from workbench.quantizers.learning.block import BlockLoss, learn_block
from workbench.quantizers.learning.inputs import Input
from workbench.quantizers.learning.refine import QuantizedBlock
from workbench.quantizers.pipeline import InLoop, check_inputs, needs_moment, quantize_layer
from workbench.quantizers.runs.block_recipes import check_outside, find_whole_refinement, group_by_transform
from workbench.quantizers.runs.block_refinement import RefinedBlock, compute_aim, measure_layers, refine
from workbench.quantizers.runs.block_run import BlockRun, Seen, round_inputs
from workbench.quantizers.runs.guidance import weigh_tokens
from workbench.quantizers.runs.model_refinement import refine_whole_model
from workbench.quantizers.runs.progress import LayerProgress, Place
from workbench.quantizers.runs.quantize_layer import is_measured
from workbench.quantizers.runs.run_checkpoint import Finished
from workbench.quantizers.runs.sharing import Scopes, mark_transform
from workbench.quantizers.shrinkage import make_zero_moment
from workbench.quantizers.transforms.learned import Learned
from workbench.recipe import LayerPlan, Recipe
from workbench.store import Store

if TYPE_CHECKING:
    from workbench.models import ModelHandle
    from workbench.models.text import Text


class BlockSequence:
    """One run over the blocks of `model`, on `tokens` tokens of `text`; what it finishes is kept in `store`."""

    def __init__(
        self,
        model: "ModelHandle",
        plan: LayerPlan,
        chosen: Mapping[str, Recipe],
        text: "Text",
        *,
        tokens: int,
        seed: int,
        store: Store | None,
    ) -> None:
        self.model, self.chosen, self.scopes = model, dict(chosen), Scopes(plan, chosen)
        self.head, self.embedding = (name if name in chosen else None for name in (model.head_name, model.embedding_name))
        for name in (self.head, self.embedding):
            check_outside(name, chosen)
        self.row = BlockRow(model)
        self.windows, self.seed = list(iterate_windows(model, text, tokens, seed)), seed
        self.model_refinement = find_whole_refinement(chosen)
        token_count = sum(window.shape[1] for window in self.windows)
        self.calibration: dict[str, Any] = {
            "text": text.name,
            "fingerprint": text.fingerprint,
            "tokens": token_count,
            "seed": seed,
        }
        made_from = {"model": model.fingerprint, "plan": plan.to_dict(), "layers": list(chosen), **self.calibration}
        self.finished = Finished(store, made_from)
        self.token_weights: Mapping[str, TokenWeights] = {}
        self.changed_tensors: dict[str, Tensor] = {}
        self.refined: Mapping[str, Any] = {}
        self.unreached: list[str] = []
        self.sparse: dict[str, int] = {}
        self.steps_left: Iterator[int] = iter(())
        transforms = {name: recipe.transform for name, recipe in chosen.items()}
        self.late = {
            name for name, transform in transforms.items() if isinstance(transform, Learned) and transform.inputs == "quantized"
        }
        shares = any(scope is not None for scope in self.scopes.names.values())
        early = (transform for name, transform in transforms.items() if name not in self.late)
        # the original model is run beside the quantized one only where a layer aims at what it puts out
        self.repairs = any(recipe.assignment.repairs for recipe in chosen.values())
        self.compares = self.repairs or bool(self.refining())
        self.looks_first = any(transform.learns or (transform.needs_moment and shares) for transform in early)

    @property
    def phases(self) -> int:
        """Passes over the blocks."""
        return 2 if self.looks_first else 1

    def facts(self) -> dict[str, Any]:
        """How the model was calibrated and trained; layers that saw no token, or too few: see `CalibrationStats.facts`."""
        refined = {MODEL_REFINEMENT: dict(self.refined)} if self.refined else {}
        return {**self.calibration, **list_gaps(self.unreached, self.sparse), **refined}

    def steps(self) -> Generator[LayerProgress, None, dict[str, QuantizedLayer]]:
        """The whole run."""
        self.token_weights = yield from weigh_tokens(self)
        yield from self.scopes.prepare_beginning(self.model, self.phases)
        states = (yield from self.first_pass()) if self.looks_first else {}
        layers = yield from self.second_pass(states)
        if self.model_refinement is not None:
            position = replace(self.locate(self.model.source), width=self.width)
            layers, self.refined = yield from refine_whole_model(self, layers, self.model_refinement, position)
        return layers

    def run(self, index: int, block: nn.Module, calls: Sequence[Call], original: BlockPass | None = None) -> BlockRun:
        """Block `index` at work on what it is called with in the quantized and, where there is one, in the original model."""
        names = [*self.row.layers[index], *(name for name in self.row.routers[index] if name in self.chosen)]
        layers = {name: block.get_submodule(self.row.within(index, name)) for name in names}
        experts = {name for name in layers if self.model.layer(name).expert is not None}
        return self.beside(BlockRun(block, layers, calls, experts=experts), original)

    def head_run(self, head: str, calls: Sequence[Call], original: BlockPass | None = None) -> BlockRun:
        """The output head at work behind the last block, as a block of one layer."""
        module = self.row.module(head)
        return self.beside(BlockRun(module, {head: module}, calls), original)

    def beside(self, run: BlockRun, original: BlockPass | None) -> BlockRun:
        """The run with the token weights, and its calls and weights in the original model, where there is one."""
        run = replace(run, weights=self.token_weights)
        if original is None:
            return run
        weights = dict(run.block.named_parameters())
        return replace(run, original_calls=original.calls, original=weights, repairs=self.repairs)

    def first_pass(self) -> Generator[LayerProgress, None, dict[str, State]]:
        """What transforms find out on full-precision inputs, by layer; one input and transform share one state."""
        states: dict[str, State] = {}
        early = {name: recipe for name, recipe in self.chosen.items() if name not in self.late}
        count = len(self.row.names) + (self.head is not None)
        text = self.row.start(self.windows, self.head)
        for index in self.row.visit(text):
            name = self.row.names[index]
            position = Place(name, index, count, 0, 2)
            with self.row.block(index) as block:
                run = self.run(index, block, text.calls)
                outputs = run.outputs()
                states |= yield from self.kept_states(position, index, run, outputs, early)
                text.advance(outputs)
        if self.head is not None:
            position, run = Place(self.head, count - 1, count, 0, 2), self.head_run(self.head, text.calls)
            states |= yield from self.kept_states(position, count - 1, run, (), early)
            text.leave(self.model.layer(self.head).rows)
        return states

    def kept_states(
        self, position: Place, index: int, run: BlockRun, target: Sequence[Any], chosen: Mapping[str, Recipe]
    ) -> Generator[LayerProgress, None, dict[str, State]]:
        """`find_states`, or what was kept of it."""
        stored_states = self.finished.states(position.layer, self.chosen)
        if stored_states is None:
            stored_states = yield from position.follow("learn", self.find_states(index, run, target, chosen))
            self.finished.keep_states(position.layer, stored_states)
        return stored_states

    def find_states(
        self, index: int, run: BlockRun, target: Sequence[Any], chosen: Mapping[str, Recipe]
    ) -> Generator[Snapshot, None, dict[str, State]]:
        """The states of one block's `chosen` layers: bases learned together on its output, others fitted on their own inputs."""
        inputs, states = list[Input](), dict[str, State]()
        learned = None
        for group in group_by_transform(run.inputs(), chosen):
            recipe = self.chosen[group[0]]
            if isinstance(recipe.transform, Learned):
                learned = learned or recipe.transform
                weights = {name: self.model.weight(name).float() for name in group}
                basis = Basis(weights[group[0]].shape[1], recipe.transform.factors, recipe.seed)
                roundings = {name: InLoop(self.chosen[name], self.scopes.shared(name)) for name in group}
                layer_inputs = run.inputs_of(group[0])
                moment = layer_inputs.shrunk(recipe.shrinkage) if layer_inputs else None
                inputs.append(Input(weights, basis, roundings, recipe.transform.gradient, moment))
            else:
                transform, layer_inputs = recipe.transform, run.inputs_of(group[0])
                moment = layer_inputs.shrunk(recipe.shrinkage) if layer_inputs else None
                for name in group:
                    states[name] = transform.fit(self.model.weight(name).float(), moment, recipe.seed)
        if learned is not None:
            names = {name: f"{self.row.within(index, name)}.weight" for name in run.layers}
            orient = {name: self.model.layer(name).orient for name in run.layers}
            loss = BlockLoss(run.block, run.calls, run.hidden, [extract_hidden_states(output) for output in target])
            seed = self.chosen[next(iter(inputs[0].weights))].seed
            steps = learn_block(
                loss,
                inputs,
                names,
                orient,
                learned.schedule,
                tokens=learned.tokens,
                draws=learned.draws,
                commitment=learned.commitment,
                seed=seed,
            )
            for step in steps:
                yield Snapshot("learn", step.step, max(step.steps, 1), {"step": step})
        for layer_input in inputs:
            state = layer_input.basis.state()
            states |= dict.fromkeys(layer_input.weights, state)
        return states

    def second_pass(self, states: dict[str, State]) -> Generator[LayerProgress, None, dict[str, QuantizedLayer]]:
        """Every chosen layer, in the order in which they run, on the outputs of the quantized layers before it."""
        done: dict[str, QuantizedLayer] = {}
        self.steps_left = iter(range(self.count))
        # at once up to the first block: with the original embedding
        original = self.row.start(self.windows, self.head) if self.compares else None
        if self.embedding is not None:
            done[self.embedding] = yield from self.quantize_embedding(self.embedding)
        text = self.row.start(self.windows, self.head)
        passes = [text] if original is None else [text, original]
        reached: set[int] = set()
        for index in self.row.visit(*passes):
            reached.add(index)
            with self.row.block(index) as block, ExitStack() as rounding:
                run = self.run(index, block, text.calls, original)
                if index in self.learning():
                    late = {name: self.chosen[name] for name in self.late}
                    learning = replace(run, repairs=False)
                    states |= yield from self.kept_states(
                        self.locate(self.row.names[index]), index, learning, run.outputs(), late
                    )
                done |= yield from self.quantize_block(run, states, rounding)
                outputs = run.original_outputs()  # none without the original model
                if index in self.refining():
                    layers = {name: done[name] for name in run.layers if name in done and self.chosen[name].refines}
                    position = self.locate(self.row.names[index])
                    done |= yield from self.refine(position, index, run, outputs, layers, rounding)
                if original is not None:
                    original.advance(outputs)
                text.advance(run.outputs())
        for index in range(len(self.row.names)):
            if index not in reached:  # as the vision blocks of a model that is given text
                with self.row.block(index) as block, ExitStack() as rounding:
                    done |= yield from self.quantize_block(self.run(index, block, []), states, rounding)
        if self.head is not None:
            with ExitStack() as rounding:
                run = self.head_run(self.head, text.calls, original)
                done |= yield from self.quantize_block(run, states, rounding)
            for passed in passes:
                passed.leave(self.model.layer(self.head).rows)
        return {name: done[name] for name in self.chosen}

    def locate(self, name: str) -> Place:
        """The next step of the second pass."""
        return Place(name, next(self.steps_left), self.count, self.phases - 1, self.phases)

    @property
    def count(self) -> int:
        """Steps of the second pass."""
        return len(self.chosen) + len(self.learning()) + len(self.refining()) + self.width

    @property
    def width(self) -> int:
        """Steps that the training of the whole model counts as: most of the time goes there."""
        return 0 if self.model_refinement is None else len(self.chosen)

    def quantize_embedding(self, name: str) -> Generator[LayerProgress, None, QuantizedLayer]:
        """The token embedding by its weights alone, before the blocks, which then read what it gives them."""
        position, result = self.locate(name), self.finished.layer(name)
        if result is None:
            result = self.scopes.mark((yield from self.quantize(position, None, {})))
            self.finished.keep_layer(result)
        self.row.set_weight(name, result.weight())
        yield position.progress("done", result=result)
        return result.on_disk() if self.model.streams else result

    def quantize_block(
        self, run: BlockRun, states: dict[str, State], rounding: ExitStack
    ) -> Generator[LayerProgress, None, dict[str, QuantizedLayer]]:
        """The chosen layers of one block, group by group, each then running quantized."""
        done: dict[str, QuantizedLayer] = {}
        for batch in run.batches():
            stored = {name: self.finished.layer(name) for group in batch for name in group if name in self.chosen}
            waiting = {group[0]: [name for name in group if stored.get(name, 0) is None] for group in batch}
            guided = {leader: [name for name in names if name in run.weights] for leader, names in waiting.items()}
            inputs = run.all_seen((leader for leader, names in waiting.items() if names), guided)
            if self.model.streams:
                inputs = {name: None if pair is None else pair.on_disk() for name, pair in inputs.items()}
            for group in batch:
                chosen_names = [name for name in group if name in self.chosen]
                for name in chosen_names:
                    position, result = self.locate(name), stored[name]
                    if result is None:
                        self.row.drop_weight(name)
                        result = yield from self.quantize(position, inputs[group[0]], states)
                        result = self.mark(result, group, states)
                        self.finished.keep_layer(result)
                    self.record_gap(result)
                    done[name] = result.on_disk() if self.model.streams else result
                    yield position.progress("done", result=result)
                for name in chosen_names:
                    self.row.set_weight(name, done[name].weight())
                    rounding.enter_context(round_inputs(run.layers[name], done[name].packed))
        return done

    def quantize(
        self, position: Place, inputs: Seen | None, states: Mapping[str, State]
    ) -> Generator[LayerProgress, None, QuantizedLayer]:
        """One layer on its input in the quantized model, aiming at its weights, or at its output in the original to repair it.

        Its output error is the share of that aim's energy that is lost; its relative error is that of the weight, as ever.
        """
        name = position.layer
        if self.scopes.waits(name):
            yield position.progress("share")
            self.scopes.prepare(name, self.model, None, states)
        recipe, shared = self.chosen[name], self.scopes.shared(name)
        weight = self.model.weight(name).float()
        check_inputs(weight, None)
        aim, guided = compute_aim(recipe, weight, inputs), inputs.guided.get(name) if inputs else None
        moment, tokens = (inputs.moment, inputs.tokens) if inputs else (None, 0)
        if moment is None and needs_moment(recipe):
            moment = make_zero_moment(weight.shape[1])
        options: dict[str, Any] = {"tokens": tokens, "measured": is_measured(self.model.layer(name)), "guided": guided}
        steps = quantize_layer(aim, moment, recipe, shared, name, states.get(name), **options)
        result = yield from position.follow("layer", steps)
        return replace(result, relative_error=compute_relative_error(weight, result.weight()))

    def record_gap(self, result: QuantizedLayer) -> None:
        """Note a layer that no token came to, or too few, also where an earlier run has quantized it."""
        name, tokens = result.name, result.tokens or 0
        if not needs_moment(result.recipe) or not is_measured(self.model.layer(name)):
            return
        if not tokens:
            self.unreached.append(name)
        elif is_sparse(tokens, result.packed.cols, self.calibration["tokens"]):
            self.sparse[name] = tokens

    def refining(self) -> list[int]:
        """The blocks that are refined."""
        return self.blocks_of({name for name, recipe in self.chosen.items() if recipe.refines})

    def learning(self) -> list[int]:
        """The blocks in which transforms are learned on the inputs that they have once the blocks before are quantized."""
        return self.blocks_of(self.late)

    def blocks_of(self, names: Collection[str]) -> list[int]:
        """The blocks that one of these layers is in."""
        pairs = enumerate(zip(self.row.layers, self.row.routers, strict=True))
        return [index for index, (layers, routers) in pairs if not {*layers, *routers}.isdisjoint(names)]

    def refine(
        self,
        position: Place,
        index: int,
        run: BlockRun,
        target: Sequence[Any],
        layers: Mapping[str, QuantizedLayer],
        rounding: ExitStack,
    ) -> Generator[LayerProgress, None, dict[str, QuantizedLayer]]:
        """The block's layers after their refinement; what it changed beside them goes to `changed_tensors`. Both then run."""
        refined = self.finished.block(position.layer, list(layers))
        if refined is None:
            names = {name: f"{self.row.within(index, name)}.weight" for name in layers}
            orient = {name: self.model.layer(name).orient for name in layers}
            weights = {name: self.model.weight(name).float() for name in layers}
            trees = {name: layer.packed for name, layer in layers.items()}
            full = [extract_hidden_states(output) for output in target]
            loss, vectors = BlockLoss(run.block, run.calls, run.hidden, full), self.row.vectors(index)
            block = QuantizedBlock(loss, trees, weights, names, orient, vectors)
            block = yield from position.follow("refine", refine(block, {name: self.chosen[name] for name in layers}))
            trained = {name: vector for name, vector in block.vectors.items() if not torch.equal(vector, vectors[name])}
            refined = RefinedBlock({n: replace(layer, packed=block.trees[n]) for n, layer in layers.items()}, trained)
            with ExitStack() as rounded:
                self.apply_refinement(index, run, refined, rounded)
                refined = replace(refined, layers=measure_layers(run, refined.layers, weights))
            self.finished.keep_block(position.layer, refined)
        self.apply_refinement(index, run, refined, rounding)
        for layer in refined.layers.values():
            yield replace(position, layer=layer.name).progress("done", result=layer)
        return dict(refined.layers)

    def apply_refinement(self, index: int, run: BlockRun, refined: RefinedBlock, rounding: ExitStack) -> None:
        """Let block `index` run with its refined layers and vectors."""
        for name, layer in refined.layers.items():
            self.row.set_weight(name, layer.weight())
            rounding.enter_context(round_inputs(run.layers[name], layer.packed))
        for name, vector in refined.vectors.items():
            self.row.put_tensor(f"{self.row.names[index]}.{name}", vector)
            self.changed_tensors[f"{self.row.names[index]}.{name}"] = vector

    def mark(self, layer: QuantizedLayer, group: Sequence[str], states: Mapping[str, State]) -> QuantizedLayer:
        """The layer with its codebook shared in its scope, and its transform among the layers that learned it together."""
        layer = self.scopes.mark(layer)
        transform = self.chosen[layer.name].transform
        others = [name for name in group if name in self.chosen and self.chosen[name].transform == transform]
        if layer.name in states and isinstance(transform, Learned) and len(others) > 1:
            return mark_transform(layer, others[0], len(others))
        return layer
