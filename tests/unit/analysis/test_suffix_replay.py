"""Suffix replay is the whole model run again, for every layer of every family, and less work."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.tiny_models import CAUSAL, write_model
from workbench.analysis.predictions.divergence import measure_divergence
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.errors import ModelError, ShapeError
from workbench.models import ModelHandle, open_model
from workbench.models.boundaries import Boundaries
from workbench.models.text import Text

LAYER = "model.layers.2.mlp.down_proj"
STORIES = Text(
    "stories", ("Tom had a red ball. He threw it high and his dog ran after it.", "A small bird sat on the roof and sang a song.")
)


def noisy(weight: Tensor) -> Tensor:
    """The weight with noise of a tenth of its spread."""
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return weight.float() + 0.1 * weight.float().std() * noise


def check_every_layer(model: ModelHandle) -> None:
    lm, windows = model.language_model(), [model.encode(document) for document in STORIES.documents]
    boundaries = Boundaries(model, windows)
    for name in model.layer_names:
        new = noisy(model.weight(name))
        for index, ids in enumerate(windows):
            with model.swapped({name: new}):
                expected = lm.logits(ids)
            assert not torch.equal(expected, boundaries.logits(index))  # the noise shows
            torch.testing.assert_close(boundaries.logits(index, {name: new}), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_every_layer_of_every_family(tiny_models: dict[str, Path], family: str) -> None:
    check_every_layer(open_model(tiny_models[family]))


def test_blocks_that_answer_with_tuples(tmp_path: Path) -> None:
    check_every_layer(open_model(write_model("bloom", tmp_path)))


def test_every_layer_of_the_builtin(builtin: ModelHandle) -> None:
    check_every_layer(builtin)


def test_nothing_changed_is_exactly_zero(builtin: ModelHandle) -> None:
    replay = Replay(builtin, STORIES)
    own = {name: builtin.weight(name) for name in builtin.layer_names[::11]}
    for changes in ({}, dict.fromkeys(own), *({name: weight} for name, weight in own.items()), own):
        found = replay.divergence(changes)
        assert (found.kl, found.kl_interval, found.top1_changed) == (0.0, (0.0, 0.0), 0.0)
        assert found.perplexity == found.perplexity_original


def test_several_layers_are_the_model_with_all_of_them_swapped(builtin: ModelHandle) -> None:
    layers = {name: wb.quantize(builtin, name, wb.recipe("rtn", bits=3, group=64)) for name in builtin.layer_names[5::13]}
    lm = builtin.language_model()

    def changed(ids: Tensor) -> Tensor:
        with builtin.swapped({name: layer.weight() for name, layer in layers.items()}):
            return lm.logits(ids)

    expected = measure_divergence(lm, STORIES, lm.logits, changed)
    found = Replay(builtin, STORIES).divergence(layers)
    assert found.kl > 0
    assert found.kl == pytest.approx(expected.kl, rel=1e-5)
    assert found.perplexity_interval == pytest.approx(expected.perplexity_interval, rel=1e-5)


def test_kept_states_are_those_of_the_base(builtin: ModelHandle) -> None:
    """With every layer swapped from the start, a None puts one of them back."""
    ids = [builtin.encode(STORIES.documents[0])]
    base = {name: noisy(builtin.weight(name)) for name in builtin.layer_names}
    boundaries = Boundaries(builtin, ids, base)
    without = {name: weight for name, weight in base.items() if name != LAYER}
    with builtin.swapped(without):
        expected = builtin.language_model().logits(ids[0])
    torch.testing.assert_close(boundaries.logits(0, {LAYER: None}), expected, rtol=1e-5, atol=1e-5)


def test_blocks_that_write_into_their_input(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(tiny_models["llama"])
    windows, name = [model.encode(STORIES.documents[0])], model.layer_names[-1]
    new = noisy(model.weight(name))
    expected = Boundaries(model, windows).logits(0, {name: new})
    kind = type(model.module.get_submodule("model.layers.0"))
    plain = kind.forward

    def rude(self: nn.Module, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = plain(self, hidden.clone(), *args, **kwargs)
        hidden.zero_()
        return out

    monkeypatch.setattr(kind, "forward", rude)
    boundaries = Boundaries(model, windows)
    for _ in range(2):
        torch.testing.assert_close(boundaries.logits(0, {name: new}), expected, rtol=0, atol=0)


def test_memory_is_stated(builtin: ModelHandle) -> None:
    replay = Replay(builtin, STORIES, tokens=20)
    read = sum(span.window.shape[1] for span in replay.spans)
    assert replay.bytes == 7 * read * 256 * 4


def test_blocks_before_the_change_do_not_run(builtin: ModelHandle) -> None:
    boundaries, ran = Boundaries(builtin, [builtin.encode(STORIES.documents[0])]), []
    hooks = [
        builtin.module.get_submodule(f"{name}.mlp.down_proj").register_forward_hook(
            lambda _m, _i, _o, name=name: ran.append(name)
        )
        for name in boundaries.blocks
    ]
    boundaries.logits(0, {LAYER: builtin.weight(LAYER)})
    for hook in hooks:
        hook.remove()
    assert ran == boundaries.blocks[2:]


def test_the_model_is_as_before_an_error(builtin: ModelHandle) -> None:
    replay, ids = Replay(builtin, STORIES), builtin.encode(STORIES.documents[0])
    before = builtin.language_model().logits(ids)

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken on purpose")

    with pytest.raises(ModelError, match="broken on purpose"):
        replay.divergence({LAYER: Broken()})
    torch.testing.assert_close(builtin.language_model().logits(ids), before, rtol=0, atol=0)
    assert all("forward" not in vars(builtin.module.get_submodule(name)) for name in replay.boundaries.blocks)


def test_less_is_computed_than_for_the_whole_model(tmp_path: Path) -> None:
    """Blocks that run, over the layers of 12 blocks: those before a changed layer do not, and the one it is in runs again."""
    model = open_model(write_model("llama", tmp_path, blocks=12, width=64))
    ids = torch.randint(3, 500, (1, 16), generator=torch.Generator().manual_seed(0))
    boundaries, lm = Boundaries(model, [ids]), model.language_model()
    names = [name for name in model.layer_names if name.endswith("down_proj")]
    ran: list[str] = []
    for name in names:
        model.module.get_submodule(name.removesuffix(".down_proj")).register_forward_hook(lambda *_, name=name: ran.append(name))
    counts = []
    for name in names:
        swap = {name: noisy(model.weight(name))}
        with model.swapped(swap):
            lm.logits(ids)
        whole = len(ran)
        boundaries.logits(0, swap)
        counts.append((whole, len(ran) - whole))
        ran.clear()
    assert counts == [(12, 12 - block) for block in range(12)]


def test_mistakes(builtin: ModelHandle) -> None:
    replay = Replay(builtin, STORIES)
    with pytest.raises(ModelError, match="unknown layer 'model.layers.2.mlp.down'"):
        replay.divergence({"model.layers.2.mlp.down": None})
    with pytest.raises(ShapeError, match=r"is \[256, 768\]; a weight of \[2, 2\] cannot replace it"):
        replay.divergence({LAYER: torch.zeros(2, 2)})
