"""Input statistics against a plain recomputation from recorded inputs."""

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_models import FAMILIES
from workbench.calibration import CalibrationStats, calibrate
from workbench.errors import JobCancelled, ModelError
from workbench.input_sums import Collector
from workbench.models import ModelHandle, open_model
from workbench.models.text import Text

STORIES = Text(
    "stories", ("Tom had a red ball. He ran home.", "A cat sat on my hat.", "The dog is big. The ant is not.", "Rain fell.")
)
LONG = Text("long", (" ".join(STORIES.documents * 6),))


@pytest.fixture
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def recorded_inputs(model: ModelHandle, name: str, documents: tuple[str, ...]) -> Tensor:
    """All inputs `[tokens, cols]` of one layer, float64, by a hook of the test's own."""
    inputs: list[Tensor] = []
    hook = model.module.get_submodule(name).register_forward_hook(lambda _, x, y: inputs.append(x[0].flatten(0, -2).double()))
    with torch.no_grad():
        for document in documents:
            model.module(model.encode(document))
    hook.remove()
    return torch.cat(inputs)


def assert_same(a: CalibrationStats, b: CalibrationStats, **tolerance: float) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].tokens == b[name].tokens
        for field in ("moment", "mean", "absmax"):
            torch.testing.assert_close(getattr(a[name], field), getattr(b[name], field), **tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_has_the_moments_of_its_inputs(tiny_models: dict[str, Path], family: str) -> None:
    model = open_model(tiny_models[family])
    stats = calibrate(model, STORIES)
    assert list(stats) == model.layer_names
    for name in model.layer_names:
        x = recorded_inputs(model, name, STORIES.documents)
        found = stats[name]
        torch.testing.assert_close(found.moment, (x.T @ x / len(x)).float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.mean, x.mean(0).float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.absmax, x.abs().amax(0).float())
        assert found.tokens == len(x) == stats.tokens
        assert torch.equal(found.moment, found.moment.T)
        assert {found.moment.dtype, found.mean.dtype, found.absmax.dtype} == {torch.float32}


def test_layers_that_read_the_same_input_share_their_statistics(model: ModelHandle) -> None:
    stats = calibrate(model, STORIES)
    groups: dict[int, list[str]] = {}
    for name in stats:
        groups.setdefault(id(stats[name]), []).append(name.removeprefix("model.layers."))
    assert list(groups.values()) == [
        [f"{block}.{name}" for name in group]
        for block in (0, 1)
        for group in (
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            ["self_attn.o_proj"],
            ["mlp.gate_proj", "mlp.up_proj"],
            ["mlp.down_proj"],
        )
    ]
    doubled = stats + stats
    assert len({id(doubled[name]) for name in doubled}) == len(groups)


def test_statistics_of_two_texts_add_up(model: ModelHandle) -> None:
    one, two = Text("one", STORIES.documents[:1]), Text("two", STORIES.documents[1:])
    both = calibrate(model, one) + calibrate(model, two)
    assert_same(both, calibrate(model, one + two), rtol=1e-5, atol=1e-6)
    assert both.tokens == calibrate(model, STORIES).tokens
    assert both.facts() == {
        "text": "one + two",
        "fingerprint": f"{one.fingerprint} + {two.fingerprint}",
        "tokens": both.tokens,
        "seed": "0 + 0",
    }


@pytest.mark.parametrize("tokens", [1, 10, 33, 128, 150])
def test_the_number_of_tokens_is_met_exactly(model: ModelHandle, tokens: int) -> None:
    assert model.context == 128
    stats = calibrate(model, LONG, tokens=tokens)
    assert {stats[name].tokens for name in stats} == {tokens}
    assert stats.facts() == {"text": "long", "fingerprint": LONG.fingerprint, "tokens": tokens, "seed": 0}


def test_a_shorter_text_is_read_once_and_counted_honestly(model: ModelHandle) -> None:
    available = sum(model.encode(document).shape[1] for document in STORIES.documents)
    assert calibrate(model, STORIES, tokens=10_000).tokens == available


def test_a_long_document_is_read_in_windows_of_the_context(model: ModelHandle) -> None:
    lengths: list[int] = []
    hook = model.module.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    calibrate(model, LONG, tokens=300)
    hook.remove()
    assert lengths == [128, 128, 44]


def test_the_seed_orders_the_documents_and_repeats_itself(model: ModelHandle) -> None:
    first, same, other = (calibrate(model, STORIES, tokens=10, seed=seed) for seed in (0, 0, 1))
    assert_same(first, same, rtol=0, atol=0)
    name = model.layer_names[0]
    assert not torch.equal(first[name].moment, other[name].moment)


def test_some_layers_only(model: ModelHandle) -> None:
    names = [model.layer_names[5], model.layer_names[1]]
    stats = calibrate(model, STORIES, layers=names)
    assert list(stats) == names
    everything = calibrate(model, STORIES)
    for name in names:
        torch.testing.assert_close(stats[name].moment, everything[name].moment)


def test_progress_counts_tokens_and_may_stop_the_run(model: ModelHandle) -> None:
    steps: list[tuple[int, int]] = []
    calibrate(model, LONG, tokens=300, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(128, 300), (256, 300), (300, 300)]

    def stop(done: int, total: int) -> None:
        raise JobCancelled(f"stopped at {done} of {total}")

    with pytest.raises(JobCancelled, match="stopped at 128 of 16384"):
        calibrate(model, LONG, on_progress=stop)
    assert not any(module._forward_pre_hooks for module in model.module.modules())


def test_passes_of_other_threads_are_not_counted(model: ModelHandle) -> None:
    def disturb(done: int, total: int) -> None:
        other = threading.Thread(target=lambda: model.language_model().generate("Once upon", tokens=3))
        other.start()
        other.join(30)

    assert_same(calibrate(model, STORIES, on_progress=disturb), calibrate(model, STORIES), rtol=0, atol=0)


def test_statistics_follow_swapped_layers(model: ModelHandle) -> None:
    first, last = model.layer_names[0], model.layer_names[-1]
    before = calibrate(model, STORIES)
    with model.swapped({first: torch.zeros_like(model.weight(first))}):
        changed = calibrate(model, STORIES)
    torch.testing.assert_close(changed[first].moment, before[first].moment)
    assert not torch.allclose(changed[last].moment, before[last].moment)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({"tokens": 0}, "0 tokens to calibrate on; use 1 or more", id="no-tokens"),
        pytest.param({"layers": []}, "no layers to calibrate", id="no-layers"),
        pytest.param({"layers": ["model.layers.0.mlp.upproj"]}, "unknown layer .*did you mean", id="unknown-layer"),
    ],
)
def test_what_cannot_be_calibrated(model: ModelHandle, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        calibrate(model, STORIES, **settings)


def test_statistics_of_different_layers_do_not_add_up(model: ModelHandle) -> None:
    some = calibrate(model, STORIES, layers=model.layer_names[:2])
    with pytest.raises(ModelError, match="statistics of 14 and of 2 layers do not add up"):
        calibrate(model, STORIES) + some


def test_inputs_that_overflow_are_reported_by_layer(model: ModelHandle) -> None:
    name = "model.layers.0.mlp.gate_proj"
    huge = torch.full((128, 64), 3e38)
    with (
        model.swapped({name: huge}),
        pytest.raises(ModelError, match="inputs of layer 'model.layers.0.mlp.down_proj' are not finite"),
    ):
        calibrate(model, STORIES)


def test_an_encoder_decoder_opens_but_is_not_calibrated(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    T5Model(T5Config(vocab_size=512, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    model = open_model(tmp_path)
    assert model.weight("decoder.block.0.layer.1.EncDecAttention.q").shape == (16, 16)
    with pytest.raises(ModelError, match="is an encoder-decoder, which does not run on plain text"):
        calibrate(model, STORIES)


class Calls:
    """Layers called by hand, with a plain record of what each was given."""

    def __init__(self, names: str) -> None:
        self.layers = {name: nn.Linear(3, 2) for name in names}
        self.inputs: dict[str, list[Tensor]] = {name: [] for name in names}
        self.collector = Collector()

    def run(self, passes: list[list[str]]) -> None:
        """Each pass is a list of layers that get one and the same input; an empty input where the names end with 0."""
        with torch.no_grad(), self.collector.watching(self.layers):
            for names in passes:
                x = torch.randn(0 if names[-1] == "0" else 5, 3)
                for name in names:
                    if name != "0":
                        self.layers[name](x)
                        self.inputs[name].append(x)


@pytest.mark.parametrize(
    ("passes", "shared"),
    [
        (["abc", "abc", "d", "abc"], {"abc", "d"}),  # as usual
        (["abc", "b", "d", "abc", "b"], {"ac", "b", "d"}),  # called twice, the second time with another input
        (["abc", "ab", "d", "abc"], {"ab", "c", "d"}),  # not called
        (["ab", "d", "abc", "d"], {"ab", "c", "d"}),  # not called at first
        (["abb", "abb"], {"a", "b"}),  # called twice with the same
        (["ab", "b", "b", "a", "ab"], {"a", "b"}),
        (["ab", "ab0", "d", "ab", "b"], {"a", "b", "d"}),  # an input without tokens
        (["ab", "cd", "ba", "dc"], {"a", "b", "c", "d"}),  # in another order
        (["abc", "d", "a", "d", "bc"], {"a", "b", "c", "d"}),
    ],
    ids=lambda value: " ".join(sorted(value) if isinstance(value, set) else value),  # a set has no order of its own
)
def test_layers_that_share_their_input_now_and_then(passes: list[str], shared: set[str]) -> None:
    calls = Calls("abcd")
    calls.run([list(names) for names in passes])
    stats = calls.collector.stats("abcd")
    assert set(stats) == {name for name in "abcd" if calls.inputs[name]}
    for name, own in stats.items():
        x = torch.cat(calls.inputs[name]).double()
        torch.testing.assert_close(own.moment, (x.T @ x / len(x)).float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own.mean, x.mean(0).float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own.absmax, x.abs().amax(0).float())
        assert own.tokens == len(x)
    groups = {"".join(name for name in stats if stats[name] is own) for own in stats.values()}
    assert groups == shared
