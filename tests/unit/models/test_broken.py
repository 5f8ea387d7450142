"""Logits that are not finite: an error that says where they begin, in everything that runs a model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.analysis.predictions.compare import compare
from workbench.analysis.predictions.divergence import score
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.cli import main
from workbench.errors import ModelError
from workbench.models import ModelHandle, open_model
from workbench.models.broken import are_logits_broken
from workbench.models.text import Text

TEXT = Text("two", ("Once upon a time there was a cat.", "The dog ran home."))
LAYER = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def overflowing(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose first MLP's norm multiplies by 1e38; attention would turn infinite scores into zeros now and then."""
    folder = tmp_path_factory.mktemp("overflowing")
    shutil.copytree(tiny_models["llama"], folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.post_attention_layernorm.weight"
    tensors[name] = torch.full_like(tensors[name].float(), 1e38)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


RUNS: dict[str, Callable[[ModelHandle], object]] = {
    "perplexity": lambda model: model.perplexity(TEXT),
    "generate": lambda model: model.language_model().generate("Once upon a time"),
    "compare": lambda model: compare(model, model, TEXT),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_an_overflow_is_one_sentence_that_names_the_place(overflowing: Path, run: Callable[[ModelHandle], object]) -> None:
    wanted = r"the logits of '.*' are not finite; the first such values come out of 'model\.layers\.0\.\S+' \(\w+, float32\): the"
    with pytest.raises(ModelError, match=wanted):
        run(open_model(overflowing))


def test_a_replay_names_the_layer_that_was_changed(builtin: ModelHandle) -> None:
    replay = Replay(builtin, TEXT, tokens=20)
    weight = torch.full_like(builtin.weight(LAYER).float(), 1e38)
    with pytest.raises(ModelError, match=rf"first such values come out of '{LAYER}' \(Linear, float32\)"):
        replay.divergence({LAYER: weight})


def test_a_comparison_says_which_model_overflows() -> None:
    ids, whole = torch.tensor([[0, 1]]), torch.zeros(1, 2, 3)
    for pair, which in (((whole, whole * torch.nan), "changed"), ((whole + torch.inf, whole), "original")):
        with pytest.raises(ModelError, match=f"logits of the {which} model are not finite on document 4 of the text"):
            score(3, ids, *pair)


@pytest.mark.parametrize("words", [["eval"], ["generate", "--prompt", "Once"], ["kv", "--scheme", "kivi"]], ids=" ".join)
def test_commands_end_with_status_1(
    overflowing: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["workbench", words[0], str(overflowing), *words[1:], "--tokens", "20"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    assert said.err.startswith("error: the logits of ")


def test_what_rules_a_token_out_is_not_broken() -> None:
    assert not are_logits_broken(torch.tensor([[0.0, -torch.inf]]))
    for row in ([0.0, torch.nan], [0.0, torch.inf], [-torch.inf, -torch.inf]):
        assert are_logits_broken(torch.tensor([row, [0.0, 1.0]]))


def test_a_tokenizer_with_more_entries_than_the_embedding_is_named(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every command that reads text: tokens were added and the embedding was not resized."""
    folder = tmp_path / "short"
    shutil.copytree(tiny_models["llama"], folder)
    tensors = load_file(folder / "model.safetensors")
    rows = 20
    short = {k: v[:rows].contiguous() if k.startswith(("model.embed_tokens", "lm_head")) else v for k, v in tensors.items()}
    save_file(short, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    recipe = ["--recipe", "rtn:bits=2"]
    for words in (["eval"], ["generate", "--prompt", "The cat"], ["whatif", "--layer", LAYER, *recipe], ["kv"]):
        monkeypatch.setattr("sys.argv", ["workbench", words[0], str(folder), *words[1:], "--tokens", "20"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert f"entries, the model's embedding {rows} rows: there is none for token" in capsys.readouterr().err
