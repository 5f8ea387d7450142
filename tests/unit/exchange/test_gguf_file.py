"""GGUF files: read back by their own library, and run by llama.cpp with the logits and tokens of the packed model."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

import workbench as wb
from workbench.errors import ArtifactError
from workbench.exchange.writing import gguf_file
from workbench.exchange.writing.gguf_tokenizer import PATTERNS
from workbench.models.handle import ModelHandle
from workbench.presets import parse

TOKENS = 200
EXACT = 1e-6  # nats a token between two programs that compute with the same numbers
needs_library = pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed; it comes with the extra 'exchange'")
needs_llama = pytest.mark.skipif(
    find_spec("llama_cpp") is None or find_spec("gguf") is None,
    reason="llama.cpp is not installed; it comes with the extras 'bench' and 'exchange'",
)
TEXT = "Once upon a time, there was a naïve little fox who lived in the woods. “Hello!” she said, 3 times… 🦊\n\nThe end."


def save(model: ModelHandle, folder: Path, recipe: str, layers: str = "*") -> Path:
    """A saved quantized model."""
    return wb.save(wb.quantize_model(model, parse(recipe), layers=layers), folder, model)


def run_llama(path: Path, ids: list[int], text: str) -> tuple[Tensor, list[int]]:
    """The logits of llama.cpp for token ids, and the ids that it reads in a text."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=256, n_batch=256, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    model.eval(ids)
    logits = torch.tensor(np.array(model.scores[: len(ids)]))
    tokens = model.tokenize(text.encode(), add_bos=True, special=True)
    model.close()
    return logits, tokens


def write_byte_tokenizer(model: Path, folder: Path) -> Path:
    """A copy of a model with a tokenizer of its family, trained on the built-in text."""
    shutil.copytree(model, folder)
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(next(iter(PATTERNS))), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.train_from_iterator(wb.text("evaluation").documents[:20], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "bos_token": None, "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def measure_divergence(expected: Tensor, logits: Tensor) -> tuple[float, float]:
    """KL divergence in nats a token, and the share of tokens with the same most likely successor."""
    difference = expected.log_softmax(-1) - logits.log_softmax(-1)
    kl = (expected.softmax(-1) * difference).sum(-1).mean()
    return float(kl), float((expected.argmax(-1) == logits.argmax(-1)).float().mean())


@needs_llama
@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ("original", "F16"),
        ("binary", "BF16"),
        ("rtn:bits=4,group=32,symmetric=yes", "Q4_0"),
        ("rtn:bits=4,zero=real", "Q4_1"),
        ("rtn:bits=8,symmetric=yes", "Q8_0"),
        ("ternary:group=256", "TQ1_0"),
        ("ternary:group=256", "TQ2_0"),
        ("binary:group=128,mean=no", "Q1_0"),
    ],
)
def test_llama_computes_what_the_packed_model_does(builtin: ModelHandle, tmp_path: Path, recipe: str, kind: str) -> None:
    document = wb.text("evaluation").documents[0]
    ids = builtin.encode(document)[:, :TOKENS]
    if recipe == "original":
        written, expected = wb.export(builtin, tmp_path / "model.gguf", to="gguf"), builtin.language_model().logits(ids)
    else:
        saved = save(builtin, tmp_path / "small", recipe)
        types = kind if kind.startswith("TQ") else None
        written, expected = wb.export(saved, tmp_path / "model.gguf", to="gguf", types=types), wb.load(saved).logits(ids)
    assert {outcome.stored_as for outcome in written.outcomes if outcome.kind == "layers"} == {kind}
    logits, tokens = run_llama(tmp_path / "model.gguf", ids[0].tolist(), document)
    assert tokens == builtin.encode(document)[0].tolist()
    kl, agreement = measure_divergence(expected[0], logits)
    assert kl < 1e-3  # llama.cpp rounds the inputs of quantized matrices to 8 bits
    assert agreement > 0.95


@needs_llama
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_llama_computes_each_family(tiny_models: dict[str, Path], tmp_path: Path, family: str) -> None:
    """Heads rotated by halves or neighbours, biases of q and k, norms of heads; for Qwen2 with a tokenizer of bytes."""
    folder = tiny_models[family] if family != "qwen2" else write_byte_tokenizer(tiny_models[family], tmp_path / "model")
    model = wb.open_model(folder)
    wb.export(model, tmp_path / "model.gguf", to="gguf")
    ids = model.encode(TEXT)[:, :100]
    logits, tokens = run_llama(tmp_path / "model.gguf", ids[0].tolist(), TEXT)
    assert tokens == model.encode(TEXT)[0].tolist()
    assert measure_divergence(model.language_model().logits(ids)[0], logits)[0] < EXACT


@needs_llama
def test_rotary_frequencies_of_llama3(tmp_path: Path) -> None:
    import transformers as t

    from tests.tiny_models import SHAPE, write_model

    rope = {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    folder = write_model("llama", tmp_path / "model")
    (folder / "config.json").unlink()
    t.LlamaConfig(**SHAPE, rope_parameters=rope, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    model = wb.open_model(folder)
    wb.export(model, tmp_path / "model.gguf", to="gguf")
    ids = model.encode(TEXT)[:, :100]
    logits, _ = run_llama(tmp_path / "model.gguf", ids[0].tolist(), TEXT)
    assert measure_divergence(model.language_model().logits(ids)[0], logits)[0] < EXACT


@needs_library
def test_the_library_reads_every_tensor_back(builtin: ModelHandle, tmp_path: Path) -> None:
    import gguf

    saved = save(builtin, tmp_path / "small", "rtn:bits=4,group=32,symmetric=yes", "*.0.*,*.embed_tokens")
    written = wb.export(saved, tmp_path / "model.gguf", to="gguf")
    packed = wb.load(saved)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert len(reader.tensors) == len(written.outcomes) == 56
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 6)
    tensors = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    for outcome in written.outcomes:
        values = torch.tensor(tensors[names.get_name(outcome.name, try_suffixes=(".weight",))])
        layer = outcome.name.removesuffix(".weight")
        quantized = layer in packed.quantized.layers
        expected = packed.weight(layer) if quantized else builtin.tensor(outcome.name).float()
        if layer.endswith(("q_proj", "k_proj")):  # llama.cpp has the two halves of each head in turns
            heads = len(values) // 32
            values = torch.cat([values.view(heads, 16, 2, -1)[:, :, half] for half in (0, 1)], 1).reshape(values.shape)
        torch.testing.assert_close(values, expected, atol=0, rtol=0, msg=outcome.name)
        assert outcome.stored_as == ("Q4_0" if quantized else "F32" if values.ndim == 1 else "F16")
        assert outcome.bits_after == 8 * {t.name: t.n_bytes for t in reader.tensors}[names.get_name(outcome.name, (".weight",))]
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["llama.rope.freq_base"] == 10_000
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (8, 4)
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert fields["tokenizer.ggml.tokens"][3:5] == builtin.tokenizer.convert_ids_to_tokens([3, 4])


@needs_library
def test_what_cannot_be_held_is_told_or_refused(builtin: ModelHandle, tmp_path: Path) -> None:
    saved = save(builtin, tmp_path / "small", "binary", "*.0.mlp.*")
    with pytest.raises(
        ArtifactError, match="3 would be dequantized to BF16, because it stores a mean for each group, first model"
    ):
        wb.export(saved, tmp_path / "model.gguf", to="gguf", strict=True)
    assert not (tmp_path / "model.gguf").exists()
    written = wb.export(saved, tmp_path / "model.gguf", to="gguf")
    assert written.losses == {
        "dequantized to BF16, because it stores a mean for each group": [
            f"model.layers.0.mlp.{matrix}_proj.weight" for matrix in ("gate", "up", "down")
        ]
    }
    assert written.bytes == (tmp_path / "model.gguf").stat().st_size


@needs_library
def test_rounded_inputs_are_told(builtin: ModelHandle, tmp_path: Path) -> None:
    recipe = parse("rtn:bits=4").replace(activations=wb.part("activations", "per-token", bits=8))
    saved = wb.save(wb.quantize_model(builtin, recipe, layers="*.0.mlp.*"), tmp_path / "small", builtin)
    assert list(wb.export(saved, tmp_path / "model.gguf", to="gguf").losses) == ["run without rounding of inputs to 8 bits"]


@needs_library
@pytest.mark.parametrize("family", ["gemma", "opt", "gpt2"])
def test_other_families_are_refused(tiny_models: dict[str, Path], tmp_path: Path, family: str) -> None:
    with pytest.raises(ArtifactError, match=rf"is of type '{family}'; only llama, mistral, qwen2, qwen3 can be written to GGUF"):
        wb.export(tiny_models[family], tmp_path / "model.gguf", to="gguf")


@needs_library
def test_a_window_limits_the_context(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    import gguf

    folder = shutil.copytree(tiny_models["mistral"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 64}))
    written = wb.export(folder, tmp_path / "model.gguf", to="gguf")
    assert written.notes == ("Attention over a window of 64 tokens is not in GGUF: the context is that window, not 128.",)
    assert gguf.GGUFReader(tmp_path / "model.gguf").fields["llama.context_length"].contents() == 64


def test_the_library_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "find_spec", lambda _: None)
    with pytest.raises(ArtifactError, match=r"pip install 'quantization-workbench\[exchange\]'"):
        wb.export("builtin", tmp_path / "model.gguf", to="gguf")


def test_unknown_types_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="unknown GGUF type 'Q9_9'; use Q1_0, TQ1_0"):
        wb.export("builtin", tmp_path / "model.gguf", to="gguf", types="q4_0,q9_9")


LIMITED = """
import resource, sys
from workbench import export
from workbench.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    export("builtin", sys.argv[1], to="gguf")
except OutputError as error:
    sys.exit(str(error))
"""


@needs_library
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    said = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert said.stderr.startswith(f"{path} cannot be written: ")
    assert said.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
