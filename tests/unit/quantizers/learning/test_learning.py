"""Learned bases: exact when nothing is quantized, never worse than none, and in a block the same as in the stored form."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from workbench import presets
from workbench.jobs import run_steps
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.models import open_model
from workbench.models.blocks import BlockRow
from workbench.quantizers.contract import Codebooks
from workbench.quantizers.learning.basis import Basis, BasisState, Factors
from workbench.quantizers.learning.block import BlockLoss, draw_batches, learn_block
from workbench.quantizers.learning.descent import LearningStep, Memory, Schedule
from workbench.quantizers.learning.inputs import GRADIENTS, Input
from workbench.quantizers.learning.layer import learn_layer
from workbench.quantizers.pipeline import InLoop
from workbench.quantizers.transforms.learned import ROTATION_STARTS, ROTATIONS, Binarized, Learned

ALL = Factors(gain=True, signs=True, rotation=True)
TURNED = Factors(gain=True, signs=False, rotation=True)
SPREAD = Factors(gain=True, signs=True, rotation=True, hadamard=True)
IDS = torch.arange(3, 67)[None]
Learnt = tuple[float, list[LearningStep], dict[str, torch.Tensor]]
Learn = Callable[..., Learnt]


class Exact:
    """No quantizer: every value is a code."""

    def __call__(self, w: torch.Tensor, moment: torch.Tensor | None) -> torch.Tensor:
        self.moment = moment
        return w

    def nearest(self, w: torch.Tensor) -> torch.Tensor:
        return w


def wild(cols: int, factors: Factors = ALL, seed: int = 0) -> Basis:
    """A basis far from the identity."""
    basis, draw = Basis(cols, factors), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in basis.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=draw))
    return basis


def correlated(cols: int, seed: int = 1) -> torch.Tensor:
    x = torch.randn(400, cols, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.2, 3, cols)
    x = x + x.roll(1, 1)
    return x.mT @ x / 400


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["fp32", "fp64"])
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("factors", [ALL, SPREAD], ids=["plain", "hadamard"])
def test_without_a_quantizer_the_block_is_reproduced(
    tiny_models: dict[str, Path], dtype: torch.dtype, tolerance: float, gradient: str, factors: Factors
) -> None:
    row = BlockRow(open_model(tiny_models["llama"]))
    (call,) = row.start([IDS]).calls
    hidden = call.hidden.to(dtype)
    call.kwargs["position_embeddings"] = tuple(p.to(dtype) for p in call.kwargs["position_embeddings"])  # type: ignore[index]
    with row.block(0) as block, torch.no_grad():
        original = {name: p.to(dtype) for name, p in block.named_parameters()}
        weights = {row.within(0, name): row.model.weight(name).to(dtype) for name in row.layers[0]}
        changed = {}
        for name, w in weights.items():
            one = Input({name: w}, wild(w.shape[1], factors).to(dtype), {name: Exact()}, gradient)
            one.basis.round()
            decoded = one.refresh()
            changed[f"{name}.weight"] = one.effective()[name]
            torch.testing.assert_close(decoded[name], w, rtol=tolerance, atol=tolerance)
        full = call.run(block, hidden, original)
        torch.testing.assert_close(call.run(block, hidden, {**original, **changed}), full, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("gain", [True, False], ids=["gain", "no-gain"])
@pytest.mark.parametrize("start", ROTATION_STARTS)
def test_what_is_trained_is_what_is_stored(rotation: str, gain: bool, start: str) -> None:
    part = Learned(gain=gain, rotation=rotation, start=start)
    basis = wild(24, part.factors)
    basis.round()
    w = torch.randn(5, 24, generator=torch.Generator().manual_seed(2))
    state = basis.state()
    torch.testing.assert_close(part.forward(w, state), basis(w), rtol=1e-4, atol=1e-4)
    packed = part.pack(Packed("dense", 5, 24, {"weight": part.forward(w, state)}), state)
    torch.testing.assert_close(formats.decode(packed), w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(basis.undo(basis(w)), w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_learned_layer_is_never_worse_and_its_best_is_kept(gradient: str) -> None:
    w, h = torch.randn(512, 48, generator=torch.Generator().manual_seed(3)), correlated(48)
    seen: list[LearningStep] = []
    part = Learned(start="identity", steps=40, gradient=gradient)
    state = run_steps(learn_layer(w, h, part.factors, Binarized(), part.schedule, gradient), seen.append)

    def lost(values: torch.Tensor) -> float:
        e = values - w
        return (((e @ h) * e).sum() / ((w @ h) * w).sum()).item()

    def stored(state: BasisState) -> torch.Tensor:
        inner = part.forward(w, state)
        return formats.decode(part.pack(Packed("dense", 512, 48, {"weight": Binarized()(inner)}), state))

    looks = [step.held_out for step in seen if step.held_out is not None]
    best, start = lost(stored(state)), lost(stored(Basis(48, part.factors).state()))
    learned = min(*looks, start)
    dropped = 16 * (48 + 15 + 28) / w.numel()  # bits a weight of Λ and R, which may be taken back where they gain less
    assert learned * 0.99 <= best <= learned * 4**dropped  # what does not pay is undone, which can even gain a little
    assert best <= min(start, lost(Binarized()(w)))


def test_a_rotation_makes_binarizing_easier() -> None:
    """Rows that are signs in a hidden rotated basis: the codes' gradient finds most of the way there, without any moment."""
    draw = torch.Generator().manual_seed(4)
    hidden = wild(16, Factors(gain=False, signs=False, rotation=True), seed=5)
    with torch.no_grad():
        w = hidden.undo(torch.randn(64, 16, generator=draw).sign())
    part = Learned(gain=False, signs=False, start="identity", steps=200, rate=0.03)
    state = run_steps(part.learn(w, None, 0, Binarized()))
    inner = part.forward(w, state)
    before, after = ((Binarized()(m) - m).square().sum() / m.square().sum() for m in (w, inner))
    assert after < 0.5 * before


@pytest.fixture(scope="module")
def learn(tiny_models: dict[str, Path]) -> Iterator[Learn]:
    """Learns the bases of block 0 with the recipe's coders in the loop, from the start or from a memory."""
    row = BlockRow(open_model(tiny_models["llama"]))
    text = row.start([IDS + i for i in range(6)])
    with row.block(0) as block:
        calls, hidden = text.calls, [call.hidden for call in text.calls]
        with torch.no_grad():
            loss = BlockLoss(block, calls, hidden, [call.run(block, h) for call, h in zip(calls, hidden, strict=True)])
        names = {name: f"{row.within(0, name)}.weight" for name in row.layers[0]}
        orient = {name: row.model.layer(name).orient for name in names}
        coders = presets.recipe("btc", bits=0.8, compensation=False)

        def run(start: Memory | None = None, commitment: float = 0.0) -> Learnt:
            weights = {name: row.model.weight(name) for name in names}
            inputs = [Input({n: w}, Basis(w.shape[1], TURNED), {n: InLoop(coders)}, "codes") for n, w in weights.items()]
            seen: list[LearningStep] = []
            schedule, how = Schedule(20, 0.01), {"commitment": commitment, "start": start}
            steps = learn_block(loss, inputs, names, orient, schedule, tokens=128, seed=0, **how)
            return run_steps(steps, seen.append), seen, inputs[0].basis.state().tensors()

        yield run


def test_learning_a_block_lowers_its_held_out_loss_and_repeats(learn: Learn) -> None:
    (best, seen, state), (again, _, same) = learn(), learn()
    assert best == again
    assert all(torch.equal(state[name], same[name]) for name in state)
    looks = [step.held_out for step in seen if step.held_out is not None]
    assert [step.step for step in seen if step.held_out is not None] == [10, 20]
    assert min(looks) < seen[0].loss
    assert best >= min(looks), "what was not worth its bits is taken back"


def test_learning_that_was_stopped_goes_on_to_the_same_end(learn: Learn) -> None:
    best, seen, state = learn()
    memory = seen[9].memory
    assert memory is not None
    assert memory.step == 10
    rest_best, rest, rest_state = learn(memory)
    assert (rest_best, rest[0].step, [step.loss for step in rest]) == (best, 11, [step.loss for step in seen[10:]])
    assert all(torch.equal(state[name], rest_state[name]) for name in state)


def test_batches_see_every_window_before_any_again() -> None:
    batches = draw_batches([10] * 7, [1, 2, 3, 4, 5, 6], tokens=20, steps=6, seed=0)
    assert all(len(batch) == 2 for batch in batches)
    halves = [sorted(i for batch in half for i in batch) for half in (batches[:3], batches[3:])]
    assert halves == [[1, 2, 3, 4, 5, 6]] * 2
    assert batches == draw_batches([10] * 7, [1, 2, 3, 4, 5, 6], tokens=20, steps=6, seed=0)


def test_the_moment_of_the_changed_input_is_what_codes_are_chosen_under() -> None:
    basis, h = wild(24, SPREAD), correlated(24)
    basis.round()
    rounding = Exact()
    Input({"weight": torch.eye(24)}, basis, {"weight": rounding}, "codes", h).refresh()
    with torch.no_grad():
        t = basis.input(torch.eye(24))
    assert rounding.moment is not None
    torch.testing.assert_close(rounding.moment, t.mT @ h @ t, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(t @ basis(torch.eye(24)).mT, torch.eye(24), rtol=0, atol=1e-5)


def test_signs_start_as_drawn_before_a_hadamard_and_as_they_are_without() -> None:
    assert torch.equal(Basis(64, ALL, seed=1).state().tensors()["signs"], torch.ones(64))
    drawn, other = (Basis(64, SPREAD, seed=seed).state().tensors()["signs"] for seed in (1, 2))
    assert 16 < (drawn < 0).sum() < 48
    assert not torch.equal(drawn, other)


@pytest.mark.parametrize("factors", [ALL, SPREAD], ids=["plain", "hadamard"])
def test_what_stayed_the_identity_is_not_stored(factors: Factors) -> None:
    basis = Basis(24, factors)
    assert list(basis.state().tensors()) == ["signs"]
    with torch.no_grad():
        basis.right[3] = 0.1
        basis.log_gain[5] = 1e-5  # rounds to a factor of one
    assert list(basis.state().tensors()) == ["signs", "left", "right"]
    basis.round()
    assert not basis.log_gain.any()


def test_the_distance_from_the_nearest_codes_is_that_of_the_decoded_weights() -> None:
    """With gains too: what counts is the weight in the model's own basis."""
    w = torch.randn(16, 24, generator=torch.Generator().manual_seed(6))
    group = Input({"weight": w}, wild(24, SPREAD), {"weight": Binarized()}, "codes")
    group.basis.round()
    decoded = group.refresh()["weight"]
    assert group.distance().item() == pytest.approx(((decoded - w).square().sum() / w.square().sum()).item(), rel=1e-4)
    group.distance().backward()
    trained = [p for p in group.basis.parameters() if p.requires_grad]
    assert len(trained) == 3, "signs before a Hadamard transform are drawn"
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


@pytest.mark.parametrize("commitment", [0.0, 0.5, 1.0])
def test_a_committed_basis_is_nearer_to_its_codes(learn: Learn, commitment: float) -> None:
    """The more the loss asks for it, the lower the distance; the first step's loss is the mixture it says."""
    plain, committed = learn()[1][0].loss, learn(commitment=1.0)[1]
    mixed = learn(commitment=commitment)[1]
    assert mixed[0].loss == pytest.approx(commitment * committed[0].loss + (1 - commitment) * plain, rel=1e-4)
    assert committed[9].loss < committed[0].loss, "up to the first look scales and codebook stay"


def test_the_quantizer_in_the_loop_codes_with_what_layers_share() -> None:
    book = torch.randn(256, 10, generator=torch.Generator().manual_seed(7)).sign()
    loop = InLoop(presets.recipe("btc", bits=0.8, compensation=False), [Codebooks(book, rounds=torch.empty(1, 0))])
    values = loop(torch.randn(6, 40, generator=torch.Generator().manual_seed(8)), None)
    words = {tuple(word) for word in book.tolist()}
    assert all(tuple(vector) in words for vector in values.sign().view(-1, 10).tolist())
