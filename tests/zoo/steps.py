"""What the workbench does with a model, one function a step; each compares its result with that of plain transformers."""

import os
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

import workbench as wb
from tests.zoo.checkpoints import write_checkpoint
from tests.zoo.reference import Reference, Slot
from workbench.artifact.folder_layout import MODEL
from workbench.errors import WorkbenchError
from workbench.kernels.forced_backend import VARIABLE
from workbench.models.text import Text

SCORED, CALIBRATED, PROMPT, WRITTEN, READ = 100, 64, 40, 8, 60
ROUNDED = wb.recipe("rtn", bits=3)


class Mismatch(AssertionError):
    """A result that is not transformers' own."""


@dataclass(frozen=True)
class Outcome:
    """How a step went: "right", "refused" by a sentence, "wrong", "crashed", or "missed" after a step that it needs."""

    status: str
    detail: str
    seconds: float


class Trial:
    """One checkpoint as both sides see it; what several steps need is worked out once."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        document = wb.text("evaluation").documents[0]
        self.text = Text("one story", (document,))

    @cached_property
    def reference(self) -> Reference:
        """The checkpoint in transformers."""
        return Reference(self.folder)

    @cached_property
    def model(self) -> Any:
        """The checkpoint in the workbench."""
        return wb.open_model(self.folder)

    def ids(self, tokens: int) -> Tensor:
        """The story's first tokens `[1, tokens]`."""
        return self.model.encode(self.text.documents[0])[:, :tokens]

    @property
    def matrices(self) -> list[str]:
        """Every matrix of the blocks: layers, and routers, which are layers where they are named."""
        return [*self.model.layer_names, *self.model.router_names]

    @property
    def layers(self) -> list[str]:
        """The matrices of the blocks and the token embedding: everything but a head, which is tied to it or alike."""
        embedding = self.model.embedding_name
        return [*self.matrices, *([] if embedding is None else [embedding])]

    @cached_property
    def slots(self) -> dict[str, Slot | None]:
        """Where transformers has the weight of every layer."""
        return {name: self.reference.slot(name, self.model.weight(name)) for name in self.layers}

    def slot(self, name: str) -> Slot:
        """Where transformers has the weight of one layer."""
        slot = self.slots[name]
        expect(slot is not None, f"transformers has no weight {name!r}")
        assert slot is not None
        return slot

    def examined(self) -> list[str]:
        """A layer that is a module and one that is a slice or a bare parameter, both in use when text is read."""
        used = [name for name in self.model.layer_names if name in self.reference.used]
        bare = [name for name in self.model.layer_names if name not in self.reference.modules]
        return [names[len(names) // 2] for names in (used, bare) if names]


def expect(condition: bool, message: str) -> None:
    """Raise Mismatch unless the condition holds."""
    if not condition:
        raise Mismatch(message)


def expect_close(value: float, expected: float, relative: float, what: str, floor: float = 0.0) -> None:
    """Raise Mismatch where two figures differ by more than their last digits."""
    expect(abs(value - expected) <= relative * abs(expected) + floor, f"{what} {value:.7g}, in transformers {expected:.7g}")


def several(names: list[str]) -> str:
    """How many names, and the first of them."""
    return f"{len(names)}: {', '.join(names[:3])}"


def open_model(trial: Trial) -> str:
    """The checkpoint opens and counts as a causal language model."""
    expect(trial.model.writes_text, f"{trial.model.config.architectures} is taken for no causal language model")
    return f"{sum(parameter.numel() for parameter in trial.reference.module.parameters()):,} parameters"


def list_layers(trial: Trial) -> str:
    """Every matrix inside numbered blocks is a layer, and every layer is a weight of transformers."""
    unknown = [name for name, slot in trial.slots.items() if slot is None]
    expect(not unknown, f"layers that transformers does not have, {several(unknown)}")
    sizes = {slot.place: slot.read().numel() for name in trial.matrices if (slot := trial.slots.get(name)) is not None}
    total, missed = 0, {}
    for name, parameter in trial.reference.block_weights.items():
        total += parameter.numel()
        rest = parameter.numel() - sum(size for (number, _), size in sizes.items() if number == id(parameter))
        if rest:
            missed[name] = rest
    share = 1 - sum(missed.values()) / total
    expect(not missed, f"{share:.1%} of the block weights are layers; missed, {several(list(missed))}")
    return f"{len(trial.matrices)} layers, {share:.1%} of the block weights"


def compare_weights(trial: Trial) -> str:
    """Every weight equals that which transformers loads."""
    wrong = [name for name in trial.layers if not same(trial.model.weight(name), trial.slot(name).read())]
    expect(not wrong, f"weights that differ, {several(wrong)}")
    return f"{len(trial.slots)} weights"


def same(weight: Tensor, expected: Tensor) -> bool:
    """Whether two weights have the same shape and values."""
    return weight.shape == expected.shape and torch.equal(weight.float(), expected)


def measure_perplexity(trial: Trial) -> str:
    """Perplexity is that of the losses of full passes."""
    result = trial.model.perplexity(trial.text, tokens=SCORED)
    expect(result.tokens == SCORED, f"{result.tokens} tokens were scored instead of {SCORED}")
    expected = float(torch.tensor(trial.reference.loss(trial.ids(SCORED + 1))).exp())
    expect_close(result.perplexity, expected, 1e-4, "perplexity is")
    return f"perplexity {expected:.4g}"


def generate(trial: Trial) -> str:
    """The likeliest tokens, written with a cache, are those of full passes without one."""
    lm, ids = trial.model.language_model(), trial.ids(PROMPT)
    written = list(lm.new_tokens(ids, WRITTEN))
    expected = trial.reference.continued(ids, WRITTEN)
    stop = next((index for index, token in enumerate(expected) if token in lm.stops), WRITTEN)
    expect(written == expected[:stop], f"tokens {written}, in transformers {expected[:stop]}")
    return f"{stop} tokens"


def calibrate(trial: Trial) -> str:
    """Every layer has statistics, and those of a module are the moment of what it reads."""
    stats = wb.calibrate(trial.model, trial.text, tokens=CALIBRATED, layers=trial.matrices)
    lacking = [name for name in trial.matrices if name not in stats and name in trial.reference.used]
    expect(not lacking, f"layers without statistics, {several(lacking)}")
    for name in [*trial.examined()[:1], *trial.model.router_names[-1:]]:
        if name not in trial.reference.modules:
            continue
        expected = trial.reference.moment(name, trial.ids(CALIBRATED))
        off = float((stats[name].moment - expected).abs().max() / expected.abs().max())
        expect(off < 1e-4, f"the moment of {name!r} is off by {off:.2g}")
    return f"{len(stats)} layers"


def quantize(trial: Trial) -> str:
    """Layers quantize to matrices of their shape, at the error that is reported."""
    for name in trial.examined():
        layer, weight = wb.quantize(trial.model, name, ROUNDED), trial.slot(name).read()
        expect(layer.weight().shape == weight.shape, f"{name!r} decodes to {list(layer.weight().shape)} of {list(weight.shape)}")
        expected = float((layer.weight() - weight).square().sum() / weight.square().sum())
        expect_close(layer.relative_error, expected, 1e-3, f"the error of {name!r} is")
        expect(expected < 0.2, f"the error of {name!r} is {expected:.2g}")
    return ", ".join(trial.examined())


def what_if(trial: Trial) -> str:
    """The divergence that one layer causes is that of transformers with this weight replaced."""
    ids, found = trial.ids(SCORED + 1), []
    before = trial.reference.log_probabilities(ids)
    for name in trial.examined():
        result = wb.what_if(trial.model, name, ROUNDED, trial.text, tokens=SCORED)
        with trial.reference.replaced([(trial.slot(name), result.layer.weight())]):
            after = trial.reference.log_probabilities(ids)
        expected = float((before.exp() * (before - after)).sum(-1).mean())
        expect_close(result.kl, expected, 1e-3, f"the divergence by {name!r} is", floor=1e-7)
        found.append(f"{expected:.3g}")
    return f"KL {', '.join(found)}"


def save_and_load(trial: Trial) -> str:
    """A saved model holds every tensor of the module, and runs like transformers with the decoded weights in place."""
    quantized = wb.quantize_model(trial.model, ROUNDED, layers=",".join(trial.layers))
    folder = wb.save(quantized, trial.out / "saved", trial.model)
    lost = lost_tensors(trial, folder, set(quantized.layers))
    expect(not lost, f"tensors that are not in the file, {several(lost)}")
    ids = trial.ids(READ)
    loaded = wb.load(folder)
    weights = [(trial.slot(name), layer.weight()) for name, layer in quantized.layers.items()]
    with trial.reference.replaced(weights, quantized.changed_tensors):
        expected = trial.reference.logits(ids)
    with backend("reference"):
        off = distances(loaded.logits(ids)[0], expected)
    expect(float(off.max()) < 2e-3, f"logits are off by {float(off.max()):.2g} standard deviations")
    # compiled products round their inputs; where that moves a token to another expert its logits differ
    off = distances(loaded.logits(ids)[0], expected)
    expect(float(off.median()) < 0.02, f"logits by compiled products are off by {float(off.median()):.2g} standard deviations")
    return f"{len(quantized.layers)} layers, {quantized.bits_per_weight:.2f} bits"


def distances(logits: Tensor, expected: Tensor) -> Tensor:
    """The largest difference at each token, in standard deviations of the logits."""
    return (logits - expected).abs().amax(-1) / expected.std()


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Packed layers multiply by one backend."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def lost_tensors(trial: Trial, folder: Path, layers: set[str]) -> list[str]:
    """Tensors of the module that are neither in the file nor layers, nor tied to one that is."""
    with safe_open(folder / MODEL, framework="pt") as file:
        stored = set(file.keys())
    state = trial.reference.module.state_dict()
    slices: Counter[str] = Counter()
    for name in layers:
        slices[name.rpartition(".")[0]] += trial.model.layer(name).rows * trial.model.layer(name).cols

    def present(name: str, tensor: Tensor) -> bool:
        if name in stored or name in layers or name.removesuffix(".weight") in layers:
            return True
        return slices[name] == tensor.numel()

    there = {tensor.data_ptr() for name, tensor in state.items() if present(name, tensor)}
    return [name for name, tensor in state.items() if tensor.data_ptr() not in there]


def quantize_blocks(trial: Trial) -> str:
    """The run block by block finishes every layer that takes part when text is read."""
    recipe = wb.recipe("gptq", bits=3)
    names = ",".join(trial.layers)
    quantized = wb.quantize_model(trial.model, recipe, layers=names, text=trial.text, tokens=CALIBRATED)
    lacking = [name for name in trial.layers if name not in quantized.layers]
    expect(not lacking, f"layers that were left out, {several(lacking)}")
    bad = [name for name, layer in quantized.layers.items() if not layer.error < 0.5]
    expect(not bad, f"layers whose error is 0.5 or more, {several(bad)}")
    return f"{len(quantized.layers)} layers"


STEPS: dict[str, Callable[[Trial], str]] = {
    "open": open_model,
    "layers": list_layers,
    "weights": compare_weights,
    "perplexity": measure_perplexity,
    "generate": generate,
    "calibrate": calibrate,
    "quantize": quantize,
    "what-if": what_if,
    "save and load": save_and_load,
    "block run": quantize_blocks,
}


def run_steps(kind: str, folder: Path) -> dict[str, Outcome]:
    """Build the checkpoint of one type below `folder` and run every step on it; `build` is the first outcome."""
    outcomes = build_and_run(kind, folder)
    # sentences are the same in whatever folder they arise
    return {name: replace(outcome, detail=outcome.detail.replace(f"{folder}/", "")) for name, outcome in outcomes.items()}


def build_and_run(kind: str, folder: Path) -> dict[str, Outcome]:
    """The same with the folder in what is said."""
    with quiet():
        built = attempt(partial(written, kind, folder / kind))
        outcomes = {"build": built}
        if built.status != "right":
            return outcomes
        trial = Trial(folder / kind, folder)
        for name, step in STEPS.items():
            needed = outcomes.get("open")
            if needed is not None and needed.status != "right":
                outcomes[name] = Outcome("missed", "the model does not open", 0.0)
            else:
                outcomes[name] = attempt(partial(step, trial))
        return outcomes


def written(kind: str, folder: Path) -> str:
    """Write the checkpoint and see that transformers reads it and runs it on text."""
    write_checkpoint(kind, folder)
    reference = Reference(folder)
    logits = reference.logits(torch.arange(3, 3 + READ)[None])
    expect(bool(torch.isfinite(logits).all()), "its logits are not finite")
    return f"{sum(parameter.numel() for parameter in reference.module.parameters())}"


def attempt(step: Callable[[], str]) -> Outcome:
    """The outcome of one step; whatever it raises is its outcome."""
    begin = time.perf_counter()
    try:
        status, detail = "right", step()
    except WorkbenchError as error:
        status, detail = "refused", f"{type(error).__name__}: {error}"
    except Mismatch as error:
        status, detail = "wrong", str(error)
    except Exception as error:  # noqa: BLE001  (a crash is what a step is there to find)
        status, detail = "crashed", f"{type(error).__name__}: {first_line(error)} ({place(error)})"
    return Outcome(status, detail, time.perf_counter() - begin)


def first_line(error: Exception) -> str:
    """An error's words, cut to one line."""
    return " ".join(str(error).split())[:300]


def place(error: Exception) -> str:
    """The last line of the workbench, or else of the zoo, that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/workbench/" in frame.filename] or [f for f in frames if "/zoo/" in f.filename] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"


@contextmanager
def quiet() -> Iterator[None]:
    """Families warn of this and that while they are built and run; here only results count."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def as_rows(outcomes: dict[str, Outcome]) -> dict[str, dict[str, Any]]:
    """Outcomes as plain data."""
    return {name: asdict(outcome) for name, outcome in outcomes.items()}
